"""Medians, ranges and ratios of samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of some samples."""

    middle: float
    low: float
    high: float

    def text(self, scale: float = 1, digits: int = 3, unit: str = "") -> str:
        """``86.9 (76.0 to 109)``, with as many significant digits."""
        middle, low, high = (
            plain(value * scale, digits) for value in (self.middle, self.low, self.high)
        )
        return f"{middle}{unit} ({low} to {high})"


def plain(value: float, digits: int = 3) -> str:
    """A number rounded to significant digits, never with an exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{max(decimals, 0)}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def spread(samples: Sequence[float]) -> Spread:
    """Median and range of at least one sample."""
    return Spread(median(samples), min(samples), max(samples))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The ratios turn by turn: a machine that is slow for a while is so for both.

    Raises:
        ValueError: the numbers of samples differ.
    """
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])
