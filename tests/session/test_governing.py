"""The governor at work: threads placed, answers shortened, the next token made to wait."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from qwen_edge.engine.interface import PlaceableEngine
from qwen_edge.engine.speculation import CallCosts
from qwen_edge.errors import DeviceLimitError, MemoryLimitError
from qwen_edge.host.place import Place
from qwen_edge.session import article_fallback, pace
from qwen_edge.session.answer import Answer, AnswerOptions, Done
from qwen_edge.session.article_fallback import shortened, strained
from qwen_edge.session.governor import Readings
from qwen_edge.session.loaded import LoadedModel
from qwen_edge.session.pace import Pace
from qwen_edge.session.plan import Plan, make_plan
from qwen_edge.session.reason import Reason
from qwen_edge.session.regulator import Regulator
from qwen_edge.session.senses import Senses
from tests.host.recorded import recorded
from tests.session.scripted import ScriptedEngine, ScriptedModel, byte_tokenizer, options

BIG, SMALL = (6, 7), (0, 1, 2, 3, 4, 5)


class Placed(ScriptedEngine):
    """An engine that notes where it is placed."""

    def __init__(self) -> None:
        super().__init__(byte_tokenizer())
        self.places: list[tuple[int, int, tuple[int, ...], tuple[int, ...]]] = []

    def place(
        self,
        threads: int,
        prefill_threads: int,
        cores: Collection[int] = (),
        prefill_cores: Collection[int] = (),
    ) -> None:
        self.places.append((threads, prefill_threads, tuple(cores), tuple(prefill_cores)))


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Plan]:
    with phone_plan(tmp_path) as plan:
        yield plan


class phone_plan:
    """A plan for the demo model on a Redmi Note 9."""

    def __init__(self, home: Path, **flags: object) -> None:
        environ = {"QWEN_EDGE_HOME": str(home), "HOME": str(home)}
        place = recorded("redmi_note_9").place
        self._plan = make_plan({"model": "demo", **flags}, environ, place=place)

    def __enter__(self) -> Plan:
        return self._plan

    def __exit__(self, *exception: object) -> None:
        self._plan.model.close()


class Bench:
    """A regulator with an engine that notes its placement, fed with readings."""

    def __init__(self, plan: Plan, *, placeable: bool = True) -> None:
        self.placed = Placed()
        self.engine = self.placed if placeable else ScriptedEngine(byte_tokenizer())
        self.told: list[str] = []
        self.regulator = Regulator(
            plan,
            self.engine,
            Senses(self.engine, CallCosts(), plan.facts, 8),
            lambda reason: self.told.append(str(reason)),
            turns=True,
        )
        self._now = 0.0

    def feel(self, seconds: float, **readings: float | bool | None) -> None:
        """Lets readings last."""
        for _ in range(int(seconds / 30)):
            self.regulator.take(Readings(time=self._now, **readings))  # type: ignore[arg-type]
            self._now += 30


def test_threads_move_to_where_it_is_cooler_and_back(phone: Plan) -> None:
    bench = Bench(phone)
    assert isinstance(bench.engine, PlaceableEngine)
    assert bench.placed.places == []
    bench.feel(60, temperature=43.5)
    assert bench.placed.places == [(1, 4, BIG, ())]
    bench.feel(60, temperature=45.0)
    assert bench.placed.places[1:] == [(3, 3, SMALL, SMALL)]
    bench.feel(400, temperature=35.0)
    assert bench.placed.places[2:] == [(1, 4, BIG, ()), (2, 8, BIG, ())]
    assert len(bench.told) == 4


def test_only_allowed_cores_are_used(tmp_path: Path) -> None:
    with phone_plan(tmp_path, cpus="4-7") as plan:
        bench = Bench(plan)
        bench.feel(120, temperature=45.0)
        assert bench.placed.places[-1] == (1, 1, (4, 5), (4, 5))


def test_cool_begins_with_fewer_threads(tmp_path: Path) -> None:
    with phone_plan(tmp_path, governor="cool") as plan:
        assert Bench(plan).placed.places == [(1, 4, BIG, ())]


def test_an_engine_that_cannot_be_placed_still_pauses_and_stops(phone: Plan) -> None:
    bench = Bench(phone, placeable=False)
    bench.feel(150, temperature=47.5)
    assert bench.regulator.wait > 0
    assert bench.told == [
        "The phone is hot (48 °C): shorter answers (50%) from here on.",
        "The phone is hot (48 °C): a pause until it has cooled down.",
    ]
    with pytest.raises(DeviceLimitError, match="too hot to go on: 52 °C") as stop:
        bench.feel(90, temperature=52.0)
    assert stop.value.exit_code == 7


def test_short_memory_stops_as_a_memory_error(phone: Plan) -> None:
    bench = Bench(phone)
    with pytest.raises(MemoryLimitError, match="are left") as stop:
        bench.feel(200, available=300_000_000, file=280_000_000)
    assert stop.value.exit_code == 4
    assert len(bench.told) == 2


def test_an_empty_battery_stops(phone: Plan) -> None:
    bench = Bench(phone)
    with pytest.raises(DeviceLimitError, match="too empty to go on: 2 %"):
        bench.feel(300, level=1.5, plugged=False)


def test_shorter_answers(phone: Plan) -> None:
    bench = Bench(phone)
    bench.feel(60, level=4, plugged=False)
    bench.feel(60, level=4, plugged=False)
    assert bench.regulator.steps.answers == 0.5
    for wanted, left in [(1000, 500), (100, 64), (20, 20)]:
        assert bench.regulator.options(AnswerOptions(max_tokens=wanted)).max_tokens == left


def test_an_answer_waits_as_long_as_it_is_told() -> None:
    waits = [0.0, 0.02, 0.02, 0.0]
    polled: list[float] = []

    def poll() -> float:
        polled.append(time.monotonic())
        return waits.pop(0) if waits else 0.0

    model = ScriptedModel()
    model.will_say("Hello")
    answer = Answer(ScriptedModelWith(model, poll).chat, model.tokenizer.encode("Hi"), options())
    *_, done = answer
    assert isinstance(done, Done)
    assert answer.text == "Hello"
    assert 0.04 <= done.stats.paused_seconds <= polled[-1] - polled[0]
    assert polled[2] - polled[1] >= 0.02
    # The speed is that of the work.
    stats = done.stats
    assert stats.decode_seconds <= polled[-1] - polled[0] - stats.paused_seconds + 0.001


class ScriptedModelWith:
    """A scripted model with another poll."""

    def __init__(self, model: ScriptedModel, poll: object) -> None:
        from dataclasses import replace

        self.chat = replace(model.chat, poll=poll)  # type: ignore[arg-type]


def test_a_wait_can_be_broken_off() -> None:
    calls = 0

    def poll() -> float:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return 0.01

    model = ScriptedModel()
    model.will_say("Hello")
    answer = Answer(ScriptedModelWith(model, poll).chat, model.tokenizer.encode("Hi"), options())
    with pytest.raises(KeyboardInterrupt):
        list(answer)
    assert answer.stats.finish_reason == "interrupted"
    assert answer.stats.paused_seconds >= 0.02


def test_a_stop_is_told_of_the_answer() -> None:
    def poll() -> float:
        raise DeviceLimitError("Too hot.")

    model = ScriptedModel()
    model.will_say("Hello")
    answer = Answer(ScriptedModelWith(model, poll).chat, model.tokenizer.encode("Hi"), options())
    with pytest.raises(DeviceLimitError):
        list(answer)
    assert answer.stats.finish_reason == "device"


def loaded(tell: object, **flags: object) -> LoadedModel:
    plan = make_plan({"model": "demo", **flags}, {"QWEN_EDGE_HOME": "/nonexistent"})
    return LoadedModel(plan, tell=tell, turns=True)  # type: ignore[arg-type]


def test_there_is_none_where_it_is_off_or_nobody_listens() -> None:
    with loaded(None) as model:
        assert model.governing is None
        assert model.chat.poll() is None
    with loaded(print, governor="off", fallback="article") as model:
        assert model.governing is None
    with loaded(print) as model:
        assert model.governing is not None
        assert model.chat.poll() == 0


def test_it_acts_on_a_real_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Reason] = []
    monkeypatch.setattr("qwen_edge.session.governing.INTERVAL", 0.0001)
    readings = iter(
        [Readings(time=30.0 * i, temperature=45.0 if i < 4 else 30.0) for i in range(100)]
    )
    monkeypatch.setattr(Senses, "read", lambda self, placement=None: next(readings))
    with loaded(told.append, threads=2, **{"max-tokens": 60}, temperature=0) as model:
        ids = model.tokenizer.encode("Hello")
        plain = Answer(model.chat, ids, model.answer_options(thinking=False))
        list(plain)
        assert model.governing is not None
        assert [str(step.reason) for step in model.governing.steps] == list(map(str, told))
    assert str(told[0]) == "The phone is hot (45 °C): 1 of 2 threads from here on."
    with loaded(None, threads=2, **{"max-tokens": 60}, temperature=0) as model:
        other = Answer(model.chat, ids, model.answer_options(thinking=False))
        list(other)
    assert plain.ids == other.ids, "where threads run changes nothing of an answer"


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (Readings(0), None),
        (Readings(0, cpu=0.85, total=1000, available=200), None),
        (Readings(0, cpu=0.86), "The processor is at 86%: greedy answers of at most 128 tokens."),
        (
            Readings(0, cpu=0.1, total=1000, available=190),
            "The memory is at 81%: greedy answers of at most 128 tokens.",
        ),
    ],
)
def test_the_rule_of_the_articles(readings: Readings, expected: str | None) -> None:
    reason = strained(readings)
    assert (None if reason is None else str(reason)) == expected


def test_answers_of_the_articles_rule() -> None:
    long = AnswerOptions(max_tokens=500)
    assert shortened(long).max_tokens == 128
    assert shortened(long).sampling.temperature == 0
    assert shortened(AnswerOptions(max_tokens=20)).max_tokens == 20


def test_the_articles_rule_replaces_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with loaded(lambda reason: told.append(str(reason)), fallback="article") as model:
        wanted = AnswerOptions(max_tokens=500)
        monkeypatch.setattr(article_fallback, "MOST_MEMORY", 0.0)
        for _ in range(2):
            assert model.governed(wanted).max_tokens == 128
        assert len(told) == 1
        assert told[0].startswith("The memory is at ")
        monkeypatch.setattr(article_fallback, "MOST_MEMORY", 1.0)
        for _ in range(2):
            assert model.governed(wanted) == wanted
        assert told[1:] == ["Processor and memory have room again: answers as before."]


def test_governing_costs_next_to_nothing_between_looks(phone: Plan) -> None:
    """Short answers import neither sensors nor rules."""
    import subprocess
    import sys

    from tests.cli.program import ROOT, environment

    code = (
        "import sys\n"
        "from qwen_edge.cli.app import run_program\n"
        "code = run_program(['run', '-m', 'demo', '--no-think', '-n', '5', 'Hello!'])\n"
        "print([name for name in sys.modules if 'governor' in name or 'battery' in name])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(ROOT / "nowhere"),
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_slower_call_is_seen_only_with_as_much_more_work() -> None:
    def course(seconds: float, cores: float, depth: int) -> float | None:
        keeper, now, processor, found = Pace(1000, 1), 0.0, 0.0, None
        for wall, busy, place in [(0.1, 2.0, 0)] * 7 + [(seconds, cores, depth)] * 6:
            for _ in range(int(2 / wall)):
                keeper.call(wall)
            processor += 2 * busy
            now += 2
            found = keeper.look(now, processor, place, "here")
        return found

    assert course(0.1, 2.0, 0) == pytest.approx(1.0, abs=0.05)
    assert course(0.2, 2.0, 0) == pytest.approx(2.0, abs=0.1)
    # Half of the processor is taken by others.
    assert course(0.2, 1.0, 0) == pytest.approx(1.0, abs=0.1)
    # A longer text, in which a call reads a third more.
    assert course(0.133, 2.0, 222) == pytest.approx(1.0, abs=0.1)


def work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_senses_of_this_machine(phone: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "WINDOW", 0.0)
    costs, cores = CallCosts(), [0, 1]
    place = Place(allowed_cores=lambda: cores, environ={})
    senses = Senses(ScriptedEngine(byte_tokenizer()), costs, phone.facts, 1, place)

    def calls(seconds: float) -> None:
        for _ in range(10):
            costs.measured(1, seconds)
            costs.measured(3, 100.0)
            senses.see_call()
            senses.see_call()
        work(0.02)

    assert senses.read("big").cpu is None
    for _ in range(40):
        calls(0.1)
        found = senses.read("big")
    assert found.total
    assert found.available
    assert found.anonymous
    assert found.file
    assert 0 < found.available <= found.total
    assert found.left == max(0, found.available - found.file)
    assert found.cpu is not None
    assert 0 < found.cpu < 1.2
    assert found.slowdown == 1
    # Sent to the background: what is slow on other cores is not throttled.
    cores[:] = [4, 5]
    calls(0.5)
    senses.read("big")
    calls(0.5)
    assert senses.read("big").slowdown == 1
    senses.close()


def test_pace_needs_something_to_compare() -> None:
    keeper = Pace(1000, 1)
    assert keeper.look(0, 0, 0, "here") is None
    for now in (4.0, 8.0):
        for _ in range(10):
            keeper.call(0.1)
        found = keeper.look(now, now, 0, "here")
    assert found == 1.0
    # Elsewhere calls take what they take, and old windows tell nothing of now.
    assert keeper.look(12.0, 12.0, 0, "there") is None
    assert keeper.look(60.0, 60.0, 0, "here") is None
