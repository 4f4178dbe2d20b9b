from __future__ import annotations

import pytest

from benchmarks.spread import paired_ratio, plain, spread


def test_median_and_range():
    result = spread([3.0, 1.0, 2.0])
    assert (result.middle, result.low, result.high) == (2.0, 1.0, 3.0)


def test_ratio_of_turns_is_not_the_ratio_of_medians():
    # The machine halves its speed for two turns; both systems feel it.
    ours, theirs = [100, 50, 50, 100, 100], [50, 25, 25, 50, 10]
    assert paired_ratio(ours, theirs).middle == 2
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (86.94, "86.9"),
        (109.4, "109"),
        (1234567, "1230000"),
        (1.2, "1.20"),
        (0.0121, "0.0121"),
        (2.0, "2.00"),
        (0, "0"),
        (-3.14159, "-3.14"),
    ],
)
def test_plain_numbers(value, text):
    assert plain(value) == text


def test_text_is_scaled():
    assert spread([0.0121, 0.0130, 0.0125]).text(1e3, unit=" ms") == "12.5 ms (12.1 to 13.0)"
