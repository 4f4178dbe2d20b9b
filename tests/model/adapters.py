"""LoRA adapters for the tests, written as PEFT's documentation describes its files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen_edge.model.config import ModelConfig, tensor_shapes
from tests.model.files import Weights, write_safetensors

PROJECTIONS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
Values = npt.NDArray[np.float32]


def rounded(values: Values) -> Values:
    """Values that bf16 holds exactly."""
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)


def random_pairs(
    config: ModelConfig,
    rank: int,
    seed: int = 0,
    projections: Sequence[str] = PROJECTIONS,
    layers: Sequence[int] | None = None,
    size: float = 1.0,
) -> dict[str, tuple[Values, Values]]:
    """A and B of modules, exact in bf16: with alpha = rank they move the weights a good deal."""
    random = np.random.default_rng(seed)
    shapes, pairs = tensor_shapes(config), {}
    for layer in range(config.layers) if layers is None else layers:
        for projection in projections:
            name = f"model.layers.{layer}.{projection}"
            out, into = shapes[f"{name}.weight"]
            a = random.standard_normal((rank, into), np.float32) / np.float32(np.sqrt(into))
            b = random.standard_normal((out, rank), np.float32) * np.float32(0.1 * size)
            pairs[name] = (rounded(a), rounded(b / np.float32(np.sqrt(rank))))
    return pairs


def peft_tensors(pairs: Mapping[str, tuple[Values, Values]]) -> dict[str, Values]:
    """The tensors of adapter_model.safetensors."""
    return {
        f"base_model.model.{name}.lora_{letter}.weight": values
        for name, pair in pairs.items()
        for letter, values in zip("AB", pair, strict=True)
    }


def settings_json(rank: int, **changes: Any) -> dict[str, Any]:
    """An adapter_config.json as PEFT 0.17 writes it."""
    table = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": "Qwen/Qwen3-0.6B",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "target_modules": [name.rpartition(".")[2] for name in PROJECTIONS],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    } | changes
    return {key: value for key, value in table.items() if value != "absent"}


def write_adapter(
    folder: Path,
    pairs: Mapping[str, tuple[Values, Values]],
    rank: int,
    *,
    dtype: str = "F32",
    tensors: Weights | None = None,
    **changes: Any,
) -> Path:
    """Writes an adapter's folder; ``changes`` go into its settings, ``tensors`` replace all."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings_json(rank, **changes)))
    stored = peft_tensors(pairs) if tensors is None else tensors
    write_safetensors(folder / "adapter_model.safetensors", stored, dtype)
    return folder


def merged_weights(
    weights: Weights, pairs: Mapping[str, tuple[Values, Values]], scale: float
) -> dict[str, Values]:
    """W + scale * B A, summed in double."""
    result = dict(weights)
    for name, (a, b) in pairs.items():
        update = scale * (b.astype(np.float64) @ a.astype(np.float64))
        result[f"{name}.weight"] = (result[f"{name}.weight"] + update).astype(np.float32)
    return result
