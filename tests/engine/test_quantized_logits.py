"""Imported GPTQ and AWQ checkpoints against transformers on the weights that they stand for."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3ForCausalLM

from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.native import NativeEngine
from qwen_edge.errors import DamagedModelError
from qwen_edge.model.config import ModelConfig
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.quant.layout import WeightFormat
from tests.engine.oracle import (
    SHAPES,
    agreement,
    native_logits,
    oracle_logits,
    oracle_of,
    random_model,
    relative_error,
    set_weights,
)
from tests.engine.test_logits import FP32_LIMIT, INT8_LIMIT, tokens
from tests.model.files import BLOB
from tests.model.grouped import Floats, Kind, write_quantized

GPTQ = Kind(group=32, act_order=True)
AWQ = Kind("awq", group=32)
FLOATS = WeightFormat("f16", 0, False, ())


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
@pytest.mark.parametrize(
    "kind", [GPTQ, AWQ, Kind(bits=8, symmetric=True, act_order=True), Kind(bits=8)]
)
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


@pytest.mark.parametrize("kind", [GPTQ, AWQ, Kind(bits=8, act_order=True)])
def test_the_demo_models_likeliest_tokens(
    kind: Kind, demo: PackedModel, texts: list[list[int]], tmp_path: Path
) -> None:
    oracle = oracle_of(demo)
    weights = {name: p.detach().numpy().copy() for name, p in oracle.named_parameters()}
    meant = write_quantized(
        tmp_path / "hf", demo.config, weights, kind, importance=importance(oracle, texts[:12])
    )
    convert(tmp_path / "hf", tmp_path / "m.qedge", tokenizer=BLOB)
    set_weights(oracle, meant)
    truth = [oracle_logits(oracle, ids) for ids in texts]
    exact, fast = agreement(tmp_path / "m.qedge", texts, truth)
    assert exact >= 0.995
    assert fast >= 0.99
