"""Whether calls take longer than they did: how a phone shows that it slows its processor down."""

from __future__ import annotations

from typing import NamedTuple

# Seconds of a window, and the fewest calls that make a median.
WINDOW = 4.0
_FEWEST = 5
# Seconds for which a window is remembered.
_MEMORY = 1800.0
# A byte of the cache counts as this many of the weights, which are read in longer runs. Too much
# of it hides a little of what a long text costs, too little would take its cost for heat.
_CACHE_WEIGHT = 1.5
# Windows are compared where the work of a call was at least this share of the other's.
_COMPARABLE = 0.7


class _Window(NamedTuple):
    """What a call cost: seconds, and seconds of processor time, each for a byte read."""

    time: float
    work: float
    seconds: float
    processor: float


class Pace:
    """Compares the duration of decode calls with the best there was, at comparable work.

    Calls count by the bytes that they read, since that is what decides their duration. A call is
    slowed as far as its duration and its processor time both grew: who waits for other programs
    takes longer but computes no more.

    Args:
        weights: bytes of the weights, read in each call.
        position: bytes of keys and values of one position.
    """

    def __init__(self, weights: int, position: int) -> None:
        self._weights = weights
        self._position = position
        self._durations: list[float] = []
        self._start: tuple[float, float] | None = None
        self._windows: dict[object, list[_Window]] = {}

    def call(self, seconds: float) -> None:
        """Takes note of a call of one row."""
        self._durations.append(seconds)

    def interrupt(self) -> None:
        """Something else than decode calls went on: the present window does not count."""
        self._durations.clear()
        self._start = None

    def look(self, now: float, processor: float, depth: int, placement: object) -> float | None:
        """Closes the present window if it is long enough.

        Args:
            now: seconds on a clock.
            processor: processor time of the process so far, in seconds.
            depth: positions in the cache.
            placement: of the threads; others have another pace.

        Returns:
            How many times as long a call takes as it did at best; None where that is not known.
        """
        if self._start is None or not self._durations:
            self._durations.clear()
            self._start = (now, processor)
        windows = self._windows.setdefault(placement, [])
        began, before = self._start
        if now - began >= WINDOW and len(self._durations) >= _FEWEST:
            work = self._weights + _CACHE_WEIGHT * self._position * depth
            seconds = _median(self._durations) / work
            # The mean, since the processor time is that of all calls; the median bears a hiccup.
            mean = sum(self._durations) / len(self._durations) / work
            cores = (processor - before) / (now - began)
            windows[:] = [each for each in windows if now - each.time <= _MEMORY]
            windows.append(_Window(now, work, seconds, mean * cores))
            self._durations.clear()
            self._start = (now, processor)
        fresh = bool(windows) and now - windows[-1].time <= 2 * WINDOW
        return _slowdown(windows) if fresh else None


def _median(values: list[float]) -> float:
    # The statistics module takes 10 ms to import.
    return sorted(values)[len(values) // 2]


def _slowdown(windows: list[_Window]) -> float | None:
    if len(windows) < 2:
        return None
    last = windows[-1]
    others = [
        each
        for each in windows
        if min(each.work, last.work) >= _COMPARABLE * max(each.work, last.work)
    ]
    seconds = min(each.seconds for each in others)
    processor = min(each.processor for each in others)
    if seconds <= 0 or processor <= 0:
        return None
    return min(last.seconds / seconds, last.processor / processor)
