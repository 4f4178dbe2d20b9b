"""Finds the threads and cores that are best for a model on this device, by trying them.

The time is limited, whatever the device: every candidate is tried once before any is tried again,
all take turns, so that a device that heats up does so under all of them, and what is far behind is
not tried again. More threads have to be clearly faster than fewer, since they take more power.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from qwen_edge.engine.interface import PlaceableEngine, Row
from qwen_edge.session.profile import DeviceProfile
from qwen_edge.session.select import Calibrated

# Seconds for everything, loading included; half a minute is promised.
BUDGET = 27.0
# What is faster by less than this is not clearly faster.
CLEARLY = 1.03
# Decoding has this share of the time, since answers take longer than prompts.
_DECODE_SHARE = 0.6
_ROUNDS = 7
# Shares of the fastest that a candidate has to reach after each round to be tried again.
_HOPEFUL = (0.8, 0.9, 0.95)
# Fewer threads are not tried in the first round where fewer were this far behind, and falling.
_HOPELESS = 0.6
# Seconds of a sample, and for the processor's clock to rise at first.
_SHORTEST, _LONGEST, _WARM_UP = 0.1, 0.5, 0.3
_LEAST_STEPS = 2
# Seconds of a step so slow that one has to do.
_SLOW = 1.0
_FEWEST_ROWS, _FEWEST_IN_NEED = 16, 2
# So many prompts there should be time for.
_LEAST_PROMPTS = 3
# Token ids that every model has.
_IDS = 199

BIG, LITTLE, ALL = "big", "little", "all"


class Candidate(NamedTuple):
    """Threads on cores.

    Attributes:
        kind: which cores: ``big``, ``little`` or ``all``.
        threads: how many.
        cpus: the cores' numbers; empty: wherever the system puts the threads.
    """

    kind: str
    threads: int
    cpus: tuple[int, ...] = ()


Rates = Mapping[Candidate, Sequence[float]]


@dataclass(frozen=True)
class Outcome:
    """What was found: tokens a second by candidate, and the choice.

    Attributes:
        decode: samples of decoding.
        prefill: samples of reading a prompt, the first threads on the chosen cores.
        decode_choice, prefill_choice: the winners.
        complete: whether the time was enough to try all.
    """

    decode: Rates
    prefill: Rates
    decode_choice: Candidate
    prefill_choice: Candidate
    complete: bool

    @property
    def chosen(self) -> Calibrated:
        """As the plan takes it."""
        decode = self.decode_choice
        return Calibrated(decode.threads, self.prefill_choice.threads, decode.cpus)


def decode_candidates(profile: DeviceProfile) -> list[Candidate]:
    """Every number of threads on the big cores and on the little ones, and all from there on.

    All of a kind first, then one less of each, and so on: what is most likely comes early.
    """
    if not profile.little:
        return _descending([Candidate(ALL, n + 1) for n in range(max(1, profile.cores))])
    big, little = len(profile.big), len(profile.little)
    return _descending(
        [
            *(Candidate(BIG, n + 1, profile.big) for n in range(big)),
            *(Candidate(ALL, n + 1) for n in range(big, big + little)),
            *(Candidate(LITTLE, n + 1, profile.little) for n in range(little)),
        ]
    )


def _descending(candidates: Sequence[Candidate]) -> list[Candidate]:
    most = {kind: max(c.threads for c in candidates if c.kind == kind) for kind, *_ in candidates}
    return sorted(candidates, key=lambda c: most[c.kind] - c.threads)


def choose(rates: Rates) -> Candidate:
    """The fewest threads that nothing is clearly faster than, on little cores rather than big ones.

    Args:
        rates: at least one candidate with at least one sample.
    """
    speeds = {candidate: median(samples) for candidate, samples in rates.items()}
    best = max(speeds.values())
    good = [candidate for candidate, speed in speeds.items() if speed * CLEARLY >= best]
    return min(good, key=lambda c: (c.threads, (LITTLE, BIG, ALL).index(c.kind)))


def race(
    candidates: Sequence[Candidate],
    sample: Callable[[Candidate], float],
    left: Callable[[], float],
) -> tuple[Rates, bool]:
    """Lets candidates take turns as long as there is time, and fewer of them each time.

    Args:
        candidates: in the order of the turns.
        sample: measures one, in tokens a second.
        left: seconds.

    Returns:
        The samples, and whether every candidate got a chance.
    """
    rates: dict[Candidate, list[float]] = {}
    costs: dict[Candidate, float] = {}
    running, complete = list(candidates), True
    for turn in range(_ROUNDS):
        for candidate in running:
            if turn == 0 and _is_hopeless(candidate, rates):
                continue
            # What was not tried yet may take as long as the longest so far.
            if rates and left() < costs.get(candidate, max(costs.values())):
                complete = complete and candidate in rates
                continue
            before = left()
            rates.setdefault(candidate, []).append(sample(candidate))
            costs[candidate] = before - left()
        limit = _HOPEFUL[min(turn, len(_HOPEFUL) - 1)] * max(map(median, rates.values()))
        running = [c for c in running if c in rates and median(rates[c]) >= limit]
        if len(running) == 1 or left() < min(costs[c] for c in running):
            break
    return rates, complete


def _is_hopeless(candidate: Candidate, rates: Rates) -> bool:
    """Whether with a few threads more it was far behind, and with still more less so."""
    known = sorted(
        (other.threads, median(samples))
        for other, samples in rates.items()
        if other.kind == candidate.kind and other.threads > candidate.threads
    )
    if len(known) < 2:
        return False
    (_, nearest), (_, farther) = known[:2]
    return nearest < farther and nearest < _HOPELESS * max(map(median, rates.values()))


@dataclass
class Calibration:
    """The measuring itself.

    Args:
        engine: may have as many threads as there are cores; its first sequence is this object's.
        profile: the device.
        left: seconds that remain for everything.
        poll: called between samples and steps; may raise.
        clock: tells seconds.
    """

    engine: PlaceableEngine
    profile: DeviceProfile
    left: Callable[[], float]
    poll: Callable[[], None]
    clock: Callable[[], float] = time.monotonic
    _seconds: float = field(default=_SHORTEST, init=False)
    _rows: int = field(default=_FEWEST_ROWS, init=False)

    def run(self) -> Outcome:
        """Measures decoding, then prompts with what won."""
        candidates = decode_candidates(self.profile)
        room = self.left() * _DECODE_SHARE
        end = self.left() - room
        self._warm_up(candidates[0])
        # Twice over for each at least, on a device that is not too slow for that.
        share = (self.left() - end) / (3 * len(candidates))
        self._seconds = min(max(share, _SHORTEST), _LONGEST)
        decode, tried = race(candidates, self._decode, lambda: self.left() - end)
        chosen = choose(decode)
        self._choose_rows(median(decode[chosen]))
        most = max(1, self.profile.cores)
        prompts = [Candidate(ALL, most - n, chosen.cpus) for n in range(most)]

        def sample(candidate: Candidate) -> float:
            return self._prefill(chosen, candidate.threads)

        prefill, tried_prompts = race(prompts, sample, self.left)
        return Outcome(decode, prefill, chosen, choose(prefill), tried and tried_prompts)

    def _warm_up(self, candidate: Candidate) -> None:
        """The first steps read the weights from the disk, and find slow clocks."""
        self.engine.place(candidate.threads, candidate.threads, candidate.cpus)
        self._steps(_WARM_UP, 1)

    def _decode(self, candidate: Candidate) -> float:
        self.engine.place(candidate.threads, candidate.threads, candidate.cpus)
        # The first step has the threads move; where it takes long, that does not count.
        first = self._steps(0.0, 1)
        return self._steps(self._seconds, _LEAST_STEPS) if first * _SLOW > 1 else first

    def _steps(self, seconds: float, least: int) -> float:
        """Decodes for a time; returns tokens a second."""
        self.engine.truncate(0)
        begin, count = self.clock(), 0
        while True:
            self.engine.forward([Row(0, count, count % _IDS, True)])
            count += 1
            self.poll()
            passed = self.clock() - begin
            if (passed >= seconds and count >= least) or count >= self.engine.config.context:
                return count / max(passed, 1e-9)

    def _choose_rows(self, rate: float) -> None:
        """Prompts that take no longer than a few samples even where a row costs a step."""
        most = min(self.engine.config.prefill_rows, self.engine.config.context)
        rows = min(max(int(rate * 2 * self._seconds), _FEWEST_ROWS), most)
        affordable = int(rate * self.left() / _LEAST_PROMPTS)
        self._rows = min(rows, max(affordable, _FEWEST_IN_NEED))

    def _prefill(self, decode: Candidate, threads: int) -> float:
        self.engine.place(decode.threads, threads, decode.cpus)
        rows = [Row(0, i, i % _IDS, i + 1 == self._rows) for i in range(self._rows)]
        begin, count = self.clock(), 0
        while True:
            self.engine.truncate(0)
            self.engine.forward(rows)
            count += 1
            self.poll()
            passed = self.clock() - begin
            if passed >= self._seconds:
                return count * self._rows / passed
