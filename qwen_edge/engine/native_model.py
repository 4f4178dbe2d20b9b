"""A mapped model file as the native library's model: where each tensor lies, and what it is."""

from __future__ import annotations

import ctypes

from qwen_edge.engine.native_calls import engine_library
from qwen_edge.model.config import layer_orders
from qwen_edge.model.packed import PackedModel, TensorInfo
from qwen_edge.native.library import check
from qwen_edge.quant.native_layout import NativeLayout, native_layout

_LAYER_TENSORS = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.q_norm",
    "self_attn.k_norm",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


class _Config(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in (
            "layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab",
            "max_positions",
        )),
        ("rms_eps", ctypes.c_float),
        ("rope_theta", ctypes.c_float),
    )  # fmt: skip


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("layout", NativeLayout),
    )


class _Order(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("count", ctypes.c_uint64))


def _tensor(model: PackedModel, info: TensorInfo) -> _Tensor:
    return _Tensor(model.address(info.name), info.nbytes, native_layout(info.layout))


def create_model(model: PackedModel) -> ctypes.c_void_p:
    """The library's handle of a model, for ``qe_model_destroy``.

    Raises:
        DamagedModelError: the tensors do not make a model.
    """
    c = model.config
    names = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    names += [f"model.layers.{i}.{part}.weight" for i in range(c.layers) for part in _LAYER_TENSORS]
    tensors = (_Tensor * len(names))()
    for i, name in enumerate(names):
        # A tied head is not in the file: its entry stays null.
        if name in model.tensors:
            tensors[i] = _tensor(model, model.tensors[name])
    orders = [name for i in range(c.layers) for name in layer_orders(i)]
    order_table = (_Order * len(orders))()
    for i, name in enumerate(orders):
        # Those that the file lacks stay null, too: columns in their own order.
        if name in model.tensors:
            order_table[i] = _Order(model.address(name), model.tensors[name].nbytes // 4)
    config = _Config(
        c.layers, c.hidden_size, c.intermediate_size, c.heads, c.kv_heads, c.head_dim, c.vocab_size,
        c.max_positions, c.rms_norm_eps, c.rope_theta,
    )  # fmt: skip
    handle = ctypes.c_void_p()
    check(
        engine_library().qe_model_create(
            ctypes.byref(config), tensors, len(names), order_table, ctypes.byref(handle)
        )
    )
    return handle
