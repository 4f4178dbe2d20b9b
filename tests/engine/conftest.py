"""The demo model and texts of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.session.models import demo_path
from qwen_edge.text.chat_template import encode_chat
from qwen_edge.text.tokenizer import Tokenizer
from tests.engine.oracle import POSITIONS

QUESTIONS = (
    "Tell me a story.", "What is the capital of France?", "Explain gravity.", "Who are you?",
    "What is 17 + 25?", "Write a poem about the sea.", "What is the opposite of cold?",
    "What can you do?", "Count from one to ten.", "Translate good morning into Chinese.",
    "你好，你是谁？", "讲一个故事。",
)  # fmt: skip


@pytest.fixture(scope="session")
def compilations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is compiled for torch is kept for the session alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def demo() -> Iterator[PackedModel]:
    with open_model(demo_path()) as model:
        yield model


@pytest.fixture(scope="session")
def texts(demo: PackedModel) -> list[list[int]]:
    """Answers of the demo model, drawn as its makers do, 2,000 tokens in all."""
    table = demo.tensors["tokenizer"]
    tokenizer = Tokenizer.from_blob(demo.address("tokenizer"), table.nbytes, demo)
    texts: list[list[int]] = []
    while sum(map(len, texts)) < POSITIONS:
        messages = [{"role": "user", "content": QUESTIONS[len(texts) % len(QUESTIONS)]}]
        ids = encode_chat(tokenizer, demo.chat_template, messages, enable_thinking=False)
        settings = demo.generation
        sampling = SamplingParams(settings.temperature, settings.top_k, settings.top_p,
                                  seed=len(texts))  # fmt: skip
        with NativeEngine(demo, EngineConfig(context=512, prefill_rows=64)) as engine:
            steps = Generation(engine, ids, sampling, max_tokens=250, stop_ids=settings.stop_ids)
            texts.append(ids + [step.id for step in steps])
    return texts
