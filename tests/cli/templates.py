"""Finds the message templates in the package's source, for the test of the translations."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[2] / "qwen_edge"
ERRORS = PACKAGE / "errors.py"
# Functions whose first argument is a template.
TELLING = {"note", "warn", "progress", "Progress", "file_progress", "heading", "translate"}
TELLING |= {"localized", "_labelled", "confirmed"}
# What an engine tells a watcher.
WATCHED = {"begin", "warn"}


class Found(NamedTuple):
    """A template, or None where it is put together in a way that cannot be translated."""

    template: str | None
    place: str


def error_names() -> set[str]:
    """Names of the error classes, those derived elsewhere in the package included."""
    names = {node.name for node in ast.parse(ERRORS.read_text()).body if hasattr(node, "name")}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                if bases & names:
                    names.add(node.name)
    return names


def error_templates() -> Iterator[Found]:
    """Sentences and hints of all errors that the package raises."""
    names = error_names()
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for call in _calls(tree):
            if _name(call) in names:
                for argument in call.args[:2]:
                    yield from _templates(argument, tree, path)


def told_templates() -> Iterator[Found]:
    """Notes, warnings, labels and headings of the command line, and what watchers are told."""
    for folder, names in (("cli", TELLING), ("engine", WATCHED)):
        for path in sorted((PACKAGE / folder).glob("*.py")):
            tree = ast.parse(path.read_text())
            for call in _calls(tree):
                if _name(call) in names and call.args:
                    yield from _templates(call.args[0], tree, path)


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _templates(node: ast.expr, tree: ast.AST, path: Path) -> Iterator[Found]:
    place = f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if node.value:
            yield Found(node.value, place)
    elif isinstance(node, ast.IfExp):
        yield from _templates(node.body, tree, path)
        yield from _templates(node.orelse, tree, path)
    elif isinstance(node, ast.Name):
        for value in _assigned(node.id, tree):
            yield from _templates(value, tree, path)
    elif isinstance(node, ast.JoinedStr | ast.BinOp):
        yield Found(None, place)
    elif isinstance(node, ast.Call):
        for value in _returned(_name(node), tree):
            yield from _templates(value, tree, path)


def _assigned(name: str, tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if name in targets and not isinstance(node.value, ast.Name):
                yield node.value


def _returned(name: str, tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield inner.value
