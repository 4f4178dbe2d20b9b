"""Which threads and cores win on scripted phones, and how long it takes to find out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import pytest

from qwen_edge.engine.interface import EngineConfig, Logits, PlaceableEngine, Row
from qwen_edge.session.calibrate import (
    ALL,
    BIG,
    BUDGET,
    LITTLE,
    Calibration,
    Candidate,
    Outcome,
    choose,
    decode_candidates,
    race,
)
from qwen_edge.session.profile import DeviceProfile, read_profile
from qwen_edge.session.select import Calibrated
from tests.host.recorded import recorded
from tests.session.facts import GIB

# Threads, cores that were named (none: wherever), rows of the call -> tokens a second.
Speed = Callable[[int, Collection[int], int], float]


class Phone:
    """A ``PlaceableEngine`` and a clock that goes on as it computes."""

    def __init__(self, cores: int, speed: Speed, context: int = 512) -> None:
        self.config = EngineConfig(context=context, threads=cores, prefill_threads=cores)
        self.vocab_size = 256
        self.now = 0.0
        self.calls = 0
        self._speed, self._cores = speed, cores
        self._ids: list[int] = []
        self._placed: tuple[int, int, Collection[int]] = (cores, cores, ())

    def place(
        self,
        threads: int,
        prefill_threads: int,
        cores: Collection[int] = (),
        prefill_cores: Collection[int] = (),
    ) -> None:
        assert 1 <= threads <= self._cores
        assert 1 <= prefill_threads <= self._cores
        assert set(cores) <= set(range(self._cores))
        self._placed = threads, prefill_threads, cores

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        assert [row.position for row in rows] == list(
            range(len(self._ids), len(self._ids) + len(rows))
        )
        assert len(self._ids) + len(rows) <= self.config.context
        threads, prefill_threads, cores = self._placed
        used = prefill_threads if len(rows) > 1 else threads
        self.now += len(rows) / self._speed(used, cores, len(rows))
        self.calls += 1
        self._ids += [row.token for row in rows]
        return []

    def cached_ids(self, sequence: int = 0) -> Sequence[int]:
        return self._ids

    def truncate(self, length: int, sequence: int = 0) -> None:
        del self._ids[length:]

    def fork(self, source: int, target: int, length: int) -> None:
        raise NotImplementedError

    def scratch_bytes(self) -> int:
        return 0

    def close(self) -> None:
        pass


def profile_of(name: str) -> DeviceProfile:
    return replace(read_profile(recorded(name).place), total_ram=4 * GIB, available_ram=3 * GIB)


def calibrated(phone: Phone, profile: DeviceProfile) -> Outcome:
    assert isinstance(phone, PlaceableEngine)
    return Calibration(
        phone, profile, lambda: BUDGET - phone.now, lambda: None, lambda: phone.now
    ).run()


def g85(threads: int, cores: Collection[int], rows: int) -> float:
    """Two fast cores, 6 and 7, that fill the memory's bandwidth; little ones slow them down."""
    big = 2 if not cores else sum(core >= 6 for core in cores)
    fast = min(threads, big)
    slow = threads - fast
    if rows > 1:
        return 14.0 * fast + 6.0 * slow
    return min(14.0, 9.0 * fast + (3.0 * slow if not fast else 0.0)) - (0.8 * slow if fast else 0)


def test_candidates_are_the_clusters_and_all() -> None:
    phone = decode_candidates(profile_of("redmi_note_9"))
    assert phone[:3] == [
        Candidate(BIG, 2, (6, 7)),
        Candidate(ALL, 8),
        Candidate(LITTLE, 6, (0, 1, 2, 3, 4, 5)),
    ]
    assert {(c.kind, c.threads) for c in phone} == {
        *((BIG, n) for n in range(1, 3)),
        *((LITTLE, n) for n in range(1, 7)),
        *((ALL, n) for n in range(3, 9)),
    }
    pi = decode_candidates(profile_of("raspberry_pi_4"))
    assert pi == [Candidate(ALL, n) for n in (4, 3, 2, 1)]


def test_a_phone_gets_its_big_cores_in_time() -> None:
    phone = Phone(8, g85)
    outcome = calibrated(phone, profile_of("redmi_note_9"))
    assert outcome.chosen == Calibrated(2, 8, (6, 7))
    assert outcome.complete
    assert phone.now < 30
    # What won was measured again and again.
    assert len(outcome.decode[outcome.decode_choice]) >= 3
    tried = {candidate: len(samples) for candidate, samples in outcome.decode.items()}
    assert min(tried.values()) == 1, "what is far behind is not tried again"


@pytest.mark.parametrize("factor", [1e-3, 0.01, 0.1, 1.0, 30.0, 3000.0])
def test_the_time_is_kept_whatever_the_speed(factor: float) -> None:
    phone = Phone(8, lambda threads, cores, rows: factor * g85(threads, cores, rows))
    outcome = calibrated(phone, profile_of("redmi_note_9"))
    step = 1 / (factor * 3.0)
    # A call that has begun is waited for: a step to warm up, one sample, two rows of a prompt.
    assert phone.now < max(30.0, 5 * step)
    if factor >= 0.1:
        assert outcome.chosen.threads == 2
    assert outcome.complete or factor < 1


def test_more_threads_have_to_be_clearly_faster() -> None:
    def rates(*speeds: float) -> dict[Candidate, list[float]]:
        return {Candidate(ALL, n + 1): [speed] for n, speed in enumerate(speeds)}

    assert choose(rates(10, 19, 19.5, 19.4)).threads == 2
    assert choose(rates(10, 19, 19.8, 19.4)).threads == 3
    assert choose(rates(10, 9)).threads == 1
    # Step by step too little is enough in the end.
    assert choose(rates(10, 10.2, 10.4, 10.6)).threads == 3
    # The median of the samples counts.
    assert choose({Candidate(ALL, 1): [10, 30, 10], Candidate(ALL, 2): [12, 12, 1]}).threads == 2
    both = {Candidate(BIG, 2, (6, 7)): [10.0], Candidate(LITTLE, 2, (0, 1)): [9.9]}
    assert choose(both).kind == LITTLE


def test_turns_are_taken_and_the_hopeless_dropped() -> None:
    speeds = {Candidate(ALL, n): s for n, s in ((4, 10.0), (3, 9.5), (2, 5.0), (1, 2.5))}
    order: list[int] = []
    clock = [0.0]

    def sample(candidate: Candidate) -> float:
        order.append(candidate.threads)
        clock[0] += 1
        return speeds[candidate]

    rates, complete = race(list(speeds), sample, lambda: 9 - clock[0])
    assert order[:5] == [4, 3, 2, 4, 3], "one is left out: two were far behind already"
    assert set(order[3:]) == {3, 4}
    assert len(order) == 9
    assert complete
    assert Candidate(ALL, 1) not in rates


def test_without_time_the_first_is_measured_only() -> None:
    candidates = [Candidate(ALL, n) for n in (4, 3, 2, 1)]
    clock = [5.0]

    def sample(candidate: Candidate) -> float:
        clock[0] -= 9
        return 1.0

    rates, complete = race(candidates, sample, lambda: clock[0])
    assert list(rates) == candidates[:1]
    assert not complete


def test_an_interrupt_ends_it() -> None:
    phone = Phone(8, g85)

    def poll() -> None:
        if phone.calls == 20:
            raise KeyboardInterrupt

    profile = profile_of("redmi_note_9")
    calibration = Calibration(phone, profile, lambda: 20.0, poll, lambda: phone.now)
    with pytest.raises(KeyboardInterrupt):
        calibration.run()
    assert phone.calls == 20


def test_a_short_context_is_enough() -> None:
    phone = Phone(4, lambda threads, cores, rows: 5000.0 * threads, context=32)
    assert calibrated(phone, profile_of("raspberry_pi_4")).chosen == Calibrated(4, 4, ())
