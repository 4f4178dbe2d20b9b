"""transformers as the oracle: random checkpoints, and the weights a model file really holds.

The dequantization here is written from the layout's description alone, in numpy, so that an error
in the library's own reader cannot hide.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from qwen_edge.engine.interface import Engine, EngineConfig, Logits, Row
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import PackedModel, TensorInfo, open_model
from qwen_edge.model.synthetic import byte_tokenizer_json

# Of the demo model's texts that the likeliest tokens are compared over.
POSITIONS = 2000
# Each is odd in another way: hidden 96, one KV head, a vocabulary that is no multiple of 16.
SHAPES: dict[str, dict[str, Any]] = {
    "one-layer": {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 1,
                  "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 32,
                  "vocab_size": 1003, "tie_word_embeddings": True},
    "untied": {"hidden_size": 128, "intermediate_size": 200, "num_hidden_layers": 5,
               "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
               "vocab_size": 517, "tie_word_embeddings": False},
    "wide-heads": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 3,
                   "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 128,
                   "vocab_size": 333, "tie_word_embeddings": True},
    "narrow": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 5,
               "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32,
               "vocab_size": 401, "tie_word_embeddings": False},
}  # fmt: skip


def random_model(
    shape: dict[str, Any], seed: int = 0, max_positions: int = 4096
) -> Qwen3ForCausalLM:
    """A Qwen3 with transformers' initial weights and norms that are not 1."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        max_position_embeddings=max_positions,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        **shape,
    )
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
    return model


def save_checkpoint(model: Qwen3ForCausalLM, directory: Path) -> Path:
    """Writes the checkpoint as transformers does, with a tokenizer of single bytes."""
    model.save_pretrained(directory)
    definition = json.loads(byte_tokenizer_json())
    vocab = definition["model"]["vocab"]
    # Qwen's own ids of the control tokens lie beyond these small vocabularies.
    for i, token in enumerate(definition["added_tokens"]):
        vocab[token["content"]] = token["id"] = 256 + i
    (directory / "tokenizer.json").write_text(json.dumps(definition))
    return directory


def raw_bytes(model: PackedModel, info: TensorInfo) -> np.ndarray:
    """The tensor's bytes in the file, copied."""
    data = ctypes.string_at(model.address(info.name), info.nbytes)
    return np.frombuffer(data, np.uint8)


def dequantize(model: PackedModel, info: TensorInfo) -> np.ndarray:
    """The tensor's values, fp32 [rows, cols]."""
    data = raw_bytes(model, info)
    if info.type == "f32":
        return data.view(np.float32).reshape(info.rows, info.cols)
    if info.type == "f16":
        return data.view(np.float16).astype(np.float32).reshape(info.rows, info.cols)
    if info.type == "bf16":
        bits = data.view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(info.rows, info.cols)
    tiles, groups, g = -(-info.rows // 16), -(-info.cols // info.group), info.group
    blocks = data.reshape(tiles, groups, -1)
    code_bytes = g * (8 if info.type == "q4" else 16)
    codes, rest = blocks[..., :code_bytes], blocks[..., code_bytes:]
    scales = np.ascontiguousarray(rest).view(np.float16).astype(np.float32)
    if info.type == "q4":
        chunks = codes.reshape(tiles, groups, g // 8, 16, 4)
        nibbles = np.stack([chunks & 15, chunks >> 4], axis=-2)  # tile group chunk row half i
        values = np.array(info.codebook, np.int8)[nibbles]
        values = values.transpose(0, 3, 1, 2, 4, 5)
    else:
        values = codes.view(np.int8).reshape(tiles, groups, g // 4, 16, 4)
        values = values.transpose(0, 3, 1, 2, 4)
    values = values.reshape(tiles, 16, groups, g).astype(np.float32)
    if info.has_zero:
        values -= scales[..., 16:].transpose(0, 2, 1)[..., None]
    values *= scales[..., :16].transpose(0, 2, 1)[..., None]
    if info.has_min and not info.has_zero:
        values += scales[..., 16:].transpose(0, 2, 1)[..., None]
    return values.reshape(tiles * 16, groups * g)[: info.rows, : info.cols]


def take_weights(model: Qwen3ForCausalLM, packed: PackedModel) -> None:
    """Replaces the oracle's weights by those that the file holds."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.from_numpy(dequantize(packed, packed.tensors[name]).copy())
            parameter.data = values.reshape(parameter.shape)


def oracle_of(packed: PackedModel) -> Qwen3ForCausalLM:
    """transformers with the shape and the weights of a model file."""
    c = packed.config
    shape = {
        "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim,
        "vocab_size": c.vocab_size, "tie_word_embeddings": c.tied,
    }  # fmt: skip
    model = random_model(shape)
    base = torch.tensor(c.rope_theta, dtype=torch.float64)
    steps = torch.arange(0, c.head_dim, 2, dtype=torch.float64) / c.head_dim
    model.model.rotary_emb.inv_freq = (1.0 / base**steps).float()
    take_weights(model, packed)
    return model


def oracle_logits(model: Qwen3ForCausalLM, ids: list[int]) -> np.ndarray:
    """fp32 [tokens, vocab]."""
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([ids])).logits[0].float().numpy()
    return logits


def array(logits: Logits) -> np.ndarray:
    """A copy of one row of logits."""
    buffer = (ctypes.c_float * logits.size).from_address(logits.address)
    return np.ctypeslib.as_array(buffer).copy()


def engine_logits(engine: Engine, ids: list[int], chunk: int = 10_000) -> np.ndarray:
    """fp32 [tokens, vocab] of a fresh sequence, computed in calls of at most ``chunk`` rows."""
    chunk = min(chunk, engine.config.prefill_rows)
    engine.truncate(0)
    rows = [Row(0, i, token, True) for i, token in enumerate(ids)]
    parts = [rows[i : i + chunk] for i in range(0, len(rows), chunk)]
    return np.stack([array(logits) for part in parts for logits in engine.forward(part)])


def native_logits(packed: PackedModel, ids: list[int], **config: Any) -> np.ndarray:
    """``engine_logits`` of a native engine made for it."""
    settings = {"context": len(ids), "threads": 2, "prefill_rows": 64} | config
    with NativeEngine(packed, EngineConfig(**settings)) as engine:
        return engine_logits(engine, ids)


def relative_error(values: np.ndarray, truth: np.ndarray) -> float:
    """L2 norm of the difference over the L2 norm of the truth."""
    return float(np.linalg.norm(values - truth) / np.linalg.norm(truth))


def set_weights(oracle: Qwen3ForCausalLM, weights: Mapping[str, np.ndarray]) -> None:
    """Gives every parameter the weights of its name."""
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            parameter.data = torch.from_numpy(weights[name].copy()).reshape(parameter.shape)


def agreement(path: Path, texts: Sequence[list[int]], truth: Sequence[np.ndarray]) -> list[float]:
    """Shares of the positions whose likeliest token is the truth's, with fp32 and with INT8."""
    shares = []
    assert sum(map(len, texts)) >= POSITIONS
    with open_model(path) as packed:
        for options in ({"kv_type": "f32", "activations": "f32"}, {"kv_type": "f16"}):
            ours = [native_logits(packed, ids, **options).argmax(1) for ids in texts]
            pairs = zip(ours, truth, strict=True)
            same = [a == b.argmax(1) for a, b in pairs]
            shares.append(float(np.concatenate(same).mean()))
    return shares
