"""Qwen3 in PyTorch: the whole model to read, to change, and to hold other engines against.

Weights stay as they lie in the model file, mapped and packed; the operators of operators.py
multiply by them there. All else is ordinary torch. The architecture is that of transformers'
``Qwen3ForCausalLM``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qwen_edge.model.config import EMBEDDING, HEAD, ORDERED, ModelConfig
from qwen_edge.model.packed import PackedModel
from qwen_edge.quant.layout import Layout
from qwen_edge.quant.native_layout import native_layout

_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

Operators = Any
"""A namespace of operators: ``torch.ops.qwen_edge``, or another with the same."""
RunLayers = Callable[..., Tensor]
"""``run_layers``, or what was compiled from it."""


class Projection(nn.Module):
    """Matrices that take the same activations in; what comes out lies side by side.

    Args:
        parts: name -> layout [rows, cols] of each; all have the same columns.
        ordered: whether the columns are in an order of their own.
        operators: compute it.
        fp32: whether activations stay fp32; else they are quantized to INT8 in groups of 32.
    """

    order: Tensor | None

    def __init__(
        self, parts: dict[str, Layout], ordered: bool, operators: Operators, fp32: bool
    ) -> None:
        super().__init__()
        self.names = tuple(parts)
        self.rows = sum(layout.rows for layout in parts.values())
        self.fp32 = fp32
        self.linear = operators.linear.default
        for name, layout in parts.items():
            self.register_buffer(name, torch.empty(stored_shape(layout), dtype=stored_type(layout)))
        columns = next(iter(parts.values())).cols
        order = torch.empty(columns, dtype=torch.int32) if ordered else None
        self.register_buffer("order", order)
        self.register_buffer("layouts", _layouts(list(parts.values())), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, cols] to [n, rows]."""
        weights = [getattr(self, name) for name in self.names]
        y: Tensor = self.linear(x, weights, self.layouts, self.order, self.rows, self.fp32)
        return y


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension of ``size``."""

    def __init__(self, size: int, eps: float, operators: Operators) -> None:
        super().__init__()
        self.eps = eps
        self.rms_norm = operators.rms_norm.default
        self.register_buffer("weight", torch.empty(size))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rms_norm(x, self.weight, self.eps)
        return y


class Attention(nn.Module):
    """Grouped-query attention with normalized queries and keys, over the KV cache."""

    def __init__(
        self, config: ModelConfig, qkv: Projection, o: Projection, operators: Operators, kv: int
    ) -> None:
        super().__init__()
        self.qkv, self.o = qkv, o
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.head_dim = config.head_dim
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps, operators)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps, operators)
        self.rotate = operators.rotate.default
        self.attention = operators.attention.default
        self.kv_type = kv

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], cache: Tensor, rows: tuple[Tensor, Tensor]
    ) -> Tensor:
        heads = self.qkv(x).view(-1, self.heads + 2 * self.kv_heads, self.head_dim)
        query, key, value = heads.split((self.heads, self.kv_heads, self.kv_heads), 1)
        query = self.rotate(self.q_norm(query), *rope)
        key = self.rotate(self.k_norm(key), *rope)
        attended = self.attention(
            query, key, value, cache, rows[0], rows[1], self.kv_type, self.qkv.fp32
        )
        y: Tensor = self.o(attended)
        return y


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, gate_up: Projection, down: Projection, operators: Operators) -> None:
        super().__init__()
        self.gate_up, self.down = gate_up, down
        self.silu_mul = operators.silu_mul.default

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.silu_mul(self.gate_up(x)))
        return y


class Layer(nn.Module):
    """Attention and feed-forward, each on the normalized residual stream and added to it."""

    def __init__(
        self, config: ModelConfig, self_attn: Attention, mlp: FeedForward, operators: Operators
    ) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, operators)
        self.self_attn = self_attn
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, operators)
        self.mlp = mlp

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], cache: Tensor, rows: tuple[Tensor, Tensor]
    ) -> Tensor:
        """One layer of some rows.

        Args:
            x: residual stream, fp32 [n, hidden].
            rope: cosine and sine of the positions' angles, fp32 [n, head_dim / 2] each.
            cache: the layer's KV cache, uint8 [sequences, kv_heads, 2, blocks, bytes of a block];
                written to at the rows' positions.
            rows: sequence and position of each row, int64 [n] each.
        """
        x = x + self.self_attn(self.input_layernorm(x), rope, cache, rows)
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


def run_layers(
    layers: Iterable[nn.Module],
    x: Tensor,
    rope: tuple[Tensor, Tensor],
    caches: Iterable[Tensor],
    rows: tuple[Tensor, Tensor],
) -> Tensor:
    """Runs layers one after the other; arguments are those of ``Layer.forward``."""
    for layer, cache in zip(layers, caches, strict=True):
        x = layer(x, rope, cache, rows)
    return x


class Qwen3(nn.Module):
    """The model.

    Args:
        model: the file that says which tensors there are and how they lie.
        operators: see ``Operators``.
        kv_type: number of the KV cache's type; see native/isa/isa.h.
        fp32: whether activations stay fp32.
    """

    frequencies: Tensor

    def __init__(
        self, model: PackedModel, operators: Operators, kv_type: int, *, fp32: bool = False
    ) -> None:
        super().__init__()
        config = model.config
        tensors = model.tensors

        def projection(prefix: str, inputs: str) -> Projection:
            parts = {
                part.rpartition(".")[2]: tensors[f"{prefix}.{part}.weight"].layout
                for part in ORDERED[inputs]
            }
            return Projection(parts, f"{prefix}.{inputs}.order" in tensors, operators, fp32)

        def layer(prefix: str) -> Layer:
            qkv, o, gate_up, down = (projection(prefix, inputs) for inputs in ORDERED)
            attention = Attention(config, qkv, o, operators, kv_type)
            return Layer(config, attention, FeedForward(gate_up, down, operators), operators)

        self.embedding = operators.embedding.default
        self.hidden_size, self.kv_type, self.fp32 = config.hidden_size, kv_type, fp32
        embedding = tensors[EMBEDDING].layout
        self.register_buffer(
            "embed_tokens", torch.empty(stored_shape(embedding), dtype=stored_type(embedding))
        )
        self.register_buffer("embedding_layout", _layouts([embedding]), persistent=False)
        self.layers = nn.ModuleList(layer(f"model.layers.{i}") for i in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, operators)
        head = embedding if config.tied else tensors[HEAD].layout
        self.head = Projection({"lm_head": head}, False, operators, fp32)
        # Angles in double: in fp32 they would be off by 0.001 at position 32,767.
        steps = torch.arange(0, config.head_dim, 2, dtype=torch.float64, device="cpu")
        frequencies = config.rope_theta ** (-steps / config.head_dim)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(
        self,
        ids: Tensor,
        rows: tuple[Tensor, Tensor],
        cache: Sequence[Tensor],
        wanted: Tensor,
        run: RunLayers = run_layers,
    ) -> Tensor:
        """Computes some rows.

        Args:
            ids: token ids, int64 [n].
            rows: sequence and position of each, int64 [n] each.
            cache: of each layer.
            wanted: rows whose logits are wanted, int64 [m].
            run: runs the layers.

        Returns:
            Logits, fp32 [m, vocab].
        """
        rope = self.rope(rows[1])
        x = self.embedding(ids, self.embed_tokens, self.embedding_layout, self.hidden_size)
        x = run(self.layers, x, rope, cache, rows)
        if wanted.numel() == 0:
            return x.new_empty(0, self.head.rows)
        logits: Tensor = self.head(self.norm(x[wanted]))
        return logits

    def rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angles position * theta^(-2i / head_dim).

        Args:
            positions: int64 [n].

        Returns:
            fp32 [n, head_dim / 2] each.
        """
        angles = positions[:, None] * self.frequencies
        return angles.cos().float(), angles.sin().float()


def stored_shape(layout: Layout) -> tuple[int, ...]:
    """How the tensor of a matrix is indexed: [tiles, groups, bytes of a block], or [rows, cols]."""
    if layout.packed:
        return layout.tiles, layout.groups, layout.block_bytes
    return layout.rows, layout.cols


def stored_type(layout: Layout) -> torch.dtype:
    """What its elements are: bytes where it is packed."""
    return torch.uint8 if layout.packed else _DTYPES[layout.type]


def _layouts(layouts: Sequence[Layout]) -> Tensor:
    """uint8 [layouts, bytes of the native struct]."""
    data = bytearray(b"".join(bytes(native_layout(layout)) for layout in layouts))
    return torch.frombuffer(data, dtype=torch.uint8).view(len(layouts), -1)
