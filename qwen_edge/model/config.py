"""The numbers that make a dense Qwen3 model, and the tensors that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwen_edge.model.container import ContainerError, show

ARCHITECTURE = "qwen3"
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
ORDERED = {
    "self_attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o": ("self_attn.o_proj",),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down": ("mlp.down_proj",),
}
"""The matrices of a layer that take the same activations in, and so share a column order."""
# What the native library computes; far beyond any real model.
LARGEST_DIMENSION = 1 << 20
MOST_LAYERS = 1024
MOST_QUERIES = 1 << 16
_MOST_STOP_IDS = 64


@dataclass(frozen=True)
class ModelConfig:
    """Qwen3's own configuration, by plain names.

    Attributes:
        hidden_size: width of the residual stream.
        intermediate_size: width of the feed-forward layer.
        layers: number of transformer layers.
        heads: query heads.
        kv_heads: key and value heads; ``heads`` is a multiple.
        head_dim: width of a head.
        vocab_size: rows of the embedding.
        max_positions: the longest context it was trained for.
        rms_norm_eps: added to the mean square in RMSNorm.
        rope_theta: base of the rotary embedding.
        tied: whether the embedding is the head, too.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    rms_norm_eps: float
    rope_theta: float
    tied: bool


@dataclass(frozen=True)
class GenerationDefaults:
    """How the model's makers sample it.

    Attributes:
        temperature: 0 means greedy.
        top_k: 0 keeps all.
        top_p: 1 keeps all.
        stop_ids: tokens that end an answer.
    """

    temperature: float
    top_k: int
    top_p: float
    stop_ids: tuple[int, ...]


def integer(table: Mapping[str, Any], key: str, least: int, most: int) -> int:
    """A whole number of a JSON object.

    Raises:
        ContainerError: it is missing, of another type or out of range.
    """
    value = table.get(key)
    if type(value) is not int or not least <= value <= most:
        raise ContainerError(f"{key} is {show(value)}, not a number from {least} to {most}")
    return value


def number(table: Mapping[str, Any], key: str, least: float, most: float) -> float:
    """A number of a JSON object; raises like ``integer``."""
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ContainerError(f"{key} is {show(value)}, not a number from {least:g} to {most:g}")
    return float(value)


def config_from(table: Mapping[str, Any]) -> ModelConfig:
    """Reads and checks the fields of ``ModelConfig``.

    Raises:
        ContainerError: a field is missing or out of range, or they do not go together.
    """
    size = LARGEST_DIMENSION
    tied = table.get("tied")
    if not isinstance(tied, bool):
        raise ContainerError(f"tied is {show(tied)}, not true or false")
    config = ModelConfig(
        hidden_size=integer(table, "hidden_size", 1, size),
        intermediate_size=integer(table, "intermediate_size", 1, size),
        layers=integer(table, "layers", 1, MOST_LAYERS),
        heads=integer(table, "heads", 1, MOST_QUERIES),
        kv_heads=integer(table, "kv_heads", 1, MOST_QUERIES),
        head_dim=integer(table, "head_dim", 32, 1024),
        vocab_size=integer(table, "vocab_size", 1, size),
        max_positions=integer(table, "max_positions", 1, size),
        rms_norm_eps=number(table, "rms_norm_eps", 0, 0.1),
        rope_theta=number(table, "rope_theta", 1, 1e12),
        tied=tied,
    )
    if config.head_dim % 32:
        raise ContainerError(f"head_dim is {config.head_dim}, not a multiple of 32")
    if config.heads % config.kv_heads or config.heads * config.head_dim > MOST_QUERIES:
        raise ContainerError(
            f"{config.heads} heads and {config.kv_heads} key heads of {config.head_dim} "
            "do not go together"
        )
    return config


def generation_from(table: Mapping[str, Any], vocab_size: int) -> GenerationDefaults:
    """Reads and checks the fields of ``GenerationDefaults``; raises like ``config_from``."""
    stop_ids = table.get("stop_ids")
    if (
        not isinstance(stop_ids, list)
        or len(stop_ids) > _MOST_STOP_IDS
        or not all(type(token) is int and 0 <= token < vocab_size for token in stop_ids)
    ):
        raise ContainerError("stop_ids is not a list of token ids")
    return GenerationDefaults(
        temperature=number(table, "temperature", 0, 100),
        top_k=integer(table, "top_k", 0, LARGEST_DIMENSION),
        top_p=number(table, "top_p", 0, 1),
        stop_ids=tuple(stop_ids),
    )


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the architecture by its Hugging Face name, in the order of use.

    Matrices are [out, in], vectors (the norms) [n].
    """
    hidden, queries = config.hidden_size, config.heads * config.head_dim
    keys, wide = config.kv_heads * config.head_dim, config.intermediate_size
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.q_norm": (config.head_dim,),
        "self_attn.k_norm": (config.head_dim,),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, hidden)}
    for i in range(config.layers):
        shapes |= {f"model.layers.{i}.{part}.weight": shape for part, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config.tied:
        shapes[HEAD] = (config.vocab_size, hidden)
    return shapes


def order_shapes(config: ModelConfig) -> dict[str, int]:
    """Columns of the matrices that may share an order, by the order's name; see packed.py."""
    queries = config.heads * config.head_dim
    widths = (config.hidden_size, queries, config.hidden_size, config.intermediate_size)
    return {
        name: width
        for i in range(config.layers)
        for name, width in zip(layer_orders(i), widths, strict=True)
    }


def layer_orders(layer: int) -> tuple[str, ...]:
    """Names of the column orders that a layer may have, in the order in which they are used."""
    return tuple(f"model.layers.{layer}.{inputs}.order" for inputs in ORDERED)


def parameter_count(config: ModelConfig) -> int:
    """Weights of the model, a tied embedding counted once."""
    return sum(math.prod(shape) for shape in tensor_shapes(config).values())
