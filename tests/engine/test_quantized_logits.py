"""Imported GPTQ and AWQ checkpoints against transformers on the weights that they stand for."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3ForCausalLM

from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.errors import DamagedModelError
from qwen_edge.model.config import ModelConfig
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.quant.layout import WeightFormat
from qwen_edge.session.models import demo_path
from qwen_edge.text.chat_template import encode_chat
from qwen_edge.text.tokenizer import Tokenizer
from tests.engine.oracle import (
    SHAPES,
    dequantize,
    native_logits,
    oracle_logits,
    random_model,
    relative_error,
)
from tests.engine.test_logits import FP32_LIMIT, INT8_LIMIT, tokens
from tests.model.files import BLOB
from tests.model.grouped import Floats, Kind, write_quantized

GPTQ = Kind(group=32, act_order=True)
AWQ = Kind("awq", group=32)
FLOATS = WeightFormat("f16", 0, False, ())


def set_weights(oracle: Qwen3ForCausalLM, weights: Mapping[str, Floats]) -> None:
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            parameter.data = torch.from_numpy(weights[name].copy()).reshape(parameter.shape)


def model_config(shape: Mapping[str, Any]) -> ModelConfig:
    return ModelConfig(
        hidden_size=shape["hidden_size"], intermediate_size=shape["intermediate_size"],
        layers=shape["num_hidden_layers"], heads=shape["num_attention_heads"],
        kv_heads=shape["num_key_value_heads"], head_dim=shape["head_dim"],
        vocab_size=shape["vocab_size"], max_positions=4096, rms_norm_eps=1e-6, rope_theta=1e6,
        tied=shape["tie_word_embeddings"],
    )  # fmt: skip


def imported(shape: str, kind: Kind, directory: Path) -> tuple[PackedModel, np.ndarray]:
    """A random model quantized, imported, and 150 tokens' logits of transformers."""
    oracle = random_model(SHAPES[shape])
    weights = {name: p.detach().numpy() for name, p in oracle.named_parameters()}
    meant = write_quantized(directory / "hf", model_config(SHAPES[shape]), weights, kind)
    convert(directory / "hf", directory / "m.qedge", tokenizer=BLOB,
            overrides=[("model.embed*", FLOATS), ("lm_head*", FLOATS)])  # fmt: skip
    set_weights(oracle, meant)
    packed = open_model(directory / "m.qedge")
    return packed, oracle_logits(oracle, tokens(packed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [GPTQ, AWQ, Kind(bits=8, symmetric=True, act_order=True)])
def test_against_transformers(shape: str, kind: Kind, tmp_path: Path) -> None:
    packed, truth = imported(shape, kind, tmp_path)
    with packed:
        ids = tokens(packed)
        exact = native_logits(packed, ids, activations="f32", kv_type="f32")
        assert relative_error(exact, truth) <= FP32_LIMIT
        # Whatever rows and threads share a call; one row at a time, too.
        for settings in ({"prefill_rows": 64}, {"prefill_rows": 1}, {"threads": 1}):
            fast = native_logits(packed, ids, kv_type="f16", **settings)
            assert relative_error(fast, truth) <= INT8_LIMIT


@pytest.mark.parametrize("value", [-1, 96, 5, 2**31 - 1])
def test_an_order_that_is_no_permutation(value: int, tmp_path: Path) -> None:
    packed, _ = imported("one-layer", GPTQ, tmp_path)
    with packed:
        info = packed.tensors["model.layers.0.mlp.gate_up.order"]
        order = np.frombuffer(ctypes.string_at(packed.address(info.name), info.nbytes), "<i4")
        at = 7 if order[7] != value else 8
    content = bytearray((tmp_path / "m.qedge").read_bytes())
    content[info.offset + 4 * at : info.offset + 4 * at + 4] = value.to_bytes(
        4, "little", signed=True
    )
    (tmp_path / "m.qedge").write_bytes(content)
    refused = pytest.raises(DamagedModelError, match="gate_proj and up_proj is not a permutation")
    with open_model(tmp_path / "m.qedge") as packed, refused:
        NativeEngine(packed, EngineConfig())


# --- the demo model

QUESTIONS = (
    "Tell me a story.", "What is the capital of France?", "Explain gravity.", "Who are you?",
    "What is 17 + 25?", "Write a poem about the sea.", "What is the opposite of cold?",
    "What can you do?", "Count from one to ten.", "Translate good morning into Chinese.",
    "你好，你是谁？", "讲一个故事。",
)  # fmt: skip
POSITIONS = 2000


@pytest.fixture(scope="module")
def demo() -> Iterator[PackedModel]:
    with open_model(demo_path()) as model:
        yield model


@pytest.fixture(scope="module")
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


def importance(oracle: Qwen3ForCausalLM, texts: list[list[int]]) -> dict[str, Floats]:
    """What GPTQ sorts columns by: the squares of the activations that they are multiplied by."""
    sums: dict[str, Floats] = {}

    def listen(name: str, module: torch.nn.Module) -> None:
        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], __: torch.Tensor) -> None:
            squares = inputs[0].detach().square().sum((0, 1)).numpy()
            sums[name] = sums.get(name, 0) + squares

        module.register_forward_hook(hook)

    for name, module in oracle.named_modules():
        if name.endswith("_proj"):
            listen(f"{name}.weight", module)
    for ids in texts:
        oracle_logits(oracle, ids)
    return sums


@pytest.mark.parametrize("kind", [GPTQ, AWQ])
def test_the_demo_models_likeliest_tokens(
    kind: Kind, demo: PackedModel, texts: list[list[int]], tmp_path: Path
) -> None:
    c = demo.config
    named = {n: dequantize(demo, i) for n, i in demo.tensors.items() if n != "tokenizer"}
    weights = {n: v[0] if len(v) == 1 else v for n, v in named.items()}
    oracle = random_model({
        "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim,
        "vocab_size": c.vocab_size, "tie_word_embeddings": c.tied,
    })  # fmt: skip
    steps = torch.arange(0, c.head_dim, 2, dtype=torch.float64) / c.head_dim
    oracle.model.rotary_emb.inv_freq = (1.0 / torch.tensor(c.rope_theta).double() ** steps).float()
    set_weights(oracle, weights)
    meant = write_quantized(
        tmp_path / "hf", c, weights, kind, importance=importance(oracle, texts[:12])
    )
    convert(tmp_path / "hf", tmp_path / "m.qedge", tokenizer=BLOB)
    set_weights(oracle, meant)
    truth = [oracle_logits(oracle, ids).argmax(1) for ids in texts]
    with open_model(tmp_path / "m.qedge") as packed:
        for options, share in (
            ({"kv_type": "f32", "activations": "f32"}, 0.995),
            ({"kv_type": "f16"}, 0.99),
        ):
            ours = [native_logits(packed, ids, **options).argmax(1) for ids in texts]
            same = sum(int((a == b).sum()) for a, b in zip(ours, truth, strict=True))
            total = sum(map(len, texts))
            assert total >= POSITIONS
            assert same >= share * total
