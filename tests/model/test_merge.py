"""Adapters merged into a conversion, against W + scale * B A from the format's description."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import open_model
from tests.engine.oracle import dequantize
from tests.model.adapters import merged_weights, random_pairs, write_adapter
from tests.model.files import BLOB, TINY, write_checkpoint


def floats_of(path: Path) -> dict[str, Any]:
    with open_model(path) as packed:
        return {
            name: dequantize(packed, info)
            for name, info in packed.tensors.items()
            if name != "tokenizer"
        }


def assert_close(found: Mapping[str, Any], truth: Mapping[str, Any], limit: float) -> None:
    for name, values in truth.items():
        difference = np.linalg.norm(found[name].reshape(values.shape) - values)
        assert difference <= limit * np.linalg.norm(values), name


@pytest.mark.parametrize("rank", [1, 3, 16, 100, 256])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_merged_weights(tmp_path: Path, rank: int, dtype: str) -> None:
    weights = write_checkpoint(tmp_path / "hf")
    pairs = random_pairs(TINY, rank)
    adapter = write_adapter(tmp_path / "mine", pairs, rank, dtype=dtype, lora_alpha=2 * rank)
    # bf16 keeps 8 bits: what it rounds is all that may be off.
    limit = 2**-8
    convert(
        tmp_path / "hf", tmp_path / "m.qedge", bits=16, tokenizer=BLOB, adapters=[(adapter, 0.5)]
    )
    found = floats_of(tmp_path / "m.qedge")
    assert_close(found, merged_weights(weights, pairs, 1.0), limit)
    moved = found[f"{next(iter(pairs))}.weight"] - weights[f"{next(iter(pairs))}.weight"]
    assert np.linalg.norm(moved) > 0.5 * np.linalg.norm(weights[f"{next(iter(pairs))}.weight"])


def test_several_adapters_add_up(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "hf")
    first = random_pairs(TINY, 4, seed=1, projections=["self_attn.q_proj", "mlp.down_proj"])
    second = random_pairs(TINY, 9, seed=2, projections=["mlp.down_proj"], layers=[1])
    adapters = [
        (write_adapter(tmp_path / "a", first, 4), 1.0),
        (write_adapter(tmp_path / "b", second, 9), -0.5),
    ]
    convert(tmp_path / "hf", tmp_path / "m.qedge", bits=16, tokenizer=BLOB, adapters=adapters)
    truth = merged_weights(merged_weights(weights, first, 1.0), second, -0.5)
    assert_close(floats_of(tmp_path / "m.qedge"), truth, 2**-8)
    with open_model(tmp_path / "m.qedge") as packed:
        assert packed.quantization["merged"] == "a x 1, b x -0.5"


def test_the_merged_weights_are_what_is_quantized(tmp_path: Path) -> None:
    """Converting with an adapter gives the file of a checkpoint that has it merged, bit for bit."""
    weights = write_checkpoint(tmp_path / "hf", dtype="F32")
    # Few bits each, so that their products and sums are exact in any order.
    pairs = {
        name: (np.sign(a).astype(np.float32), np.sign(b).astype(np.float32) / 64)
        for name, (a, b) in random_pairs(TINY, 4).items()
    }
    exact = merged_weights(weights, pairs, 1.0)
    adapter = write_adapter(tmp_path / "mine", pairs, 4)
    write_checkpoint(tmp_path / "merged", dtype="F32", weights=exact)
    files = []
    for name, adapters in (("hf", [(adapter, 1.0)]), ("merged", [])):
        path = tmp_path / f"{name}.qedge"
        convert(tmp_path / name, path, tokenizer=BLOB, adapters=adapters)
        files.append(floats_of(path))
    for name, values in files[1].items():
        assert np.array_equal(files[0][name], values), name


def test_a_damaged_adapter_leaves_no_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hf")
    pairs = random_pairs(TINY, 4)
    pairs["model.layers.1.mlp.down_proj"][0][0, 0] = np.nan
    adapter = write_adapter(tmp_path / "mine", pairs, 4)
    with pytest.raises(DamagedModelError, match=r"adapter.*not finite"):
        convert(tmp_path / "hf", tmp_path / "m.qedge", tokenizer=BLOB, adapters=[(adapter, 1.0)])
    assert not (tmp_path / "m.qedge").exists()
