"""Checkpoints of bitsandbytes and in FP8 with random codes, made without their libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from qwen_edge.model.config import ModelConfig, tensor_shapes
from tests.fuzz.mutations import Contents, Held, as_file
from tests.model.files import config_json, encode, random_weights

BLOCK, NESTED_BLOCK = 64, 256
FP8_BLOCK = (64, 48)


def _held(values: Any, dtype: str) -> Held:
    return Held(dtype, list(values.shape), np.ascontiguousarray(values).tobytes())


def four_bit(name: str, shape: tuple[int, ...], kind: str, nested: bool) -> dict[str, Held]:
    """The tensors of an NF4 or FP4 matrix."""
    random = np.random.default_rng(len(name))
    count = int(np.prod(shape))
    blocks = -(-count // BLOCK)
    state: dict[str, Any] = {
        "quant_type": kind, "blocksize": BLOCK, "dtype": "bfloat16", "shape": list(shape),
    }  # fmt: skip
    levels = np.sort(random.uniform(-1, 1, 16)).astype(np.float32)
    tensors = {
        name: _held(random.integers(0, 256, (-(-count // 2), 1), np.uint8), "U8"),
        f"{name}.quant_map": _held(levels, "F32"),
    }
    if nested:
        state |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32", "nested_offset": 0.1}
        scales = random.uniform(0.01, 0.05, -(-blocks // NESTED_BLOCK)).astype(np.float32)
        tensors |= {
            f"{name}.absmax": _held(random.integers(0, 256, blocks, np.uint8), "U8"),
            f"{name}.nested_absmax": _held(scales, "F32"),
            f"{name}.nested_quant_map": _held(np.linspace(-1, 1, 256, dtype=np.float32), "F32"),
        }
    else:
        scales = random.uniform(0.01, 0.05, blocks).astype(np.float32)
        tensors[f"{name}.absmax"] = _held(scales, "F32")
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    tensors[f"{name}.quant_state.bitsandbytes__{kind}"] = _held(text, "U8")
    return tensors


def eight_bit(name: str, shape: tuple[int, ...]) -> dict[str, Held]:
    """The tensors of an LLM.int8 matrix."""
    random = np.random.default_rng(len(name))
    prefix = name.removesuffix("weight")
    return {
        name: _held(random.integers(-127, 128, shape, np.int8), "I8"),
        f"{prefix}SCB": _held(random.uniform(0.01, 0.1, shape[0]).astype(np.float32), "F32"),
        f"{prefix}weight_format": _held(np.zeros(1, np.uint8), "U8"),
    }


def fp8(name: str, shape: tuple[int, ...]) -> dict[str, Held]:
    """The tensors of an FP8 matrix."""
    random = np.random.default_rng(len(name))
    blocks = [-(-size // block) for size, block in zip(shape, FP8_BLOCK, strict=True)]
    # 127 is not a number.
    codes = random.integers(0, 127, shape, np.uint8)
    return {
        name: _held(codes, "F8_E4M3"),
        f"{name}_scale_inv": _held(random.uniform(1e-4, 1e-3, blocks).astype(np.float32), "F32"),
    }


def write_foreign(folder: Path, kind: str, config: ModelConfig) -> Path:
    """Writes a checkpoint of a kind: ``nf4``, ``fp4``, ``nf4-nested``, ``int8`` or ``fp8``."""
    folder.mkdir(parents=True)
    tensors: dict[str, Held] = {}
    weights = random_weights(config)
    for name, shape in tensor_shapes(config).items():
        if not name.endswith("_proj.weight"):
            tensors[name] = Held("BF16", list(shape), encode(weights[name], "BF16"))
        elif kind == "int8":
            tensors |= eight_bit(name, shape)
        elif kind == "fp8":
            tensors |= fp8(name, shape)
        else:
            tensors |= four_bit(name, shape, kind[:3], kind.endswith("nested"))
    (folder / "model.safetensors").write_bytes(as_file(Contents({"format": "pt"}, tensors)))
    settings = {
        "quant_method": "fp8" if kind == "fp8" else "bitsandbytes",
        "load_in_8bit": kind == "int8",
        "load_in_4bit": kind[:3] in ("nf4", "fp4"),
        **({"weight_block_size": list(FP8_BLOCK)} if kind == "fp8" else {}),
    }
    table = config_json(config) | {"quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(table))
    return folder
