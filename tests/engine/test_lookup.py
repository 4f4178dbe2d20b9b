"""Answers with drafts are the answers without them, token for token, however they end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from qwen_edge.engine.generate import Generation, Step
from qwen_edge.engine.interface import EngineConfig, Logits, Row, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.speculation import MAX_DRAFTS
from qwen_edge.errors import MemoryLimitError
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from tests.engine.drafting import ConstantCosts
from tests.engine.oracle import SHAPES, random_model, save_checkpoint

PROMPT = [3, 141, 59, 26, 5, 35]
CONTEXT = 300
# Random weights repeat themselves when drawn from cautiously: some drafts come true, some do not.
CAUTIOUS = SamplingParams(temperature=0.03, top_k=20, top_p=0.95, seed=1)
SAMPLINGS = {
    "greedy": SamplingParams(temperature=0),
    "cautious": CAUTIOUS,
    "warm": SamplingParams(temperature=0.08, top_k=0, top_p=1.0, seed=2),
    "min-p": SamplingParams(temperature=0.05, top_k=0, top_p=0.9, min_p=0.05, seed=3),
    "repetition": SamplingParams(temperature=0.03, repetition_penalty=1.005, seed=4),
    "presence": SamplingParams(temperature=0, presence_penalty=0.02),
    "bias": SamplingParams(temperature=0.03, logit_bias={7: 0.4, 8: 0.4}, seed=5),
}


class CountingEngine(NativeEngine):
    """Counts the calls, and can run out of memory in those of several rows."""

    calls = 0
    short_of_memory = False

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        self.calls += 1
        if self.short_of_memory and len(rows) > 1:
            raise MemoryLimitError("Out of memory: {reason}.", reason="the test says so")
        return super().forward(rows)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackedModel]:
    directory = tmp_path_factory.mktemp("model")
    save_checkpoint(random_model(SHAPES["untied"]), directory / "hf")
    convert(directory / "hf", directory / "model.qedge")
    with open_model(directory / "model.qedge") as model:
        yield model


def config(drafts: int, **changes: Any) -> EngineConfig:
    settings = {"context": CONTEXT, "prefill_rows": 16, "threads": 1, "sequences": 2} | changes
    return EngineConfig(drafts=drafts, **settings)


@pytest.fixture
def plain(model: PackedModel) -> Iterator[CountingEngine]:
    with CountingEngine(model, config(0)) as engine:
        yield engine


@pytest.fixture
def drafting(model: PackedModel) -> Iterator[CountingEngine]:
    with CountingEngine(model, config(MAX_DRAFTS)) as engine:
        yield engine


def generation(
    engine: NativeEngine,
    sampling: SamplingParams = CAUTIOUS,
    prompt: Sequence[int] = PROMPT,
    **changes: Any,
) -> Generation:
    settings = {"max_tokens": 200, "stop_ids": (), "costs": ConstantCosts()} | changes
    return Generation(engine, prompt, sampling, **settings)


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("logprobs", [None, 3])
def test_same_answer(
    plain: CountingEngine, drafting: CountingEngine, name: str, logprobs: int | None
) -> None:
    expected = generation(plain, SAMPLINGS[name], logprobs=logprobs)
    steps = list(expected)
    drafted = generation(drafting, SAMPLINGS[name], logprobs=logprobs)
    assert list(drafted) == steps
    assert drafted.ids == expected.ids == [step.id for step in steps]
    assert drafting.cached_ids() == plain.cached_ids() == PROMPT + expected.ids[:-1]
    stats = drafted.stats
    assert 0 <= stats.accepted_tokens <= stats.drafted_tokens
    assert stats.drafted_tokens > 0
    # The prompt, then a call for each token that no draft foretold.
    assert drafting.calls == 200 - stats.accepted_tokens
    assert plain.calls == 200
    assert expected.stats.drafted_tokens == expected.stats.accepted_tokens == 0


@pytest.mark.parametrize("kv_type", ["f16", "int8"])
@pytest.mark.parametrize("threads", [1, 3])
def test_same_answer_with_other_settings(model: PackedModel, kv_type: str, threads: int) -> None:
    answers = []
    for drafts, rows in ((0, 16), (3, 16), (MAX_DRAFTS, 16), (MAX_DRAFTS, 4), (MAX_DRAFTS, 1)):
        changed = config(drafts, kv_type=kv_type, threads=threads, prefill_rows=rows)
        with NativeEngine(model, changed) as engine:
            answers.append(list(generation(engine, logprobs=2)))
    assert all(answer == answers[0] for answer in answers)


def test_drafts_come_true_and_fail(drafting: CountingEngine) -> None:
    mixed = generation(drafting)
    list(mixed)
    assert 20 < mixed.stats.accepted_tokens < mixed.stats.drafted_tokens - 20
    copied = generation(drafting, SAMPLINGS["greedy"])
    list(copied)
    assert copied.stats.accepted_tokens > 100


@pytest.mark.parametrize("name", ["greedy", "cautious"])
def test_every_stop_token(plain: CountingEngine, drafting: CountingEngine, name: str) -> None:
    free = [step.id for step in generation(plain, SAMPLINGS[name])]
    for stop in sorted(set(free)):
        stopped = generation(drafting, SAMPLINGS[name], stop_ids=(stop,))
        assert [step.id for step in stopped] == free[: free.index(stop) + 1]
        assert stopped.stats.finish_reason == "stop"
        assert drafting.cached_ids() == PROMPT + stopped.ids[:-1]


def test_every_length(plain: CountingEngine, drafting: CountingEngine) -> None:
    free = [step.id for step in generation(plain, max_tokens=60)]
    for most in range(1, 61):
        cut = generation(drafting, max_tokens=most)
        assert [step.id for step in cut] == free[:most]
        assert cut.stats.finish_reason == "length"
        assert drafting.cached_ids() == PROMPT + free[: most - 1]


def test_the_context_ends(plain: CountingEngine, drafting: CountingEngine) -> None:
    free = [step.id for step in generation(plain, max_tokens=10_000)]
    full = generation(drafting, max_tokens=10_000)
    assert [step.id for step in full] == free
    assert len(PROMPT) + len(free) == CONTEXT
    assert full.stats.finish_reason == "length"


def test_broken_off_anywhere(plain: CountingEngine, drafting: CountingEngine) -> None:
    free = [step.id for step in generation(plain, max_tokens=80)]
    for taken in range(1, 60):
        broken = generation(drafting)
        steps = iter(broken)
        ids = [next(steps).id for _ in range(taken)]
        assert broken.ids == ids == free[:taken]
        assert broken.stats.generated_tokens == taken
        # The cache says truly what it holds, which can be more than was asked for.
        held = list(drafting.cached_ids())
        assert held == (PROMPT + free)[: len(held)]
        if taken % 3 == 0:
            steps.close()
        # Another turn, which goes on otherwise, on the same cache.
        other = [*PROMPT, *ids, 99, 98]
        expected = [step.id for step in generation(plain, prompt=other, max_tokens=8)]
        assert [s.id for s in generation(drafting, prompt=other, max_tokens=8)] == expected
        # An old answer that is thrown away late must not touch the new one's cache.
        steps.close()
        assert drafting.cached_ids() == plain.cached_ids()


def test_interrupted_between_computing_and_bookkeeping(
    plain: CountingEngine, drafting: CountingEngine
) -> None:
    expected = list(generation(plain))
    for lost in range(1, 12):
        broken = iter(generation(drafting))
        for _ in range(30):
            next(broken)
        # What a KeyboardInterrupt after the C call leaves: the cache holds more than the list says.
        del drafting._ids[0][-lost:]
        assert list(generation(drafting)) == expected


def test_memory_for_one_row_only(plain: CountingEngine, drafting: CountingEngine) -> None:
    expected = list(generation(plain, prompt=PROMPT[:1]))
    drafting.short_of_memory = True
    modest = generation(drafting, prompt=PROMPT[:1])
    assert list(modest) == expected
    assert modest.stats.drafted_tokens == 0
    assert modest.stats.finish_reason == "length"


def test_no_memory_at_all(drafting: CountingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = generation(drafting)
    steps = iter(failing)
    for _ in range(40):
        next(steps)

    def no_memory(rows: Sequence[Row]) -> list[Logits]:
        raise MemoryLimitError("Out of memory: {reason}.", reason="the test says so")

    monkeypatch.setattr(drafting, "forward", no_memory)
    with pytest.raises(MemoryLimitError):
        list(steps)
    assert failing.stats.finish_reason == "memory"
    assert drafting.cached_ids()[: len(PROMPT) + 39] == PROMPT + failing.ids[:39]


def test_two_answers_take_turns(plain: CountingEngine, drafting: CountingEngine) -> None:
    prompts = (PROMPT, [9, 8, 7])
    expected = [
        list(generation(plain, prompt=prompt, sequence=sequence))
        for sequence, prompt in enumerate(prompts)
    ]
    both = [
        generation(drafting, prompt=prompt, sequence=sequence)
        for sequence, prompt in enumerate(prompts)
    ]
    taken: tuple[list[Step], list[Step]] = ([], [])
    for pair in zip(*both, strict=True):
        for steps, step in zip(taken, pair, strict=True):
            steps.append(step)
    assert list(taken) == expected
    assert all(answer.stats.accepted_tokens > 0 for answer in both)
    assert [drafting.cached_ids(i) for i in (0, 1)] == [plain.cached_ids(i) for i in (0, 1)]


def test_the_prompt_is_a_source(plain: CountingEngine, drafting: CountingEngine) -> None:
    answer = [step.id for step in generation(plain, max_tokens=60)]
    # Whoever is asked the same again after having read the answer.
    prompt = [*PROMPT, *answer, *PROMPT]
    copied = generation(drafting, prompt=prompt, max_tokens=60)
    assert list(copied) == list(generation(plain, prompt=prompt, max_tokens=60))
    assert copied.stats.drafted_tokens > 0


def test_without_drafts_nothing_is_looked_up(plain: CountingEngine) -> None:
    off = generation(plain, SAMPLINGS["greedy"])
    list(off)
    assert off.stats.drafted_tokens == 0
