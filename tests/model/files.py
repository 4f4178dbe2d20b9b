"""Small checkpoints and model files for the tests, made without the code under test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen_edge.model.config import ModelConfig, tensor_shapes

TINY = ModelConfig(
    hidden_size=96,
    intermediate_size=160,
    layers=2,
    heads=3,
    kv_heads=1,
    head_dim=32,
    vocab_size=261,
    max_positions=512,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    tied=True,
)
BLOB = b"a placeholder for the tokenizer"
Weights = Mapping[str, npt.NDArray[np.float32]]


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of N(0, 0.02), norms near 1, all exact in bf16."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in tensor_shapes(config).items():
        values = random.standard_normal(shape, np.float32) * np.float32(0.02)
        values += np.float32(len(shape) == 1)
        weights[name] = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    return weights


def encode(values: npt.NDArray[np.float32], dtype: str) -> bytes:
    """The bytes that safetensors stores for F32, F16 or BF16."""
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype({"F32": np.float32, "F16": np.float16}[dtype]).tobytes()


def write_safetensors(path: Path, tensors: Weights, dtype: str = "BF16") -> None:
    """Writes one file; its data begins at an odd offset."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        part = encode(values, dtype)
        span = [len(data), len(data) + len(part)]
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": span}
        data += part
    text = json.dumps(header).encode()
    text += b" " * (1 - len(text) % 2)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def config_json(config: ModelConfig) -> dict[str, Any]:
    """A config.json as transformers 4 writes it."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "eos_token_id": 2,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "max_window_layers": config.layers,
        "model_type": "qwen3",
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": config.vocab_size,
    }


def write_checkpoint(
    directory: Path,
    config: ModelConfig = TINY,
    *,
    dtype: str = "BF16",
    shards: int = 1,
    weights: Weights | None = None,
    **changes: Any,
) -> Weights:
    """Writes a checkpoint folder without a tokenizer; ``changes`` go into its config.json."""
    weights = random_weights(config) if weights is None else weights
    directory.mkdir(parents=True, exist_ok=True)
    table = {k: v for k, v in (config_json(config) | changes).items() if v != "absent"}
    (directory / "config.json").write_text(json.dumps(table))
    names = list(weights)
    if shards == 1:
        write_safetensors(directory / "model.safetensors", weights, dtype)
        return weights
    placed = {}
    for i in range(shards):
        shard = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: weights[name] for name in names[i::shards]}
        write_safetensors(directory / shard, part, dtype)
        placed |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return weights


def read_header(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a container."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(source: Path, target: Path, change: Callable[[Any, Any], object]) -> Path:
    """Copies a .qedge file; ``change`` edits its header and the table inside the metadata."""
    header, data = read_header(source)
    table = json.loads(header["__metadata__"]["qedge"])
    change(header, table)
    if "qedge" in header.get("__metadata__", {}):
        header["__metadata__"]["qedge"] = json.dumps(table)
    text = json.dumps(header).encode()
    text = text.ljust(-(-(len(text) + 8) // 64) * 64 - 8)
    target.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return target
