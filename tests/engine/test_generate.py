"""Generation: what is computed, what is reused, how an answer ends."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qwen_edge.engine import native
from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.engine.memory_estimate import estimate, kv_bytes_per_token
from qwen_edge.engine.native import NativeEngine
from qwen_edge.errors import UsageError
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import open_model
from tests.engine.oracle import SHAPES, oracle_logits, random_model, save_checkpoint, take_weights

GREEDY = SamplingParams(temperature=0)
PROMPT = [3, 141, 59, 26, 5, 35]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    save_checkpoint(random_model(SHAPES["untied"]), directory / "hf")
    convert(directory / "hf", directory / "model.qedge")
    return directory


@pytest.fixture
def engine(files: Path) -> Iterator[NativeEngine]:
    config = EngineConfig(
        context=64, prefill_rows=4, activations="f32", kv_type="f32", threads=1, sequences=2
    )
    with open_model(files / "model.qedge") as model, NativeEngine(model, config) as engine:
        yield engine


def test_greedy_answer_is_the_oracles(engine: NativeEngine, files: Path) -> None:
    oracle = random_model(SHAPES["untied"])
    with open_model(files / "model.qedge") as packed:
        take_weights(oracle, packed)
    expected = list(PROMPT)
    for _ in range(40):
        expected.append(int(oracle_logits(oracle, expected)[-1].argmax()))
    generation = Generation(engine, PROMPT, GREEDY, max_tokens=40, stop_ids=(), logprobs=3)
    steps = list(generation)
    assert [step.id for step in steps] == expected[len(PROMPT) :] == generation.ids
    logits = oracle_logits(oracle, PROMPT)[-1].astype(np.float64)
    logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    assert steps[0].logprob == pytest.approx(logprobs.max(), abs=1e-4)
    assert [i for i, _ in steps[0].top] == np.argsort(-logprobs)[:3].tolist()


def test_reuses_what_the_cache_holds(engine: NativeEngine) -> None:
    first = Generation(engine, PROMPT, GREEDY, max_tokens=5, stop_ids=())
    answer = [step.id for step in first]
    assert first.stats.cached_tokens == 0
    # The last token of the answer was drawn, not computed.
    assert list(engine.cached_ids()) == PROMPT + answer[:-1]
    calls: list[tuple[int, int]] = []
    longer = [*PROMPT, *answer, 7, 8, 9]
    second = Generation(
        engine, longer, GREEDY, max_tokens=5, stop_ids=(),
        on_prefill=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    reused = list(second)
    assert second.stats.cached_tokens == len(PROMPT) + 4
    assert calls == [(4, 4)]
    fresh = list(Generation(engine, longer, GREEDY, max_tokens=5, stop_ids=(), sequence=1))
    assert fresh == reused
    repeated = Generation(engine, longer, GREEDY, max_tokens=5, stop_ids=())
    assert list(repeated) == reused
    assert repeated.stats.cached_tokens == len(longer) - 1


def test_how_an_answer_ends(engine: NativeEngine) -> None:
    free = list(Generation(engine, PROMPT, GREEDY, max_tokens=20, stop_ids=()))
    stop = free[3].id
    stopped = Generation(engine, PROMPT, GREEDY, max_tokens=20, stop_ids=(stop,))
    assert list(stopped)[-1].id == stop
    assert stopped.stats.finish_reason == "stop"
    assert stopped.ids.index(stop) == len(stopped.ids) - 1
    single = Generation(engine, PROMPT, GREEDY, max_tokens=1, stop_ids=())
    assert len(list(single)) == 1
    assert single.stats.finish_reason == "length"
    full = Generation(engine, PROMPT, GREEDY, max_tokens=10_000, stop_ids=())
    assert len(list(full)) == 64 - len(PROMPT)
    assert full.stats.finish_reason == "length"
    broken = Generation(engine, PROMPT, GREEDY, max_tokens=20, stop_ids=())
    iterator = iter(broken)
    next(iterator)
    iterator.close()
    assert broken.stats.finish_reason == "interrupted"
    assert broken.stats.generated_tokens == 1


def test_an_interrupt_between_computing_and_bookkeeping(engine: NativeEngine) -> None:
    undisturbed = list(Generation(engine, PROMPT, GREEDY, max_tokens=9, stop_ids=(), sequence=1))
    broken = iter(Generation(engine, PROMPT, GREEDY, max_tokens=9, stop_ids=()))
    for _ in range(5):
        next(broken)
    # What a KeyboardInterrupt after the C call leaves: the cache holds more than the list says.
    del engine._ids[0][-3:]
    assert list(Generation(engine, PROMPT, GREEDY, max_tokens=9, stop_ids=())) == undisturbed


@pytest.mark.parametrize("name", ["qe_session_destroy", "qe_model_destroy"])
def test_an_interrupt_while_closing_frees_nothing_twice(
    files: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    library, freed = native.engine_library(), []

    class Interrupted:
        """The library, with Ctrl-C in the moment after it has freed something."""

        def __getattr__(self, called: str) -> object:
            function = getattr(library, called)
            if called != name:
                return function

            def destroy(handle: ctypes.c_void_p) -> None:
                freed.append(handle.value)
                function(handle)
                if len(freed) == 1:
                    raise KeyboardInterrupt

            return destroy

    with open_model(files / "model.qedge") as model:
        engine = NativeEngine(model, EngineConfig(context=64, threads=2))
        monkeypatch.setattr(native, "engine_library", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.close()
        engine.close()
        assert len(freed) == 1


def test_statistics_add_up(engine: NativeEngine) -> None:
    generation = Generation(engine, PROMPT, GREEDY, max_tokens=8, stop_ids=())
    list(generation)
    stats = generation.stats
    assert (stats.prompt_tokens, stats.generated_tokens) == (6, 8)
    assert 0 < stats.prefill_seconds <= stats.first_token_seconds
    assert stats.decode_tokens_per_second == pytest.approx(7 / stats.decode_seconds)
    assert stats.prefill_tokens_per_second == pytest.approx(6 / stats.prefill_seconds)
    assert stats.as_dict()["finish_reason"] == "length"


def test_same_seed_same_answer(engine: NativeEngine) -> None:
    def answer(seed: int) -> list[int]:
        params = SamplingParams(temperature=2.0, top_k=0, top_p=1.0, seed=seed)
        return [s.id for s in Generation(engine, PROMPT, params, max_tokens=20, stop_ids=())]

    assert answer(1) == answer(1) != answer(2)


def test_presence_penalty_forbids_repeats(engine: NativeEngine) -> None:
    params = SamplingParams(temperature=0, presence_penalty=1e4)
    ids = [s.id for s in Generation(engine, PROMPT, params, max_tokens=50, stop_ids=())]
    assert len(set(ids)) == len(ids) == 50


@pytest.mark.parametrize("prompt", [[], list(range(64)), list(range(100))])
def test_prompts_that_do_not_fit(engine: NativeEngine, prompt: list[int]) -> None:
    with pytest.raises(UsageError):
        Generation(engine, prompt, GREEDY, max_tokens=5, stop_ids=())
    assert not engine.cached_ids()


def test_no_tokens_allowed(engine: NativeEngine) -> None:
    with pytest.raises(UsageError):
        Generation(engine, PROMPT, GREEDY, max_tokens=0, stop_ids=())


def test_memory_estimate_follows_the_allocations(files: Path) -> None:
    with open_model(files / "model.qedge") as model:
        for rows, threads in ((1, 1), (32, 2), (256, 3)):
            config = EngineConfig(
                context=300, prefill_rows=rows, threads=threads, prefill_threads=threads
            )
            with NativeEngine(model, config) as engine:
                list(Generation(engine, PROMPT, GREEDY, max_tokens=2, stop_ids=()))
                expected = estimate(model.config, config, filled=10)
                assert math.isclose(expected.scratch_bytes, engine.scratch_bytes(), rel_tol=0.1)
                per_token = kv_bytes_per_token(model.config, "int8")
                assert expected.kv_bytes == 10 * per_token == 10 * 5 * 2 * 2 * 66


def test_what_a_thread_holds_is_what_the_estimate_says(files: Path) -> None:
    """Most of it are the buffers of a block of rows, which both sides have to size alike."""
    with open_model(files / "model.qedge") as model:
        for rows in (16, 31, 32, 33, 300):
            estimated, held = [], []
            for threads in (1, 4):
                config = EngineConfig(
                    context=300, prefill_rows=rows, threads=threads, prefill_threads=threads
                )
                with NativeEngine(model, config) as engine:
                    held.append(engine.scratch_bytes())
                estimated.append(estimate(model.config, config, filled=10).scratch_bytes)
            assert math.isclose(estimated[1] - estimated[0], held[1] - held[0], rel_tol=0.02), rows
