"""Where the native engine's threads run, and that it makes no difference to what they compute."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, PlaceableEngine, Row, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.errors import UsageError
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.session.models import resolve

GREEDY = SamplingParams(temperature=0)
PROMPT = [5, 9, 2, 60, 33, 8, 100, 41]
ALLOWED = sorted(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def demo() -> Iterator[PackedModel]:
    with open_model(resolve("demo").path) as model:
        yield model


def answer(engine: NativeEngine) -> list[int]:
    engine.truncate(0)
    return [step.id for step in Generation(engine, PROMPT, GREEDY, max_tokens=12, stop_ids=())]


def own_cores() -> set[int]:
    """Of the caller, which is one of the engine's threads."""
    return os.sched_getaffinity(0)


def test_threads_and_cores_change_between_calls_and_nothing_else_does(demo: PackedModel) -> None:
    with NativeEngine(demo, EngineConfig(context=64, threads=1, prefill_threads=4)) as engine:
        assert isinstance(engine, PlaceableEngine)
        expected = answer(engine)
        for threads, prefill, cores, others in [
            (4, 4, (), ()),
            (2, 3, ALLOWED[-1:], ALLOWED[:1]),
            (1, 1, ALLOWED[:1], ()),
            (1, 4, (), ALLOWED[-1:]),
        ]:
            engine.place(threads, prefill, cores, others)
            assert answer(engine) == expected
            assert own_cores() == set(cores or ALLOWED)


def test_the_configuration_places_and_closing_gives_the_cores_back(demo: PackedModel) -> None:
    config = EngineConfig(context=64, threads=1, cores=tuple(ALLOWED[-1:]))
    with NativeEngine(demo, config) as engine:
        engine.forward([Row(0, 0, 1, True)])
        assert own_cores() == set(ALLOWED[-1:])
        os.sched_setaffinity(0, ALLOWED)
        engine.forward([Row(0, 1, 1, True)])
        assert own_cores() == set(ALLOWED[-1:])
    assert own_cores() == set(ALLOWED)


@pytest.mark.parametrize(
    "given", [(0, 1), (3, 1), (1, 3), (1, 0), (1, 1, [-1]), (1, 1, [], [1024])]
)
def test_what_there_is_not_is_refused(demo: PackedModel, given: tuple[object, ...]) -> None:
    with NativeEngine(demo, EngineConfig(context=64, threads=2)) as engine:
        with pytest.raises(UsageError):
            engine.place(*given)  # type: ignore[arg-type]
        engine.forward([Row(0, 0, 1, True)])
        assert own_cores() == set(ALLOWED)
