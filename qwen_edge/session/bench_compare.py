"""Two benchmarks side by side: which differences are more than noise."""

from __future__ import annotations

from typing import NamedTuple

from qwen_edge.session.bench_result import HIGHER, NEITHER, Measure, Report, median

# Differences below this share are within what two runs of the same thing differ by.
_LEAST_DIFFERENCE = 0.03
# Fewer samples do not tell what the noise is.
_FEWEST = 3
# From so many on, one outlier is forgiven.
_ENOUGH = 5
# Scales the median of the distances from the median to a standard deviation (normal noise).
_MAD_SCALE = 1.4826
_DEVIATIONS = 2.0
FASTER, SLOWER, LESS, MORE = "faster", "slower", "less", "more"


class Difference(NamedTuple):
    """One line of a comparison.

    Attributes:
        first, second: the measure in each report; None where it has none.
        change: second over first, less one; None where it says nothing.
        verdict: ``faster`` or ``slower`` (``less``, ``more`` of memory and the like) where the
            difference is beyond the noise, ``noise`` where it is not, ``unclear`` where there are
            too few samples to tell, empty where there is nothing to compare.
    """

    first: Measure | None
    second: Measure | None
    change: float | None
    verdict: str


def compare(first: Report, second: Report) -> list[Difference]:
    """Compares all measures that either report has, in the order of the first, then the second."""
    lines = [difference(one, second.find(*one.part)) for one in first.measures]
    extra = [one for one in second.measures if first.find(*one.part) is None]
    return lines + [difference(None, one) for one in extra]


def difference(first: Measure | None, second: Measure | None) -> Difference:
    """Compares two measures of the same thing."""
    if first is None or second is None or not first.median:
        return Difference(first, second, None, "")
    change = second.median / first.median - 1
    if first.quantity.better == NEITHER:
        # A share of a percentage or of a growth would say nothing.
        return Difference(first, second, change if first.key == "bandwidth" else None, "")
    return Difference(first, second, change, _verdict(first, second, change))


def _verdict(first: Measure, second: Measure, change: float) -> str:
    # Memory hardly varies: one look at it is as good as three.
    fewest = 1 if first.quantity.unit == "bytes" else _FEWEST
    if min(len(first.samples), len(second.samples)) < fewest:
        return "unclear" if abs(change) >= _LEAST_DIFFERENCE else "noise"
    apart = abs(second.median - first.median)
    a, b = _core(first), _core(second)
    overlap = max(a[0], b[0]) <= min(a[-1], b[-1])
    deviation = _MAD_SCALE * (_mad(first) ** 2 + _mad(second) ** 2) ** 0.5
    ranges = (a[-1] - a[0] + b[-1] - b[0]) / 2
    if abs(change) < _LEAST_DIFFERENCE or overlap or apart <= max(_DEVIATIONS * deviation, ranges):
        return "noise"
    if first.quantity.unit == "bytes":
        return MORE if change > 0 else LESS
    return FASTER if (change > 0) == (first.quantity.better == HIGHER) else SLOWER


def _mad(measure: Measure) -> float:
    middle = measure.median
    return median([abs(sample - middle) for sample in measure.samples])


def _core(measure: Measure) -> list[float]:
    """The samples in order; of five or more without the one that is farthest from the median."""
    samples = sorted(measure.samples)
    if len(samples) >= _ENOUGH:
        low, high = measure.median - samples[0], samples[-1] - measure.median
        samples = samples[:-1] if high > low else samples[1:]
    return samples
