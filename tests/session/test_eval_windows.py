"""Which tokens of a text are scored, and with how much before them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.errors import UsageError
from qwen_edge.session.eval_windows import Window, plan_windows, scored_tokens


def test_halves_are_those_of_the_known_tool() -> None:
    """llama.cpp scores 255 tokens of each window of 512: positions 257 to 511."""
    windows = plan_windows(1600, 512, None)
    assert windows == [Window(0, 512, 257), Window(512, 1024, 769), Window(1024, 1536, 1281)]
    assert scored_tokens(windows) == 3 * 255


def test_a_stride_goes_through_the_whole_text() -> None:
    assert plan_windows(1000, 512, 256) == [
        Window(0, 512, 1), Window(256, 768, 512), Window(512, 1000, 768),
    ]  # fmt: skip
    assert plan_windows(10, 512, 256) == [Window(0, 10, 1)]


@given(st.integers(2, 3000), st.integers(64, 700), st.data())
def test_a_stride_scores_every_token_but_the_first_once(
    tokens: int, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    windows = plan_windows(tokens, context, stride)
    scored = [token for window in windows for token in range(window.scored, window.end)]
    if stride < context:
        assert scored == list(range(1, tokens))
    else:
        # Nothing comes before the first token of a window.
        assert scored == [token for token in range(tokens) if token % context]
    for window in windows:
        assert window.begin < window.scored < window.end <= window.begin + context
    assert scored_tokens(windows) == len(scored)


@given(st.integers(64, 3000), st.integers(64, 700))
def test_halves_have_at_least_half_a_window_before_them(tokens: int, context: int) -> None:
    if tokens < context:
        with pytest.raises(UsageError, match="a window takes"):
            plan_windows(tokens, context, None)
        return
    windows = plan_windows(tokens, context, None)
    assert len(windows) == tokens // context
    for number, window in enumerate(windows):
        assert (window.begin, window.end) == (number * context, (number + 1) * context)
        assert window.scored - window.begin > context // 2


@pytest.mark.parametrize("tokens", [0, 1])
def test_too_little_text_is_refused(tokens: int) -> None:
    with pytest.raises(UsageError, match="nothing to predict"):
        plan_windows(tokens, 512, 256)
