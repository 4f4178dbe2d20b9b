"""What chat templates can call beside Jinja's own: the same as in transformers."""

from __future__ import annotations

import re
from typing import Any

from jinja2.exceptions import SecurityError, TemplateError
from jinja2.utils import Namespace

_WIDE_TIME = re.compile(r"%[^a-zA-Z%]*\d{3}")


class Refused(TemplateError):
    """The template itself called ``raise_exception``: the messages are not to its liking."""


class ChatNamespace(Namespace):
    """Jinja's ``namespace``, with public names only and an opaque text form."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # No name of its own, so that `namespace(self=...)` works.
        for name in dict(*args[1:], **kwargs):
            _public(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _public(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


def _public(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"the name {name!r} is not allowed in a namespace")


class ChatDict:
    """``dict`` for templates, without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    import json

    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def raise_exception(message: object) -> None:
    raise Refused(str(message))


def strftime_now(format: str) -> str:
    from datetime import datetime

    if _WIDE_TIME.search(format):
        raise SecurityError("it pads a text too far")
    return datetime.now().strftime(format)
