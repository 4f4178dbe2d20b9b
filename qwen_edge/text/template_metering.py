"""Rewrites a parsed chat template so that it reports what it does to its environment.

The environment has the methods ``step``, ``weigh``, ``weigh_deep`` and ``joined``. A template
cannot call them itself: they are attributes of the environment and not among its globals.
"""

from __future__ import annotations

from typing import Any, cast

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

CHARACTERS = 16  # of text cost one unit of the budget
_ROUND = 16  # units for one pass through a body


class GenerationTag(Extension):
    """``{% generation %}`` marks answers for training; here only its body counts."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own form

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class Metering(NodeTransformer):
    """Rewrites a template so that it reports what it does to the environment's budget."""

    def _call(self, method: str, *arguments: nodes.Expr, line: int) -> nodes.Call:
        target = nodes.EnvironmentAttribute(method)
        call = nodes.Call(target, list(arguments), [], None, None)
        call.set_lineno(line)
        return call

    def _weighed(self, node: nodes.Expr, deep: bool = True) -> nodes.Expr:
        return self._call("weigh_deep" if deep else "weigh", node, line=node.lineno)

    def _stepping(self, node: Any) -> Any:
        """Makes each pass through the body cost a step and the literal text in it."""
        self.generic_visit(node)
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        cost = nodes.Const(_ROUND + text // CHARACTERS)
        statement = nodes.ExprStmt(self._call("step", cost, line=node.lineno))
        node.body.insert(0, statement.set_lineno(node.lineno))
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self._stepping(node)
        node.iter = self._weighed(cast(nodes.Expr, node.iter), deep=False)
        return node

    visit_Macro = visit_CallBlock = visit_Block = _stepping

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._call("joined", *node.nodes, line=node.lineno)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._weighed(node.expr)
        for operand in node.ops:
            operand.expr = self._weighed(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = self._weighed(node.node, deep=False)
        return node

    def _container(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else self._weighed(node)

    visit_List = visit_Dict = visit_Tuple = _container
