"""A model file's tensors for ``model/qwen3.py``: mapped where they lie, not copied."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from qwen_edge.model.config import EMBEDDING, HEAD, ORDERED, layer_orders
from qwen_edge.model.packed import PackedModel
from qwen_edge.model.qwen3 import Operators, Qwen3, stored_shape, stored_type


def load_qwen3(
    model: PackedModel, operators: Operators, kv_type: int, *, fp32: bool = False
) -> Qwen3:
    """Builds the model without memory of its own and gives it the mapped tensors of the file.

    Args:
        model: stays open as long as the result is used; the other arguments are ``Qwen3``'s.
    """
    with torch.device("meta"):
        network = Qwen3(model, operators, kv_type, fp32=fp32)
    state = {
        "embed_tokens": _mapped(model, EMBEDDING),
        "norm.weight": _mapped(model, "model.norm.weight"),
    }
    state["head.lm_head"] = state["embed_tokens"] if model.config.tied else _mapped(model, HEAD)
    for i in range(model.config.layers):
        prefix, own = f"model.layers.{i}", f"layers.{i}"
        for inputs, parts in ORDERED.items():
            for part in parts:
                name = part.rpartition(".")[2]
                state[f"{own}.{inputs}.{name}"] = _mapped(model, f"{prefix}.{part}.weight")
        for name in layer_orders(i):
            if name in model.tensors:
                state[name.removeprefix("model.")] = _mapped(model, name).view(torch.int32)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            state[f"{own}.{norm}.weight"] = _mapped(model, f"{prefix}.{norm}.weight")
        norms = (_mapped(model, f"{prefix}.self_attn.{part}_norm.weight") for part in "qk")
        for part, weight in zip("qk", _balanced(*norms), strict=True):
            state[f"{own}.self_attn.{part}_norm.weight"] = weight
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _balanced(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Moves what makes some dims of the keys large to the queries, as native/session.cpp does.

    Products of queries and keys stay as they are, and a quantized cache does not spend its range
    on a few dims.
    """
    pairs = key.double().view(2, -1)
    bits = pairs.square().mean(0).sqrt().log2().round()
    factor = torch.where(bits.abs() <= 32, bits.exp2(), 1.0).float().repeat(2)
    return query * factor, key / factor


def _mapped(model: PackedModel, name: str) -> Tensor:
    """A tensor of the file where it is mapped: no copy, and not to be written to."""
    info = model.tensors[name]
    data = (ctypes.c_uint8 * info.nbytes).from_address(model.address(name))
    if info.type == "u8":
        return torch.frombuffer(data, dtype=torch.uint8)
    tensor = torch.frombuffer(data, dtype=stored_type(info.layout))
    # Norms are vectors.
    is_vector = info.rows == 1 and not info.layout.packed
    return tensor if is_vector else tensor.view(stored_shape(info.layout))
