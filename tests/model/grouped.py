"""GPTQ and AWQ checkpoints by the formats' own rules, in numpy, without the code under test.

The integers are found by the plainest quantizer there is: the range of each group. How they are
packed follows AutoGPTQ's, GPTQModel's and AutoAWQ's files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from qwen_edge.model.config import ModelConfig
from tests.model.files import config_json

Floats = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass
class Grouped:
    """A matrix [rows, cols] of integers: a weight is (code - zero) * scale."""

    bits: int
    codes: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16]  # [rows, groups]
    zeros: npt.NDArray[np.uint8]  # likewise
    group_of: npt.NDArray[np.int32]  # [cols]

    def values(self) -> Floats:
        """The weights in fp32, rounded once."""
        zeros = self.zeros.astype(np.float32)[:, self.group_of]
        scales = self.scales.astype(np.float32)[:, self.group_of]
        return (self.codes.astype(np.float32) - zeros) * scales


@dataclass(frozen=True)
class Kind:
    """A way to quantize and to pack."""

    method: str = "gptq"
    bits: int = 4
    group: int = 32
    symmetric: bool = False
    act_order: bool = False
    version: str = "gptq"

    def settings(self) -> dict[str, Any]:
        """``quantization_config`` as the format's own tools write it."""
        common = {"quant_method": self.method, "bits": self.bits, "group_size": self.group}
        if self.method == "awq":
            return common | {
                "zero_point": not self.symmetric, "version": "gemm", "modules_to_not_convert": None,
            }  # fmt: skip
        return common | {
            "desc_act": self.act_order, "sym": self.symmetric, "damp_percent": 0.01,
            "checkpoint_format": self.version, "true_sequential": True, "pack_dtype": "int32",
        }  # fmt: skip


def groups_of(
    cols: int, kind: Kind, seed: int, importance: Floats | None = None
) -> npt.NDArray[np.int32]:
    """Which group each column is of; with act-order those of like importance go together."""
    group = cols if kind.group == -1 else kind.group
    order = np.arange(cols)
    if kind.act_order:
        random = np.random.default_rng(seed)
        order = random.permutation(cols) if importance is None else np.argsort(-importance)
    result = np.empty(cols, np.int32)
    result[order] = np.arange(cols) // group
    return result


def quantize(weights: Floats, kind: Kind, group_of: npt.NDArray[np.int32]) -> Grouped:
    """Each group's range in even steps."""
    top, groups = 2**kind.bits - 1, int(group_of.max()) + 1
    scales = np.empty((len(weights), groups), np.float16)
    zeros = np.empty((len(weights), groups), np.uint8)
    for g in range(groups):
        part = weights[:, group_of == g]
        low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
        if kind.symmetric:
            high = np.maximum(high, -low)
            low = -high
        scales[:, g] = np.maximum((high - low) / top, 1e-5)
        zero = (top + 1) / 2 if kind.symmetric else np.round(-low / scales[:, g].astype(np.float32))
        zeros[:, g] = np.clip(zero, 0, top)
    spread = scales.astype(np.float32)[:, group_of]
    codes = np.round(weights / spread) + zeros.astype(np.float32)[:, group_of]
    return Grouped(kind.bits, np.clip(codes, 0, top).astype(np.uint8), scales, zeros, group_of)


def random_grouped(kind: Kind, rows: int, cols: int, seed: int) -> Grouped:
    """Any codes, any zero points and any scales that fp16 has."""
    random = np.random.default_rng(seed)
    group_of = groups_of(cols, kind, seed)
    groups, top = int(group_of.max()) + 1, 2**kind.bits
    bits = random.integers(0, 0x7C00, (rows, groups)).astype(np.uint16)
    bits |= random.integers(0, 2, bits.shape).astype(np.uint16) << 15
    zeros = random.integers(0, top, bits.shape).astype(np.uint8)
    if kind.symmetric:
        zeros[:] = top // 2
    codes = random.integers(0, top, (rows, cols)).astype(np.uint8)
    return Grouped(kind.bits, codes, bits.view(np.float16), zeros, group_of)


def _pack_down(values: npt.NDArray[Any], bits: int) -> npt.NDArray[np.int32]:
    """Integers [n, m] into words [n * bits / 32, m], the first in the lowest bits."""
    n = 32 // bits
    words = np.zeros((values.shape[0] // n, values.shape[1]), np.uint32)
    for i in range(n):
        words |= values[i::n].astype(np.uint32) << np.uint32(bits * i)
    return words.view(np.int32)


def _pack_awq(values: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Integers [n, m] into words [n, m / 8], each eight in AutoAWQ's order."""
    words = np.zeros((values.shape[0], values.shape[1] // 8), np.uint32)
    for i, column in enumerate(AWQ_ORDER):
        words |= values[:, column::8].astype(np.uint32) << np.uint32(4 * i)
    return words.view(np.int32)


def packed(prefix: str, matrix: Grouped, kind: Kind) -> Arrays:
    """The tensors that a checkpoint has in place of ``prefix.weight``."""
    scales = np.ascontiguousarray(matrix.scales.T)
    if kind.method == "awq":
        words, zeros = _pack_awq(matrix.codes.T), _pack_awq(matrix.zeros.T)
        return {f"{prefix}.qweight": words, f"{prefix}.qzeros": zeros, f"{prefix}.scales": scales}
    stored = matrix.zeros.astype(np.int32) - (kind.version == "gptq")
    zeros = np.ascontiguousarray(_pack_down(stored & (2**kind.bits - 1), kind.bits).T)
    return {
        f"{prefix}.qweight": _pack_down(matrix.codes.T, kind.bits),
        f"{prefix}.qzeros": zeros,
        f"{prefix}.scales": scales,
        f"{prefix}.g_idx": matrix.group_of,
    }


def inputs_seed(name: str) -> int:
    """The same for matrices that take the same activations in, as their importance is."""
    for part in ("q_proj", "k_proj", "v_proj"):
        name = name.replace(part, "qkv")
    for part in ("gate_proj", "up_proj"):
        name = name.replace(part, "gate_up")
    return sum(map(ord, name))


def write_quantized(
    directory: Path,
    config: ModelConfig,
    weights: Mapping[str, Floats],
    kind: Kind,
    *,
    extra: Arrays | None = None,
    importance: Mapping[str, Floats] | None = None,
    **changes: Any,
) -> dict[str, Floats]:
    """Writes a checkpoint whose projections are quantized; returns the weights it stands for.

    Args:
        directory: made if need be.
        config: of the model.
        weights: by name; what is no projection is stored in fp16.
        kind: how to quantize and to pack.
        importance: of the columns of each projection, random if not given.
        extra: tensors to add or, by name, to replace; None as an array leaves one out.
        changes: of config.json.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stored: Arrays = {}
    meant: dict[str, Floats] = {}
    for name, values in weights.items():
        if name.endswith("_proj.weight"):
            weighed = importance[name] if importance else None
            group_of = groups_of(values.shape[1], kind, inputs_seed(name), weighed)
            matrix = quantize(values, kind, group_of)
            stored |= packed(name.removesuffix(".weight"), matrix, kind)
            meant[name] = matrix.values()
        else:
            stored[name] = values.astype(np.float16)
            meant[name] = stored[name].astype(np.float32)
    stored |= extra or {}
    save_file({k: v for k, v in stored.items() if v is not None}, directory / "model.safetensors")
    table = config_json(config) | {"quantization_config": kind.settings()} | changes
    (directory / "config.json").write_text(json.dumps(table))
    return meant
