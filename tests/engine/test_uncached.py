"""Without the KV cache: the same answers, computed anew for each token."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence

import pytest

from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, Logits, Row, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.uncached import uncached
from qwen_edge.errors import MemoryLimitError, UsageError
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.session.models import demo_path

GREEDY = SamplingParams(temperature=0)
PROMPT = [3, 141, 59, 26, 5, 35, 8, 97, 12]
CONFIG = EngineConfig(context=128, prefill_rows=4, threads=1, sequences=2, keep_cache=False)


class CountingEngine(NativeEngine):
    """Counts the rows it computes."""

    computed = 0

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        self.computed += len(rows)
        return super().forward(rows)


@pytest.fixture(scope="module")
def model() -> Iterator[PackedModel]:
    with open_model(demo_path()) as opened:
        yield opened


@pytest.fixture
def engine(model: PackedModel) -> Iterator[CountingEngine]:
    with CountingEngine(model, CONFIG) as engine:
        yield engine


def values(logits: Logits) -> bytes:
    return ctypes.string_at(logits.address, 4 * logits.size)


def test_an_answer_is_the_same_and_every_step_computes_all(
    model: PackedModel, engine: CountingEngine
) -> None:
    with NativeEngine(model, EngineConfig(context=128, threads=1)) as caching:
        expected = list(Generation(caching, PROMPT, GREEDY, max_tokens=12, stop_ids=()))
    told: list[tuple[int, int]] = []
    generation = Generation(
        uncached(engine), PROMPT, GREEDY, max_tokens=12, stop_ids=(),
        on_prefill=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert list(generation) == expected
    assert engine.computed == sum(len(PROMPT) + i for i in range(12))
    assert told[-1] == (len(PROMPT), len(PROMPT))
    # Nor is anything taken over into the next answer.
    engine.computed = 0
    again = Generation(engine, PROMPT, GREEDY, max_tokens=1, stop_ids=())
    assert list(again) == expected[:1]
    assert (again.stats.cached_tokens, engine.computed) == (0, len(PROMPT))


def test_there_are_no_drafts(model: PackedModel) -> None:
    config = EngineConfig(context=256, threads=1, drafts=7, keep_cache=False)
    with NativeEngine(model, config) as engine:
        generation = Generation(engine, [5, 6, 7, 8] * 20, GREEDY, max_tokens=20, stop_ids=())
        assert len(list(generation)) == 20
        assert generation.stats.drafted_tokens == 0


def test_rows_of_several_sequences(model: PackedModel, engine: CountingEngine) -> None:
    anew = uncached(engine)
    assert uncached(anew) is anew
    assert anew.forward([Row(0, i, 5 + i) for i in range(4)]) == []
    assert engine.computed == 0
    anew.fork(0, 1, 3)
    assert (list(anew.cached_ids(0)), list(anew.cached_ids(1))) == ([5, 6, 7, 8], [5, 6, 7])
    anew.truncate(2)
    mixed = [values(row) for row in anew.forward([Row(0, 2, 9, True), Row(1, 3, 9, True)])]
    with NativeEngine(model, EngineConfig(context=128, threads=1)) as caching:
        for ids, found in (([5, 6, 9], mixed[0]), ([5, 6, 7, 9], mixed[1])):
            caching.truncate(0)
            rows = [Row(0, i, token, i == len(ids) - 1) for i, token in enumerate(ids)]
            assert values(caching.forward(rows)[0]) == found


def test_what_fails_leaves_the_tokens_as_they_were(
    engine: CountingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    anew = uncached(engine)
    anew.forward([Row(0, 0, 5)])
    with pytest.raises(UsageError, match="at most 4 rows"):
        anew.forward([Row(0, i, 5) for i in range(1, 6)])

    def fails(rows: Sequence[Row]) -> list[Logits]:
        raise MemoryLimitError("Out of memory: {reason}.", reason="the test says so")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "forward", fails)
        with pytest.raises(MemoryLimitError):
            anew.forward([Row(0, 1, 6, True)])
    assert list(anew.cached_ids()) == [5]
    assert anew.forward([Row(0, 1, 6, True)])


def test_with_the_cache_an_engine_stays_itself(model: PackedModel) -> None:
    with NativeEngine(model, EngineConfig(context=128)) as engine:
        assert uncached(engine) is engine
