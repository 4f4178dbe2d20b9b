"""The embedded demo model: its size, and its text against transformers with the same weights."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3ForCausalLM

from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import PackedModel
from qwen_edge.session.models import demo_path
from qwen_edge.text.chat_template import encode_chat
from qwen_edge.text.tokenizer import Tokenizer
from tests.engine.oracle import oracle_of

LENGTH = 64
QUESTIONS = ["Hello!", "Who are you?", "What is 7 + 5?", "你好", "Tell me a short story."]


@pytest.fixture(scope="module")
def oracle(demo: PackedModel) -> Qwen3ForCausalLM:
    return oracle_of(demo)


def test_it_is_small() -> None:
    assert demo_path().stat().st_size <= 8_000_000


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_text_is_the_oracles(
    demo: PackedModel, oracle: Qwen3ForCausalLM, question: str
) -> None:
    blob = demo.tensors["tokenizer"]
    tokenizer = Tokenizer.from_blob(demo.address("tokenizer"), blob.nbytes, demo)
    messages = [{"role": "user", "content": question}]
    prompt = encode_chat(tokenizer, demo.chat_template, messages, enable_thinking=False)
    config = EngineConfig(context=512, activations="f32", kv_type="f32")
    with NativeEngine(demo, config) as engine:
        generation = Generation(
            engine, prompt, SamplingParams(temperature=0), max_tokens=LENGTH, stop_ids=()
        )
        ours = [step.id for step in generation]
    with torch.no_grad():
        output = oracle.generate(
            torch.tensor([prompt]), max_new_tokens=LENGTH, do_sample=False, eos_token_id=-1
        )
    assert ours == output[0, len(prompt) :].tolist()
    assert tokenizer.decode(ours) == tokenizer.decode(output[0, len(prompt) :].tolist())
