"""Runs a chat template from a model file, which may be hostile, with Jinja's sandbox and a budget.

Jinja's sandbox keeps a template away from Python's internals; it does not keep it from running or
growing for ever. So the parsed template is rewritten to count what it does (rounds of loops, macro
calls, text and lists that it makes), and going over the budget is an error. What is left in the
hands of C, a multiplication or a padding, is refused beforehand when its result would be too large.

Trimming, extensions, filters and globals are those of transformers' ``apply_chat_template``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, MappingView
from functools import lru_cache, wraps
from types import CodeType
from typing import Any, cast

from jinja2.exceptions import SecurityError
from jinja2.ext import LoopControlExtension
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen_edge.text.template_globals import (
    ChatDict,
    ChatNamespace,
    raise_exception,
    strftime_now,
    to_json,
)
from qwen_edge.text.template_metering import CHARACTERS, GenerationTag, Metering

MAX_SOURCE = 1 << 18  # characters; the longest published templates have some 30,000

# One unit of the budget stands for some 0.1 microseconds, or 16 characters.
_BASE_BUDGET = 4_000_000
_BUDGET_PER_CHARACTER = 64
_CALL = 64
_ELEMENT = 8
_MAX_ARGUMENT = 100_000
_MAX_BITS = 4096

# Filters and tests that look at no more than the outside of a container.
_SHALLOW = frozenset(
    [
        *("attr", "batch", "boolean", "callable", "count", "d", "default", "defined"),
        *("divisibleby", "escaped", "even", "false", "filter", "first", "float", "int", "integer"),
        *("items", "iterable", "last", "length", "list", "map", "mapping", "none", "number", "odd"),
        *("random", "reject", "rejectattr", "reverse", "safe", "sameas", "select", "selectattr"),
        *("sequence", "slice", "test", "true", "undefined"),
    ]
)
# Methods that can blow up a short text, or leave the world of text.
_REFUSED_METHODS = frozenset(["encode", "expandtabs", "format_map", "maketrans", "translate"])
_NESTING = (list, tuple, MappingView)
_CONTAINERS = (*_NESTING, dict, range)
_SIZED = (str, *_CONTAINERS)
_REFUSED_FILTERS = ("pprint", "urlize", "wordwrap", "xmlattr")
_WIDE_FORMAT = re.compile(r"\{[^{}]*(\{|\d{5})")
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\*|\d{5})")


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """One rendering's environment. Not for use by several threads or renderings."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, budget: int = _BASE_BUDGET) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, LoopControlExtension],
            finalize=self.weigh_deep,
            cache_size=0,
        )
        self.budget = budget
        self._own = frozenset(["weigh", "weigh_deep", "joined", "step"])
        self.filters["tojson"] = to_json
        for name in _REFUSED_FILTERS:
            del self.filters[name]
        self.filters = {n: self._metered(n, f) for n, f in self.filters.items()}
        self.tests = {n: self._metered(n, f) for n, f in self.tests.items()}
        del self.globals["lipsum"]
        self.globals.update(
            raise_exception=raise_exception,
            strftime_now=strftime_now,
            namespace=ChatNamespace,
            dict=ChatDict(),
        )

    def step(self, cost: int) -> str:
        """Takes ``cost`` units from the budget.

        Raises:
            SecurityError: the budget is used up.
        """
        self.budget -= cost
        if self.budget < 0:
            raise SecurityError("it does not come to an end")
        return ""

    def weigh(self, value: Any) -> Any:
        """Charges for going once through the elements of ``value``; returns it."""
        if isinstance(value, str):
            self.step(len(value) // CHARACTERS)
        elif isinstance(value, _CONTAINERS):
            self.step(len(value))
        return value

    def weigh_deep(self, value: Any, indent: int = 0) -> Any:
        """Charges for everything inside ``value``; returns it."""
        pending: list[tuple[Any, int]] = [(value, 0)]
        while pending:
            item, depth = pending.pop()
            self.step(_ELEMENT + depth * indent // CHARACTERS)
            self.weigh(item)
            if isinstance(item, dict):
                pending += [(each, depth + 1) for pair in item.items() for each in pair]
            elif isinstance(item, _NESTING):
                pending += [(each, depth + 1) for each in cast(Iterable[Any], item)]
            elif isinstance(item, int) and item.bit_length() > _MAX_BITS:
                raise SecurityError("it makes a number that is too large")
        return value

    def joined(self, *values: Any) -> str:
        """The ``~`` operator."""
        return "".join([str(self.weigh_deep(value)) for value in values])

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        # The names leave all others to the template's keyword arguments, as in Jinja.
        self, obj = __self, __obj
        if getattr(obj, "__self__", None) is self and obj.__name__ in self._own:
            return obj(*args)
        self.step(_CALL)
        owner = getattr(obj, "__self__", None)
        name = getattr(obj, "__name__", "")
        visible = [kwargs[key] for key in kwargs if key not in ("_loop_vars", "_block_vars")]
        self._foresee(name, owner, [*args, *visible])
        if not isinstance(owner, dict):
            self.weigh_deep(owner)
        result = super().call(__context, obj, *args, **kwargs)
        made = isinstance(obj, ChatDict) or isinstance(owner, ChatDict)
        return self.weigh_deep(result) if made else self.weigh(result)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.weigh_deep(left)
        self.weigh_deep(right)
        if operator == "*":
            self._foresee_product(left, right)
            self._foresee_product(right, left)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > _MAX_BITS:
                raise SecurityError("it makes a number that is too large")
        elif operator == "%" and isinstance(left, str) and _WIDE_PERCENT.search(left):
            raise SecurityError("it pads a text too far")
        return self.weigh(super().call_binop(context, operator, left, right))

    def _foresee_product(self, value: Any, times: Any) -> None:
        if not isinstance(times, int):
            return
        if isinstance(value, int):
            if value.bit_length() + times.bit_length() > _MAX_BITS:
                raise SecurityError("it makes a number that is too large")
        elif isinstance(value, str | list | tuple) and times > 0:
            before = self.budget
            self.weigh_deep(value)
            self.step((before - self.budget) * times)

    def _foresee(self, name: str, owner: Any, arguments: list[Any]) -> None:
        """Charges for what a call takes in and will make, before it is made."""
        for argument in arguments:
            self.weigh_deep(argument)
            if isinstance(owner, str) and isinstance(argument, int):
                _check_width(argument)
        if name == "replace" and isinstance(owner, str) and len(arguments) > 1:
            old, new = str(arguments[0]), str(arguments[1])
            times = owner.count(old) if old else len(owner) + 1
            self.step(times * len(new) // CHARACTERS)
        elif name == "join" and isinstance(owner, str) and isinstance(arguments[0], _SIZED):
            self.step(len(arguments[0]) * len(owner) // CHARACTERS)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, int | float | bytes):
            return False
        if isinstance(obj, str) and attr in _REFUSED_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        if value.__name__ == "format_map" or _WIDE_FORMAT.search(value.__self__):
            raise SecurityError("it pads a text too far")
        return wrapped

    def _metered(self, name: str, function: Any) -> Callable[..., Any]:
        """A filter or test that charges for what it takes in and gives back."""
        first = 1 if hasattr(function, "jinja_pass_arg") else 0
        weigh = self.weigh if name in _SHALLOW else self.weigh_deep

        @wraps(function)
        def metered(*args: Any, **kwargs: Any) -> Any:
            self.step(_CALL)
            value, options = args[first], [*args[first + 1 :], *kwargs.values()]
            weigh(value)
            for option in options:
                self.weigh_deep(option)
                if isinstance(option, int) and name not in ("default", "d", "int", "float"):
                    _check_width(option)
            self._foresee_filter(name, value, options)
            return self.weigh(function(*args, **kwargs))

        return metered

    def _foresee_filter(self, name: str, value: Any, options: list[Any]) -> None:
        if name == "replace":
            self._foresee(name, str(value), options)
        elif name == "join" and options and isinstance(value, _SIZED):
            self.step(len(value) * len(str(options[0])) // CHARACTERS)
        elif name == "indent":
            width = options[0] if options else 4
            width = len(width) if isinstance(width, str) else int(width)
            self.step(str(value).count("\n") * width // CHARACTERS)
        elif name == "tojson":
            widths = [each for each in options if isinstance(each, int)]
            self.weigh_deep(value, max([len(str(each)) for each in options] + widths + [0]))
        elif name == "format" and _WIDE_PERCENT.search(str(value)):
            raise SecurityError("it pads a text too far")
        elif name == "center":
            self.step(_MAX_ARGUMENT // CHARACTERS)


def _check_width(number: int) -> None:
    if abs(number) > _MAX_ARGUMENT:
        raise SecurityError(f"the number {number} is too large there")


@lru_cache(maxsize=4)
def _compiled(source: str) -> CodeType:
    environment = ChatEnvironment()
    tree = Metering().visit(environment.parse(source))
    tree.set_environment(environment)
    return environment.compile(tree)


def run_template(source: str, variables: Mapping[str, object], size: int) -> str:
    """Renders a template.

    Args:
        source: Jinja source of at most MAX_SOURCE characters.
        variables: what the template sees, plain JSON types throughout.
        size: characters in ``variables``; what the template may do grows with it.

    Raises:
        Refused: the template called ``raise_exception``.
        Exception: of any kind, if the template is wrong or goes over its budget.
    """
    budget = _BASE_BUDGET + _BUDGET_PER_CHARACTER * size
    environment = ChatEnvironment(budget)
    template = environment.template_class.from_code(
        environment, _compiled(source), environment.make_globals(None)
    )
    parts, length = [], 0
    for part in template.generate(variables):
        parts.append(part)
        length += len(part)
        if length > budget:
            raise SecurityError("its text is too long")
    return "".join(parts)
