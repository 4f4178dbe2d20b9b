"""Answers as text: the same with drafts and without, where thoughts or texts end them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.speculation import MAX_DRAFTS
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.session.answer import Answer, AnswerOptions, ChatModel, Done
from qwen_edge.text.tokenizer import Tokenizer
from tests.engine.drafting import ConstantCosts
from tests.engine.oracle import SHAPES, random_model, save_checkpoint

# Drawn this cautiously, random weights repeat themselves for the most part.
SAMPLING = SamplingParams(temperature=0.01, top_k=20, seed=1)
LENGTH = 150


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackedModel]:
    directory = tmp_path_factory.mktemp("model")
    save_checkpoint(random_model(SHAPES["untied"]), directory / "hf")
    convert(directory / "hf", directory / "model.qedge")
    with open_model(directory / "model.qedge") as model:
        yield model


Answering = Callable[[AnswerOptions], Answer]


def answering(model: PackedModel, drafts: int) -> Iterator[Answering]:
    tokenizer = Tokenizer.from_blob(
        model.address("tokenizer"), model.tensors["tokenizer"].nbytes, owner=model
    )
    with NativeEngine(model, EngineConfig(context=400, threads=1, drafts=drafts)) as engine:

        def answer(options: AnswerOptions) -> Answer:
            chat = ChatModel(engine, tokenizer, "", frozenset([300]), ConstantCosts())
            prompt = tokenizer.encode(
                "<think>" if options.thinking else "Hello", allow_special=True
            )
            return Answer(chat, prompt, options)

        yield answer


@pytest.fixture
def plain(model: PackedModel) -> Iterator[Answering]:
    yield from answering(model, 0)


@pytest.fixture
def drafting(model: PackedModel) -> Iterator[Answering]:
    yield from answering(model, MAX_DRAFTS)


def same(plain: Answer, drafted: Answer) -> None:
    *expected, done = plain
    *events, other_done = drafted
    assert events == expected
    assert isinstance(done, Done)
    assert isinstance(other_done, Done)
    assert (drafted.ids, drafted.text, drafted.thinking) == (plain.ids, plain.text, plain.thinking)
    assert drafted.stats.finish_reason == plain.stats.finish_reason
    assert drafted.stats.generated_tokens == plain.stats.generated_tokens


def test_stop_text(plain: Answering, drafting: Answering) -> None:
    free = plain(AnswerOptions(SAMPLING, LENGTH))
    assert isinstance([*free][-1], Done)
    whole = drafting(AnswerOptions(SAMPLING, LENGTH))
    assert isinstance([*whole][-1], Done)
    assert whole.text == free.text
    assert 0 < whole.stats.accepted_tokens < whole.stats.drafted_tokens
    for begin in range(0, len(free.text) - 2, 3):
        options = AnswerOptions(SAMPLING, LENGTH, stop=(free.text[begin : begin + 2],))
        same(plain(options), drafting(options))


def test_thinking_budget(plain: Answering, drafting: Answering) -> None:
    thoughts = []
    for budget in range(1, 60, 4):
        options = AnswerOptions(SAMPLING, LENGTH, thinking=True, thinking_budget=budget)
        expected = plain(options)
        same(expected, drafting(options))
        thoughts.append(expected.thinking)
    assert any(thoughts)


def test_both_parts_of_an_answer_count(drafting: Answering) -> None:
    answer = drafting(AnswerOptions(SAMPLING, LENGTH, thinking=True, thinking_budget=50))
    list(answer)
    thoughts = drafting(AnswerOptions(SAMPLING, 50, thinking=True))
    list(thoughts)
    assert 0 < thoughts.stats.accepted_tokens < answer.stats.accepted_tokens
