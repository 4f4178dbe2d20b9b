"""Matrices of integers with a scale and a zero point for each group of columns.

They are what GPTQ and AWQ checkpoints hold; gptq.py and awq.py read what such a checkpoint says of
itself, native/integer_groups.h describes the bytes and takes them apart.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.config import HEAD, ORDERED
from qwen_edge.model.container import show
from qwen_edge.model.safetensors_reader import FLOAT_TYPES, StoredTensor
from qwen_edge.model.source import CodeRows, FloatRows, QuantizedTensor, UnusableError
from qwen_edge.native.library import check, load
from qwen_edge.quant.layout import INT4, UINT4, WeightFormat
from qwen_edge.quant.native_layout import TYPE_CODES
from qwen_edge.quant.packing import usable_threads

# Where nothing holds a matrix exactly: more bits than it has, so that little is lost.
_NEAREST = WeightFormat("q8", 32, False, ())
_WEIGHT = ".weight"


@dataclass(frozen=True)
class Packing:
    """How a checkpoint packs its integers.

    Attributes:
        bits: 4 or 8; None to tell from each matrix's shape.
        group: columns that share a scale, -1 for all of a row's; None to tell from the shapes.
        awq: whether in AWQ's order, else in GPTQ's.
        zero_step: what is to be added to the zero points that are stored.
        ordered: whether each matrix has to say which group its columns are of.
    """

    bits: int | None
    group: int | None
    awq: bool = False
    zero_step: int = 0
    ordered: bool = False


class _Native(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("words", "zeros", "scales", "group_of")),
        *((name, ctypes.c_int32) for name in (
            "rows", "cols", "groups", "group_size", "bits", "is_awq", "scale_type", "zero_step",
        )),
    )  # fmt: skip


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    library.qe_integer_groups_inspect.argtypes = [pointer] * 5
    library.qe_integer_groups_codes.argtypes = [
        pointer, pointer, integer, integer, integer, integer, pointer, pointer, pointer,
    ]  # fmt: skip
    library.qe_integer_groups_floats.argtypes = [
        pointer, pointer, integer, integer, integer, pointer,
    ]  # fmt: skip
    return library


class IntegerMatrix(QuantizedTensor):
    """One matrix of such a checkpoint.

    Args:
        name: Hugging Face's.
        shape: the one that the model's config asks for.
        stored: the checkpoint's tensors.
        packing: how it packs them.

    Raises:
        UnusableError: the stored tensors do not make such a matrix.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        stored: Mapping[str, StoredTensor],
        packing: Packing,
    ) -> None:
        self.name, self.shape = name, shape
        self._stored = _parts(name, stored, packing)
        self.parts = [part.name for part in self._stored.values()]
        self.nbytes = sum(part.nbytes for part in self._stored.values())
        self._native = _native(self, self._stored, packing)
        order = (ctypes.c_int32 * self.cols)()
        unit, moved, symmetric = ctypes.c_int32(), ctypes.c_int32(), ctypes.c_int32()
        try:
            check(
                _library().qe_integer_groups_inspect(
                    ctypes.byref(self._native),
                    order,
                    ctypes.byref(unit),
                    ctypes.byref(moved),
                    ctypes.byref(symmetric),
                )
            )
        except DamagedModelError as error:
            raise UnusableError(
                f"in its tensor {name}, {error.values.get('reason', error)}"
            ) from None
        self._unit = unit.value
        self._held = _format(self._native.bits, self._unit, bool(symmetric.value))
        self._order = bytes(order) if moved.value and self._held else None

    @property
    def held(self) -> WeightFormat | None:
        return self._held

    @property
    def nearest(self) -> WeightFormat | None:
        return self._held or _NEAREST

    @property
    def order(self) -> bytes | None:
        return self._order

    def share_order(self, order: bytes | None) -> None:
        """Takes an order of columns that other matrices agree on, or None where they do not.

        Raises:
            ValueError: it is neither None nor the same as its own.
        """
        if order is None and self._order is not None:
            self._order = self._held = None
        elif order != self._order:
            raise ValueError("columns cannot be put into another order than that of their groups")
        else:
            self._order = order

    def floats(self, begin: int, rows: int) -> FloatRows:
        values = (ctypes.c_float * (rows * self.cols))()
        check(
            _library().qe_integer_groups_floats(
                ctypes.byref(self._native), self._order, begin, rows, usable_threads(), values
            )
        )
        return FloatRows(values, "f32")

    def codes(self, begin: int, rows: int) -> CodeRows:
        if self._held is None:
            return super().codes(begin, rows)
        groups = -(-self.cols // self._unit)
        codes = (ctypes.c_uint8 * (rows * self.cols))()
        scales = (ctypes.c_uint16 * (rows * groups))()
        zeros = (ctypes.c_uint16 * (rows * groups))() if self._held.has_zero else None
        check(
            _library().qe_integer_groups_codes(
                ctypes.byref(self._native), self._order, self._unit, begin, rows, usable_threads(),
                codes, scales, zeros,
            )
        )  # fmt: skip
        return CodeRows(codes, scales, zeros)

    def release(self, begin: int, rows: int) -> None:
        # Rows lie side by side: every slice has touched all of it.
        for part in self._stored.values():
            part.release(0, part.nbytes)

    @property
    def row_bytes(self) -> int:
        # Floats, their codes, and the bytes they come from.
        return max(5 * self.cols, super().row_bytes)


def integer_matrices(
    shapes: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor], packing: Packing
) -> dict[str, IntegerMatrix]:
    """The matrices of a model that are stored as integers.

    Matrices that take the same activations in keep an order of their columns only if they all have
    the same; those that differ are not held exactly.

    Raises:
        UnusableError: one of them is malformed.
    """
    found: dict[str, IntegerMatrix] = {}
    for name, shape in shapes.items():
        if name.endswith(("_proj" + _WEIGHT, HEAD)) and _part(name, "qweight") in stored:
            if name in stored:
                raise UnusableError(f"its tensor {name} is there both quantized and not")
            found[name] = IntegerMatrix(name, shape, stored, packing)
    _agree_on_orders(found)
    return found


def _agree_on_orders(found: Mapping[str, IntegerMatrix]) -> None:
    together = {part: names for names in ORDERED.values() for part in names}
    for name, matrix in found.items():
        if matrix.order is None:
            continue
        layer, _, part = name.removesuffix(_WEIGHT).rpartition(".")
        layer, _, block = layer.rpartition(".")
        names = [f"{layer}.{other}{_WEIGHT}" for other in together.get(f"{block}.{part}", ())]
        others = [found.get(other) for other in names]
        if not others or any(other is None or other.order != matrix.order for other in others):
            for other in others or [matrix]:
                if other is not None:
                    other.share_order(None)
            continue
        for other in others:
            if other is not None:
                other.share_order(matrix.order)  # one copy for all


def _part(name: str, part: str) -> str:
    return f"{name.removesuffix(_WEIGHT)}.{part}"


def _parts(
    name: str, stored: Mapping[str, StoredTensor], packing: Packing
) -> dict[str, StoredTensor]:
    parts = {}
    for key in ("qweight", "qzeros", "scales", "g_idx", "bias"):
        wanted = _part(name, key)
        if wanted in stored:
            parts[key] = stored[wanted]
        elif key in ("qweight", "qzeros", "scales") or (key == "g_idx" and packing.ordered):
            raise UnusableError(f"it has no tensor {wanted}")
    if packing.awq and "g_idx" in parts:
        raise UnusableError(f"it has a tensor {parts['g_idx'].name}, which AWQ does not know")
    for key, part in parts.items():
        types = tuple(FLOAT_TYPES) if key in ("scales", "bias") else ("I32",)
        if part.dtype not in types:
            raise UnusableError(f"its tensor {part.name} is {part.dtype}, not {types[0]}")
    bias = parts.get("bias")
    # GPTQ's tools write a bias of zeros where the model has none.
    if bias is not None and ctypes.string_at(bias.address, bias.nbytes).strip(b"\0"):
        raise UnusableError(f"its tensor {bias.name} is a bias, which Qwen3 does not have")
    return parts


def _native(matrix: IntegerMatrix, parts: Mapping[str, StoredTensor], packing: Packing) -> _Native:
    """Checks that every part has the size that the others ask for."""
    rows, cols = matrix.shape
    bits = packing.bits or _bits(parts["qweight"], cols, packing)
    scales = parts["scales"]
    if packing.group is None:
        groups = scales.shape[0] if len(scales.shape) == 2 else 0
        if groups == 0 or ("g_idx" not in parts and cols % groups):
            raise UnusableError(f"its tensor {scales.name} is {scales.shape} for {cols} columns")
        group = -(-cols // groups)
    else:
        group = cols if packing.group == -1 else packing.group
        groups = -(-cols // group)
    n = 32 // bits
    if rows % n or (cols % n and not packing.awq):
        raise UnusableError(f"its tensor {matrix.name} is {matrix.shape}, no multiple of {n}")
    shapes = {
        "qweight": (cols, rows // n) if packing.awq else (cols // n, rows),
        "qzeros": (groups, rows // n),
        "scales": (groups, rows),
        "g_idx": (cols,),
        "bias": (rows,),
    }
    for key, part in parts.items():
        if part.shape != shapes[key]:
            raise UnusableError(f"its tensor {part.name} is {part.shape}, not {shapes[key]}")
    return _Native(
        parts["qweight"].address,
        parts["qzeros"].address,
        scales.address,
        parts["g_idx"].address if "g_idx" in parts else None,
        rows,
        cols,
        groups,
        group,
        bits,
        int(packing.awq),
        TYPE_CODES[FLOAT_TYPES[scales.dtype]],
        packing.zero_step,
    )


def _bits(words: StoredTensor, cols: int, packing: Packing) -> int:
    for bits in (4, 8):
        if not packing.awq and len(words.shape) == 2 and words.shape[0] * 32 == cols * bits:
            return bits
    raise UnusableError(f"its tensor {words.name} is {words.shape}: neither 4 nor 8 bits a weight")


def _format(bits: int, unit: int, symmetric: bool) -> WeightFormat | None:
    """The format that holds such integers, if one does."""
    if not unit:
        return None
    if bits == 8:
        return WeightFormat("q8", unit, not symmetric, (), has_zero=not symmetric)
    if symmetric:
        return WeightFormat("q4", unit, False, INT4)
    return WeightFormat("q4", unit, True, UINT4, has_zero=True)


def whole(settings: Mapping[str, Any], names: Sequence[str], default: int | None = None) -> int:
    """A whole number that a checkpoint says of its quantization, under one of several names.

    Raises:
        UnusableError: it is missing or something else.
    """
    value = next((settings[name] for name in names if settings.get(name) is not None), default)
    if type(value) is not int:
        raise UnusableError(f"its quantization's {names[0]} is {show(value)}, not a number")
    return value


def group_size(settings: Mapping[str, Any]) -> int:
    """Columns that share a scale, -1 for all of a row's; raises like ``whole``."""
    group = whole(settings, ("group_size", "q_group_size"), -1)
    if group < -1 or group == 0 or group > 1 << 20:
        raise UnusableError(f"its quantization's group_size is {group}")
    return group
