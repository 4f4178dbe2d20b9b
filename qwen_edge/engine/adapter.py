"""LoRA adapters in the native library: how they get there, and what they take."""

from __future__ import annotations

import ctypes
import struct

from qwen_edge.engine.native_calls import engine_library
from qwen_edge.model.adapter import PROJECTIONS, Adapter, Module
from qwen_edge.model.adapter_settings import damaged
from qwen_edge.model.safetensors_reader import FLOAT_TYPES, StoredTensor
from qwen_edge.native.checksum import checksum, checksum_at
from qwen_edge.native.library import STATUS_FORMAT, check
from qwen_edge.quant.native_layout import TYPE_CODES

MOST_RANK = 64
"""The highest rank that is computed beside the model."""
_TILE = 16
# The projections that read the same values, by their place in PROJECTIONS.
_INPUTS = ((0, 1, 2), (3,), (4, 5), (6,))


class _Part(ctypes.Structure):
    _fields_ = (
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("layer", "projection", "rank", "a_type", "b_type")),
        ("scale", ctypes.c_float),
    )


def adapter_bytes(adapter: Adapter, rows: int) -> int:
    """Bytes that an adapter takes in an engine whose calls have up to so many rows.

    Mirrors native/adapter.cpp: fp16, ranks of one input and rows of B in whole tiles of 16.
    """
    total = width = 0
    layers: dict[int, dict[int, Module]] = {}
    for module in adapter.modules:
        layers.setdefault(module.layer, {})[PROJECTIONS.index(module.projection)] = module
    for modules in layers.values():
        for places in _INPUTS:
            present = [modules[place] for place in places if place in modules]
            if not present:
                continue
            lanes = _padded(sum(module.rank for module in present))
            width = max(width, lanes)
            total += lanes * (2 * present[0].a.shape[1] + 4)
            total += sum(2 * _padded(module.b.shape[0]) * module.rank for module in present)
    return total + 4 * rows * width


def _padded(n: int) -> int:
    return -(-n // _TILE) * _TILE


def create_adapter(
    model: ctypes.c_void_p, adapter: Adapter, factor: float, threads: int
) -> ctypes.c_void_p:
    """The library's handle of an adapter; raises as ``NativeEngine.set_adapter`` does."""
    parts = (_Part * len(adapter.modules))()
    for i, module in enumerate(adapter.modules):
        parts[i] = _Part(
            module.a.address,
            module.b.address,
            module.layer,
            PROJECTIONS.index(module.projection),
            module.rank,
            _type(module.a),
            _type(module.b),
            module.scale * factor,
        )
    library, handle = engine_library(), ctypes.c_void_p()
    status = library.qe_adapter_create(model, parts, len(parts), threads, ctypes.byref(handle))
    for module in adapter.modules:
        # Read once, they would count as the process's own.
        module.a.release(0, module.a.nbytes)
        module.b.release(0, module.b.nbytes)
    if status == STATUS_FORMAT:
        raise damaged(adapter.path, (library.qe_last_error() or b"").decode())
    check(status)
    return handle


def _type(tensor: StoredTensor) -> int:
    return TYPE_CODES[FLOAT_TYPES[tensor.dtype]]


def adapter_identity(adapter: Adapter, factor: float) -> bytes:
    """Bytes that differ wherever results with the adapter may differ."""
    total = 0
    for module in adapter.modules:
        total = checksum(f"{module.weight} {module.scale * factor!r}".encode(), total)
        for part in (module.a, module.b):
            total = checksum_at(part.address, part.nbytes, total)
            total = checksum(f"{part.dtype} {part.shape}".encode(), total)
            part.release(0, part.nbytes)
    return struct.pack("<Q", total)
