"""The governor by simulation: recorded courses of a phone's sensors in, steps and sentences out."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.cli.messages_zh import MESSAGES
from qwen_edge.session import governor_rules
from qwen_edge.session.governor import Capacity, Governor, Readings, Steps
from qwen_edge.session.governor_rules import LADDERS, Cause, Measure
from tests.session import traces
from tests.session.traces import PHONE, Moment, Row

NORMAL = Steps(threads=2)
FEWER = Steps(threads=1)
LITTLE = Steps(threads=3, little=True)


def course(name: str, mode: str = "auto", capacity: Capacity = PHONE) -> list[Moment]:
    return list(traces.simulate(traces.read(name), mode, capacity))


def changes(moments: list[Moment]) -> list[Steps]:
    """The steps one after the other, without repetitions."""
    found: list[Steps] = []
    for moment in moments:
        if not found or found[-1] != moment.steps:
            found.append(moment.steps)
    return found


def told(moments: list[Moment]) -> list[str]:
    return [sentence for moment in moments for sentence in moment.told]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("heating", [NORMAL, FEWER, LITTLE, FEWER, NORMAL]),
        (
            "hot_case",
            [
                NORMAL,
                FEWER,
                LITTLE,
                LITTLE._replace(answers=0.5),
                LITTLE._replace(answers=0.5, paused=True),
                LITTLE._replace(answers=0.5),
                LITTLE,
                FEWER,
                NORMAL,
            ],
        ),
        (
            "in_the_sun",
            [
                NORMAL,
                FEWER,
                LITTLE,
                LITTLE._replace(answers=0.5),
                LITTLE._replace(answers=0.5, paused=True),
                LITTLE._replace(answers=0.5, paused=True, stop=Cause.HEAT),
            ],
        ),
        ("charging", [NORMAL, FEWER, NORMAL]),
        (
            "emptying",
            [
                NORMAL,
                FEWER,
                FEWER._replace(answers=0.5),
                FEWER._replace(answers=0.5, stop=Cause.BATTERY),
            ],
        ),
        (
            "memory_pressure",
            [
                NORMAL,
                NORMAL._replace(answers=0.5),
                NORMAL._replace(answers=0.25),
                NORMAL._replace(answers=0.5),
                NORMAL,
            ],
        ),
        (
            "memory_runs_out",
            [
                NORMAL,
                NORMAL._replace(answers=0.5),
                NORMAL._replace(answers=0.25),
                NORMAL._replace(answers=0.25, stop=Cause.MEMORY),
            ],
        ),
        ("busy_neighbour", [NORMAL]),
        ("deep_context", [NORMAL]),
        ("lying_sensor", [NORMAL]),
    ],
)
def test_steps_of_a_course(name: str, expected: list[Steps]) -> None:
    moments = course(name)
    assert changes(moments) == expected
    # Each step is told once, a stop by its error.
    steps = [step for step in expected[1:] if step.stop is None]
    assert len(told(moments)) == len(steps)


def test_sentences_of_a_hot_phone() -> None:
    assert told(course("hot_case")) == [
        "The phone is hot (44 °C): 1 of 2 threads from here on.",
        "The phone is hot (45 °C): only the little cores from here on.",
        "The phone is hot (46 °C): shorter answers (50%) from here on.",
        "The phone is hot (47 °C): a pause until it has cooled down.",
        "The pause is over: the answer goes on.",
        "Longer answers again.",
        "The big cores again: 1 of 2 threads.",
        "All is well again: everything as before.",
    ]


def test_throttling_shows_without_any_sensor() -> None:
    moments = course("throttling")
    first = next(moment for moment in moments if moment.steps != NORMAL)
    # The clock begins to fall at 300 s and is below 70 % from 340 s on.
    assert 350 < first.time < 380
    assert first.steps == FEWER
    # Each trial that fails makes the next one wait twice as long.
    turns = [
        (after.time, after.steps == NORMAL)
        for before, after in itertools.pairwise(moments)
        if before.steps != after.steps
    ]
    holds = [turns[i + 1][0] - time for i, (time, normal) in enumerate(turns) if not normal]
    assert holds == pytest.approx([120, 240, 480], abs=5)
    assert moments[-1].steps == NORMAL


def test_a_pause_that_does_not_cool_ends_with_a_stop() -> None:
    moments = course("no_cooling")
    pause = next(moment.time for moment in moments if moment.steps.paused)
    assert moments[-1].steps.stop is Cause.HEAT
    assert moments[-1].time - pause == pytest.approx(governor_rules.MOST_PAUSE, abs=3)


def test_a_sensor_that_is_lost_does_not_pause_for_ever() -> None:
    moments = course("vanishing_sensor")
    paused = [moment.time for moment in moments if moment.steps.paused]
    # It is lost at 400 s.
    assert 300 <= paused[0] < 400 < paused[-1] < 520
    assert moments[-1].steps == NORMAL


@pytest.mark.parametrize("name", ["heating", "charging", "memory_pressure", "throttling"])
def test_cool_acts_earlier(name: str) -> None:
    normal = Governor("cool", PHONE).steps
    assert normal == FEWER, "fewer threads from the start"

    def first(mode: str) -> float:
        moments = course(name, mode)
        return next(moment.time for moment in moments if moment.steps != moments[0].steps)

    assert first("cool") <= first("auto")
    assert first("cool") < first("auto") or name == "memory_pressure"


@pytest.mark.parametrize(
    ("capacity", "expected"),
    [
        # No little cores beside: one thread is the next best.
        (PHONE._replace(threads=8, little=0), [8, 4, 1]),
        # An engine that cannot be placed, and one thread that cannot be fewer.
        (PHONE._replace(placeable=False), [2]),
        (PHONE._replace(threads=1, little=0), [1]),
        (PHONE._replace(most_threads=2), [2, 1, 2]),
    ],
)
def test_only_what_can_be_done_is_done_and_told(capacity: Capacity, expected: list[int]) -> None:
    moments = course("heating", capacity=capacity)
    warming = [moment for moment in moments if moment.time <= 1500]
    assert [steps.threads for steps in changes(warming)] == expected
    assert len(told(warming)) == len(expected) - 1
    assert not [sentence for sentence in told(warming) if "little" in sentence] or capacity.little


def test_a_single_answer_is_not_promised_to_be_shorter() -> None:
    moments = course("memory_pressure", capacity=PHONE._replace(turns=False))
    assert changes(moments) == [NORMAL]
    assert told(moments) == []


def test_the_memory_cap_is_approached() -> None:
    governor = Governor("auto", PHONE._replace(budget=500_000_000))
    room = 500_000_000 - traces.WEIGHTS
    for time, used, share in [(0, 0.5, 1), (2, 0.9, 1), (4, 0.9, 0.5), (6, 0.5, 0.5), (66, 0.5, 1)]:
        governor.observe(Readings(time=time, anonymous=int(used * room)))
        assert governor.steps.answers == share


def test_other_machines_may_slow_down_without_heat() -> None:
    assert changes(course("throttling", capacity=PHONE._replace(phone=False))) == [NORMAL]


def hot(time: float, temperature: float | None) -> Readings:
    return Readings(time=time, temperature=temperature)


def test_time_without_work_counts_as_rest() -> None:
    governor = Governor("auto", PHONE)
    for time in range(0, 150, 30):
        governor.observe(hot(time, 47.5))
    assert governor.steps.paused
    # The user reads and thinks for five minutes; then the phone is cool.
    assert [str(reason) for reason in governor.observe(hot(420, 38.0))] == [
        "The pause is over: the answer goes on."
    ]
    assert governor.steps == NORMAL


def test_a_reading_counts_once() -> None:
    governor = Governor("auto", PHONE)
    for time in range(0, 600, 2):
        governor.observe(Readings(time=time, temperature=60.0, battery_time=0.0))
    assert governor.steps == NORMAL


READING = st.one_of(st.none(), st.floats(30, 55))
COURSES = st.lists(st.tuples(READING, st.integers(1, 40)), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(COURSES, st.sampled_from(["auto", "cool"]))
def test_heat_moves_one_rule_a_dwell_time_and_always_comes_back(
    course: list[tuple[float | None, int]], mode: str
) -> None:
    governor = Governor(mode, PHONE)
    ladder = next(each for each in LADDERS[mode] if each.cause is Cause.HEAT)
    now, last, level = 0.0, -math.inf, 0
    order = [rule.measure for rule in ladder.rules]

    def height(steps: Steps) -> int:
        return max(
            [0]
            + [
                order.index(measure) + 1
                for measure, holds in (
                    (Measure.FEWER_THREADS, steps.threads == 1 and mode == "auto"),
                    (Measure.LITTLE_CORES, steps.little),
                    (Measure.SHORTER_ANSWERS, steps.answers < 1),
                    (Measure.PAUSE, steps.paused),
                    (Measure.STOP, steps.stop is not None),
                )
                if holds
            ]
        )

    for value, count in course:
        for _ in range(count):
            told = governor.observe(hot(now, value))
            found = height(governor.steps)
            if governor.steps.stop is not None:
                return
            assert abs(found - level) <= 1
            assert len(told) == abs(found - level)
            if found != level:
                dwell = ladder.rise if found > level else ladder.fall
                assert now - last >= dwell
                last, level = now, found
            now += 10
    for _ in range(60):
        governor.observe(hot(now, 30.0))
        now += 10
    assert governor.steps == governor.normal


ROWS = st.lists(
    st.builds(
        Row,
        time=st.just(0.0),
        temperature=READING,
        level=st.one_of(st.none(), st.floats(1, 100)),
        plugged=st.sampled_from([None, True, False]),
        available=st.one_of(st.none(), st.integers(0, 10**9)),
        seconds=st.one_of(st.none(), st.floats(0.02, 0.4)),
        depth=st.integers(0, 4096),
        cores=st.floats(0.1, 8),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from(["auto", "cool"]))
def test_any_course_ends_normal_once_all_is_well(rows: list[Row], mode: str) -> None:
    good = Row(0.0, 30.0, 90.0, True, 10**9, None, 800, 2.0)
    rows = [*rows, *[good] * 300]
    moments = list(
        traces.simulate([row._replace(time=30.0 * i) for i, row in enumerate(rows)], mode)
    )
    if moments[-1].steps.stop is None:
        assert moments[-1].steps == Governor(mode, PHONE).normal
    # Nothing is told that does not change.
    for before, after in itertools.pairwise(moments):
        assert not after.told or after.steps != before.steps


def test_rules_are_in_order() -> None:
    for ladders in LADDERS.values():
        for ladder in ladders:
            sign = 1 if ladder.rules[0].at >= ladder.rules[0].until else -1
            values = [(sign * rule.at, sign * rule.until) for rule in ladder.rules]
            assert values == sorted(values)
            assert all(at > until for at, until in values)


def test_every_sentence_can_be_told_in_both_languages() -> None:
    sentences = {
        *governor_rules.SENTENCES.values(),
        *governor_rules.EASED.values(),
        governor_rules.RECOVERED,
        *(text for pair in governor_rules.STOPS.values() for text in pair),
        *governor_rules.PAUSED_IN_VAIN,
    }
    assert sentences - MESSAGES.keys() == set()
    for ladders in LADDERS.values():
        for ladder in ladders:
            for rule in ladder.rules:
                if rule.measure is Measure.STOP:
                    assert ladder.cause in governor_rules.STOPS
                else:
                    assert (ladder.cause, rule.measure) in governor_rules.SENTENCES
