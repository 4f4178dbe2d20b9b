"""What bitsandbytes wrote comes out as bitsandbytes itself reads it."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.checkpoint import open_checkpoint
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.quant.layout import level_format
from qwen_edge.quant.packing import dequantize
from tests.engine.oracle import native_logits, relative_error
from tests.model.files import BLOB

KINDS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "nf4-nested": {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
    },
    "fp4-nested": {
        "load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True,
    },
    "int8": {"load_in_8bit": True},
}  # fmt: skip
Floats = npt.NDArray[np.float32]


def save(folder: Path, kind: str, hidden: int = 128, dtype: str = "float32") -> Any:
    """A random Qwen3, quantized and saved by transformers; returns the quantized model."""
    from transformers import (
        AutoModelForCausalLM,
        BitsAndBytesConfig,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    torch.manual_seed(1)
    config = Qwen3Config(
        hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, vocab_size=261,
        tie_word_embeddings=True, max_position_embeddings=512, rope_theta=1e6, eos_token_id=2,
    )  # fmt: skip
    plain = folder.parent / "plain"
    Qwen3ForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(plain)
    model = AutoModelForCausalLM.from_pretrained(
        plain,
        quantization_config=BitsAndBytesConfig(**KINDS[kind]),
        device_map="cpu",
        dtype=getattr(torch, dtype),
    )
    model.save_pretrained(folder)
    return model


def library_weights(model: Any, half_scales: bool) -> dict[str, Floats]:
    """The matrices as bitsandbytes dequantizes them, if need be with scales rounded as ours are."""
    import bitsandbytes as bnb

    weights = {}
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            state = module.weight.quant_state
            data = module.weight.data
            scales = state.absmax
            if state.nested:
                scales = bnb.functional.dequantize_blockwise(scales, state.state2) + state.offset
            if half_scales:
                unit = level_format(tuple(state.code.tolist()), 64).unit
                scales = (scales / unit).to(torch.float16).float() * unit
            # As one row: on CPUs the library mistakes the blocks of rows that end within one.
            count = [1, state.shape.numel()]
            values = torch.ops.bitsandbytes.dequantize_4bit(
                data, scales.float(), state.blocksize, state.quant_type, count, torch.float32
            )
            weights[f"{name}.weight"] = values.reshape(state.shape).float().numpy()
        elif isinstance(module, bnb.nn.Linear8bitLt):
            scales = module.weight.SCB
            if half_scales:
                scales = scales * torch.tensor(7.874015718698502e-3)
                scales = scales.to(torch.float16).float()
                weights[f"{name}.weight"] = (module.weight.data.float() * scales[:, None]).numpy()
                continue
            values = bnb.functional.int8_vectorwise_dequant(module.weight.data, scales)
            weights[f"{name}.weight"] = values.numpy()
    return weights


def floats(tensor: Any, begin: int, rows: int) -> Floats:
    found = tensor.floats(begin, rows)
    assert found.type == "f32"
    return np.ctypeslib.as_array(found.data).reshape(rows, tensor.cols).copy()


def values(model: PackedModel, name: str) -> Floats:
    info = model.tensors[name]
    output = np.empty((info.rows, info.cols), np.float32)
    dequantize(info.layout, model.address(name), output.ctypes.data)
    return output


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("hidden", [128, 96, 80])
def test_floats_are_the_librarys_bit_for_bit(tmp_path: Path, kind: str, hidden: int) -> None:
    expected = library_weights(save(tmp_path / "in", kind, hidden), half_scales=False)
    assert len(expected) == 14
    with open_checkpoint(tmp_path / "in") as checkpoint:
        for name, weights in expected.items():
            tensor = checkpoint.tensors[name]
            assert np.array_equal(floats(tensor, 0, tensor.rows), weights)
            assert np.array_equal(floats(tensor, 16, 17), weights[16:33])
            tensor.release(0, tensor.rows)


@pytest.mark.parametrize("kind", list(KINDS))
def test_weights_are_exact_but_for_their_scales(tmp_path: Path, kind: str) -> None:
    expected = library_weights(save(tmp_path / "in", kind), half_scales=True)
    made = convert(tmp_path / "in", tmp_path / "out.qedge", tokenizer=BLOB)
    assert (made.kept, made.matrices) == (14, 15)
    with open_model(tmp_path / "out.qedge") as model:
        for name, weights in expected.items():
            assert np.array_equal(values(model, name), weights)
        assert model.tensors["model.embed_tokens.weight"].type == "q8"


def test_blocks_that_straddle_rows(tmp_path: Path) -> None:
    # Blocks of 64 end within rows of 96, but groups of 32 lie within both.
    expected = library_weights(save(tmp_path / "in", "nf4", hidden=96), half_scales=True)
    made = convert(tmp_path / "in", tmp_path / "out.qedge", tokenizer=BLOB)
    assert made.kept == len(expected)
    with open_model(tmp_path / "out.qedge") as model:
        for name, weights in expected.items():
            assert model.tensors[name].group == (32 if weights.shape[1] == 96 else 64)
            assert np.array_equal(values(model, name), weights)


def test_groups_that_straddle_blocks_go_to_the_nearest(tmp_path: Path) -> None:
    expected = library_weights(save(tmp_path / "in", "nf4", hidden=80), half_scales=False)
    made = convert(tmp_path / "in", tmp_path / "out.qedge", tokenizer=BLOB)
    straddling = [name for name, weights in expected.items() if weights.shape[1] % 32]
    assert made.kept == len(expected) - len(straddling) > 0
    with open_model(tmp_path / "out.qedge") as model:
        for name in straddling:
            assert model.tensors[name].layout.levels
            off = np.linalg.norm(values(model, name) - expected[name])
            assert off < 0.06 * np.linalg.norm(expected[name])


@pytest.mark.parametrize("kind", ["nf4", "fp4-nested", "int8"])
def test_logits_agree_with_transformers(tmp_path: Path, kind: str) -> None:
    reference = save(tmp_path / "in", kind)
    expected_weights = library_weights(reference, half_scales=True)
    convert(tmp_path / "in", tmp_path / "out.qedge", bits=16, tokenizer=BLOB)
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    state = plain.state_dict()
    state.update({name: torch.from_numpy(w) for name, w in expected_weights.items()})
    embedding = "model.embed_tokens.weight"
    state[embedding] = state["lm_head.weight"] = state[embedding].bfloat16().float()
    plain.load_state_dict(state)
    tokens = [3, 77, 12, 260, 5, 91, 44, 8]
    with torch.no_grad():
        expected = plain(torch.tensor([tokens])).logits[0].numpy()
    with open_model(tmp_path / "out.qedge") as model:
        found = native_logits(model, tokens, kv_type="f32", activations="f32")
    assert relative_error(found, expected) < 1e-4


def damage(folder: Path, name: str, change: Any) -> None:
    """Writes a checkpoint's file anew with one tensor changed, or without it."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name])
    save_file(tensors, folder / "model.safetensors")


def as_text(table: dict[str, Any]) -> Any:
    return torch.tensor(list(json.dumps(table).encode()), dtype=torch.uint8)


GATE = "model.layers.0.mlp.gate_proj."
GOOD = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [256, 128]}


@pytest.mark.parametrize(
    ("kind", "name", "change", "problem"),
    [
        ("nf4", "weight.absmax", None, "has no tensor"),
        ("nf4", "weight.absmax", lambda t: t[:-1], "not 512 times F32"),
        ("nf4", "weight.quant_map", lambda t: t * 2, "a level that is not from -1 to 1"),
        ("nf4", "weight.quant_map", lambda t: t * float("nan"), "not from -1 to 1"),
        ("nf4", "weight", lambda t: t[:-1], "does not hold 32768 codes"),
        ("nf4", "weight.quant_state.bitsandbytes__nf4", lambda t: t[:9], "not valid JSON"),
        ("nf4", "weight.quant_state.bitsandbytes__nf4",
         lambda t: as_text(GOOD | {"shape": [128, 256]}), "its config.json says"),
        ("nf4", "weight.quant_state.bitsandbytes__nf4",
         lambda t: as_text(GOOD | {"blocksize": 0}), "the blocksize 0"),
        ("nf4", "weight.quant_state.bitsandbytes__nf4",
         lambda t: as_text(GOOD | {"quant_type": "fp4"}), "does not describe nf4"),
        ("nf4", "weight.absmax", lambda t: t * 1e9, "not finite in fp16"),
        ("nf4-nested", "weight.nested_absmax", None, "has no tensor"),
        ("int8", "SCB", None, "has no tensor"),
        ("int8", "weight", lambda t: t.fill_(-128), "a code is -128"),
        ("int8", "weight_format", lambda t: t + 1, "not stored row by row"),
    ],
)  # fmt: skip
def test_damaged_checkpoints(
    tmp_path: Path, kind: str, name: str, change: Any, problem: str
) -> None:
    save(tmp_path / "in", kind)
    damage(tmp_path / "in", GATE + name, change)
    with pytest.raises(DamagedModelError, match=problem):
        convert(tmp_path / "in", tmp_path / "out.qedge", tokenizer=BLOB)
    assert not (tmp_path / "out.qedge").exists()


def test_ctypes_rows_outlive_the_call(tmp_path: Path) -> None:
    save(tmp_path / "in", "nf4")
    with open_checkpoint(tmp_path / "in") as checkpoint:
        tensor = checkpoint.tensors[GATE + "weight"]
        rows = tensor.codes(0, 16)
        codes = bytes(memoryview(rows.codes).cast("B"))
        assert len(codes) == 16 * tensor.cols == ctypes.sizeof(rows.codes)
        assert max(codes) <= 15


def test_a_norm_is_never_quantized(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(tmp_path / "in", "nf4")
    tensors = load_file(tmp_path / "in" / "model.safetensors")
    name = "model.norm.weight.quant_state.bitsandbytes__nf4"
    tensors[name] = as_text(GOOD | {"shape": [128]})
    save_file(tensors, tmp_path / "in" / "model.safetensors")
    with pytest.raises(DamagedModelError, match="does not belong to a dense Qwen3 model"):
        convert(tmp_path / "in", tmp_path / "out.qedge", tokenizer=BLOB)
