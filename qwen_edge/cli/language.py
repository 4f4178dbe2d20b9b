"""The language of messages: English, or Chinese where the locale says so."""

from __future__ import annotations

import os
from collections.abc import Mapping


def language(environ: Mapping[str, str] | None = None) -> str:
    """``zh`` or ``en``: ``QWEN_EDGE_LANG`` decides, then LC_ALL, LC_MESSAGES and LANG."""
    environ = os.environ if environ is None else environ
    for variable in ("QWEN_EDGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = environ.get(variable)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def translate(template: str) -> str:
    """The template in the user's language; the template itself where there is no translation."""
    if not template or language() != "zh":
        return template
    from qwen_edge.cli.messages_zh import MESSAGES

    return MESSAGES.get(template, template)


def localized(template: str, values: Mapping[str, object]) -> str:
    """Translates a template and fills in its values.

    A template without values is taken literally, braces included, as ``QwenEdgeError`` does.
    """
    text = translate(template)
    if not values:
        return text
    # Ranges are words too.
    shown = {key: translate(str(v)) if key == "allowed" else v for key, v in values.items()}
    try:
        return text.format(**shown)
    except (LookupError, ValueError):
        # Telling of a failure must not fail for a slip in a template.
        return text
