"""What the engine offers for measurements: stretched sequences and the read bandwidth."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qwen_edge.engine.bandwidth import read_bandwidth
from qwen_edge.engine.generate import extend
from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.native import KV_TYPES, NativeEngine
from qwen_edge.errors import UsageError
from qwen_edge.model.packed import open_model
from qwen_edge.session.models import demo_path


@pytest.fixture(params=[kv for kv in KV_TYPES if kv != "f32"])
def engine(request: pytest.FixtureRequest) -> Iterator[NativeEngine]:
    config = EngineConfig(context=600, kv_type=request.param, sequences=2, threads=2)
    with open_model(demo_path()) as model, NativeEngine(model, config) as engine:
        yield engine


def test_a_stretched_sequence_goes_on_and_can_be_cut_back(engine: NativeEngine) -> None:
    ids = list(range(100, 120))
    expected = bytes_of(extend(engine, ids, 0, wants_logits=True)[0])
    engine.truncate(19)
    engine.fork(0, 1, 19)
    engine.stretch(590)
    assert list(engine.cached_ids())[:19] == ids[:19]
    assert len(engine.cached_ids()) == 590
    extend(engine, [5] * 10, 0, wants_logits=True)
    with pytest.raises(UsageError, match="is full"):
        extend(engine, [5], 0, wants_logits=True)
    # Neither the sequence's own beginning nor the one that shares it has changed.
    engine.truncate(19)
    assert bytes_of(extend(engine, ids[19:], 0, wants_logits=True)[0]) == expected
    assert bytes_of(extend(engine, ids[19:], 1, wants_logits=True)[0]) == expected


def bytes_of(logits: object) -> bytes:
    import ctypes

    return ctypes.string_at(logits.address, 4 * logits.size)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("held", "length", "sequence"), [(8, 100, 0), (20, 10, 0), (20, 601, 0)])
def test_stretching_out_of_range_is_refused(
    engine: NativeEngine, held: int, length: int, sequence: int
) -> None:
    extend(engine, list(range(held)), sequence, wants_logits=False)
    with pytest.raises(UsageError):
        engine.stretch(length, sequence)
    assert len(engine.cached_ids(sequence)) == held


def test_read_bandwidth_is_that_of_a_memory() -> None:
    for threads in (1, 2, 5):
        assert 1e7 < read_bandwidth(8 << 20, threads, passes=3) < 1e14


@pytest.mark.parametrize(
    ("nbytes", "threads", "passes"), [(1000, 1, 1), (1 << 20, 0, 1), (1 << 20, 1, 0)]
)
def test_bandwidth_out_of_range_is_refused(nbytes: int, threads: int, passes: int) -> None:
    with pytest.raises(UsageError):
        read_bandwidth(nbytes, threads, passes)
