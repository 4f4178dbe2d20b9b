"""A lean Qwen3 in torch for training, and its export in Hugging Face form.

Same mathematics as transformers' Qwen3ForCausalLM (RMSNorm before each block and on each query and
key head, rotary positions, grouped queries, SwiGLU, tied embedding); attention stays inside a
segment.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, by their names in config.json."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 2048
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6


def rotary(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position, [length, head_dim]."""
    half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angle = torch.outer(torch.arange(length, dtype=torch.float32), shape.rope_theta**-half)
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions to [batch, heads, length, head_dim]."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin


class Norm(nn.Module):
    """Root-mean-square norm with a gain."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Attention(nn.Module):
    """Grouped-query attention with normed queries and keys."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, size = shape.head_dim, shape.hidden_size
        self.heads, self.kv_heads, self.d = shape.num_attention_heads, shape.num_key_value_heads, d
        self.q_proj = nn.Linear(size, self.heads * d, bias=False)
        self.k_proj = nn.Linear(size, self.kv_heads * d, bias=False)
        self.v_proj = nn.Linear(size, self.kv_heads * d, bias=False)
        self.o_proj = nn.Linear(self.heads * d, size, bias=False)
        self.q_norm = Norm(d, shape.rms_norm_eps)
        self.k_norm = Norm(d, shape.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """x: [batch, length, hidden]; mask: additive, [batch, 1, length, length]."""
        b, t, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(b, t, self.heads, self.d)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(b, t, self.kv_heads, self.d)).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv_heads, self.d).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o_proj(out.transpose(1, 2).reshape(b, t, self.heads * self.d))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gate, widen, narrow."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = MLP(shape)
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Attention, then the MLP, each added to the stream."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen3(nn.Module):
    """The model up to the last norm; `logits` applies the tied head to the chosen positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(weight, std=0.2 * weight.shape[1] ** -0.5)
            elif weight.ndim == 2 and "embed" not in name:
                nn.init.normal_(weight, std=0.6 * weight.shape[1] ** -0.5)

    def forward(self, ids: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """ids: [batch, length] -> hidden states [batch, length, hidden]."""
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, hidden] -> [n, vocab]."""
        return F.linear(hidden, self.embed_tokens.weight)


def round_int4(weight: Tensor, group: int = 32) -> Tensor:
    """The weight with each `group` of a row rounded to 4 bits and an fp16 scale."""
    blocks = weight.view(-1, group)
    peak = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = (peak / -8).half().float()
    inverse = torch.where(scale == 0, 0, 1 / scale)
    return ((blocks * inverse).round().clamp(-8, 7) * scale).view_as(weight)


def segment_mask(segment: Tensor) -> Tensor:
    """Additive causal mask [batch, 1, length, length] that keeps dialogues of a row apart."""
    t = segment.shape[1]
    same = segment[:, :, None] == segment[:, None, :]
    seen = same & torch.ones(t, t, dtype=torch.bool).tril()
    return torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))[:, None]


def config_json(shape: Shape, stop_id: int, pad_id: int) -> dict[str, Any]:
    """config.json with the fields of Qwen3's own."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": pad_id,
        "eos_token_id": stop_id,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_window_layers": shape.num_hidden_layers,
        "model_type": "qwen3",
        "rope_scaling": None,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        **asdict(shape),
    }


def export(
    model: Qwen3, tokenizer_dir: Path, out: Path, stop_id: int, pad_id: int, int4: bool = False
) -> None:
    """Write a Hugging Face folder; each file appears under its name only when it is complete.

    With `int4` the matrices are rounded first, as the model was trained to be used.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer_dir / name).exists() and not (out / name).exists():
            shutil.copy(tokenizer_dir / name, out / name)
    generation = {
        "bos_token_id": pad_id,
        "do_sample": True,
        "eos_token_id": [stop_id, pad_id],
        "pad_token_id": pad_id,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
    }
    for name, content in (
        ("config.json", config_json(model.shape, stop_id, pad_id)),
        ("generation_config.json", generation),
    ):
        (out / f".{name}").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(out / f".{name}", out / name)
    weights = {f"model.{k}": v.detach().float().contiguous() for k, v in model.state_dict().items()}
    if int4:
        weights = {k: round_int4(v) if v.ndim == 2 else v for k, v in weights.items()}
    save_file(weights, out / ".model.safetensors", metadata={"format": "pt"})
    os.replace(out / ".model.safetensors", out / "model.safetensors")
