"""How a long text is cut into windows, and which of its tokens are scored.

Two methods, both in use, whose figures differ:

* halves (the default, that of llama.cpp's perplexity tool): windows lie end to end, and of each the
  second half is scored, so that every prediction has seen at least half a window. What does not
  fill a window at the end of the text is left out.
* a stride (that of Hugging Face's guide to perplexity): each window begins ``stride`` tokens after
  the one before, and what that one did not reach is scored: every token but the first, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qwen_edge.errors import UsageError

DEFAULT_CONTEXT = 512


class Window(NamedTuple):
    """Tokens ``begin`` to ``end - 1`` of a text, of which those from ``scored`` on are scored."""

    begin: int
    end: int
    scored: int


def plan_windows(tokens: int, context: int, stride: int | None) -> list[Window]:
    """Cuts a text; each window has at least one scored token.

    Args:
        tokens: of the text.
        context: of a window, at least 4.
        stride: 1 to ``context``; None for halves.

    Raises:
        UsageError: the text is too short.
    """
    if stride is None:
        half = context // 2
        starts = range(0, tokens - context + 1, context)
        windows = [Window(start, start + context, start + half + 1) for start in starts]
        if not windows:
            raise UsageError(
                "The text has {tokens} tokens, and a window takes {context}.",
                "Give a longer text, or --stride, which takes shorter ones.",
                tokens=tokens,
                context=context,
            )
        return windows
    if tokens < 2:
        raise UsageError(
            "The text has {tokens} tokens; there is nothing to predict.",
            "Give a longer text.",
            tokens=tokens,
        )
    windows = []
    reached = 0
    for start in range(0, tokens, stride):
        end = min(start + context, tokens)
        windows.append(Window(start, end, max(reached, start + 1)))
        reached = end
        if end == tokens:
            break
    # With a stride of a whole window a last one may hold a single token, which nothing predicts.
    return [window for window in windows if window.scored < window.end]


def scored_tokens(windows: Sequence[Window]) -> int:
    """Scored tokens of all windows."""
    return sum(window.end - window.scored for window in windows)
