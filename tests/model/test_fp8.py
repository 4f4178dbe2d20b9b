"""FP8 checkpoints: torch's own float8 is the oracle for the values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.checkpoint import open_checkpoint
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import open_model
from qwen_edge.quant.packing import dequantize
from tests.model.files import BLOB, TINY, config_json, random_weights

QUERY = "model.layers.0.self_attn.q_proj.weight"
BLOCK = (64, 48)


def fp8_checkpoint(folder: Path, scale_type: torch.dtype) -> dict[str, npt.NDArray[np.float32]]:
    """Writes one whose projections are FP8 in blocks; returns what its weights are."""
    folder.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for name, values in random_weights(TINY).items():
        tensor = torch.from_numpy(values.copy())
        if values.ndim == 1 or "embed" in name:
            tensors[name], weights[name] = tensor.bfloat16(), values
            continue
        rows, cols = values.shape
        blocks = (-(-rows // BLOCK[0]), -(-cols // BLOCK[1]))
        scales = torch.rand(blocks).mul(0.002).add(0.0002).to(scale_type)
        wide = scales.float().repeat_interleave(BLOCK[0], 0).repeat_interleave(BLOCK[1], 1)
        wide = wide[:rows, :cols]
        codes = (tensor / wide).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors[name], tensors[f"{name}_scale_inv"] = codes, scales
        weights[name] = (codes.float() * wide).numpy()
    save_file(tensors, folder / "model.safetensors")
    table = config_json(TINY) | {
        "quantization_config": {
            "activation_scheme": "dynamic",
            "quant_method": "fp8",
            "weight_block_size": list(BLOCK),
        }
    }
    (folder / "config.json").write_text(json.dumps(table))
    return weights


@pytest.mark.parametrize("scale_type", [torch.float32, torch.bfloat16])
def test_floats_are_torchs_bit_for_bit(tmp_path: Path, scale_type: torch.dtype) -> None:
    weights = fp8_checkpoint(tmp_path / "in", scale_type)
    with open_checkpoint(tmp_path / "in") as checkpoint:
        tensor = checkpoint.tensors[QUERY]
        assert tensor.held is None
        for begin, rows in ((0, tensor.rows), (61, 7)):
            found = np.ctypeslib.as_array(tensor.floats(begin, rows).data)
            assert np.array_equal(found.reshape(rows, -1), weights[QUERY][begin : begin + rows])
            tensor.release(begin, rows)


@pytest.mark.parametrize(("bits", "kind", "most"), [(None, "q8", 0.006), (4, "q4", 0.11)])
def test_conversion(tmp_path: Path, bits: int | None, kind: str, most: float) -> None:
    weights = fp8_checkpoint(tmp_path / "in", torch.bfloat16)
    made = convert(tmp_path / "in", tmp_path / "out.qedge", bits=bits, tokenizer=BLOB)
    assert made.kept == 0
    with open_model(tmp_path / "out.qedge") as model:
        for name, values in weights.items():
            info = model.tensors[name]
            if values.ndim == 1:
                continue
            assert info.type == kind
            output = np.empty_like(values)
            dequantize(info.layout, model.address(name), output.ctypes.data)
            assert np.linalg.norm(output - values) < most * np.linalg.norm(values)


def test_every_code(tmp_path: Path) -> None:
    weights = fp8_checkpoint(tmp_path / "in", torch.float32)
    codes = torch.arange(tensor_count(), dtype=torch.int64) % 256
    # The two NaNs are refused; here they are zeros.
    codes[(codes & 127) == 127] = 0
    expected = codes.to(torch.uint8).view(torch.float8_e4m3fn).reshape(weights[QUERY].shape)
    change(tmp_path / "in", {QUERY: expected}, {f"{QUERY}_scale_inv": lambda t: t.fill_(1.0)})
    with open_checkpoint(tmp_path / "in") as checkpoint:
        tensor = checkpoint.tensors[QUERY]
        found = np.ctypeslib.as_array(tensor.floats(0, tensor.rows).data)
    assert np.array_equal(found, expected.float().numpy().ravel())


def tensor_count() -> int:
    rows, cols = tensor_shapes(TINY)[QUERY]
    return rows * cols


def change(folder: Path, tensors: dict[str, torch.Tensor], changes: dict[str, Any]) -> None:
    from safetensors.torch import load_file

    stored = load_file(folder / "model.safetensors") | tensors
    for name, how in changes.items():
        stored[name] = how(stored[name])
    save_file(stored, folder / "model.safetensors")


def refused(folder: Path) -> str:
    with pytest.raises(DamagedModelError) as caught:
        convert(folder, folder.parent / "out.qedge", tokenizer=BLOB)
    assert not (folder.parent / "out.qedge").exists()
    return str(caught.value)


def test_damaged_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    fp8_checkpoint(folder, torch.float32)
    table = json.loads((folder / "config.json").read_text())
    for block in (None, [64], [64, 0], [64, "48"], [64, 1 << 40]):
        table["quantization_config"]["weight_block_size"] = block
        (folder / "config.json").write_text(json.dumps(table))
        assert "weight_block_size is" in refused(folder)
    table["quantization_config"]["weight_block_size"] = [128, 128]
    (folder / "config.json").write_text(json.dumps(table))
    assert "has no factors for its 1 blocks" in refused(folder)


def test_a_weight_that_is_not_a_number(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    fp8_checkpoint(folder, torch.float32)
    change(folder, {}, {QUERY: lambda t: put_nan(t)})
    assert "row 3, column 5 is not a number" in refused(folder)


def put_nan(tensor: torch.Tensor) -> torch.Tensor:
    codes = tensor.view(torch.uint8).clone()
    codes[3, 5] = 0xFF
    return codes.view(torch.float8_e4m3fn)


def test_factors_that_are_not_finite(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    fp8_checkpoint(folder, torch.float32)
    change(folder, {}, {f"{QUERY}_scale_inv": lambda t: t * float("inf")})
    assert "is not a finite number" in refused(folder)


def test_a_norm_is_never_fp8(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    fp8_checkpoint(folder, torch.float32)
    change(folder, {}, {"model.norm.weight": lambda t: t.to(torch.float8_e4m3fn)})
    assert "its tensor model.norm.weight is F8_E4M3, not F32, F16 or BF16" in refused(folder)
