"""The prompt of a single answer, from arguments and standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qwen_edge.cli.terminal import is_terminal
from qwen_edge.errors import UsageError
from qwen_edge.host.sizes import format_size

# More than the longest context of any model takes.
_LONGEST = 32 << 20


def read_prompt(words: Sequence[str]) -> str:
    """Joins arguments and standard input: arguments, a blank line, what was piped in.

    Line ends at the end of the input are dropped, so that ``echo hi | qwen-edge run`` asks the same
    as ``qwen-edge run hi``. What is not UTF-8 becomes U+FFFD.

    Returns:
        The prompt; empty if there is neither.

    Raises:
        UsageError: there is too much.
    """
    parts = [_repaired(" ".join(words)), _piped()]
    return "\n\n".join(part for part in parts if part.strip())


def _piped() -> str:
    if sys.stdin is None or is_terminal(sys.stdin):
        return ""
    data = sys.stdin.buffer.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise UsageError(
            "Standard input holds more than {limit}.",
            "No context is that long: give it a part.",
            limit=format_size(_LONGEST),
        )
    return data.decode("utf-8", "replace").rstrip("\r\n")


def _repaired(text: str) -> str:
    """Arguments that are not UTF-8 come with lone surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
