"""Putting text on the clipboard, with whatever command the system has for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from qwen_edge.host.android import ABSENT, Command, Outcome


def copy(text: str, environ: Mapping[str, str] | None = None) -> Outcome:
    """Puts text on the clipboard; the outcome says whether that succeeded."""
    outcome = Outcome(ABSENT)
    for words in _commands(os.environ if environ is None else environ):
        # Those of a desktop leave something behind that keeps the text; its output is never read.
        command = Command(*words, text=text, reads=False)
        outcome = command.outcome()
        if outcome.state != ABSENT:
            break
    return outcome


def _commands(environ: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    yield ("termux-clipboard-set",)
    if environ.get("WAYLAND_DISPLAY"):
        yield ("wl-copy",)
    if environ.get("DISPLAY"):
        yield ("xclip", "-selection", "clipboard")
    yield ("pbcopy",)
