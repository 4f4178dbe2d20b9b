"""AWQ checkpoints of 4 bits in the GEMM layout, as AutoAWQ writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_edge.model.container import show
from qwen_edge.model.integer_groups import (
    IntegerMatrix,
    Packing,
    group_size,
    integer_matrices,
    whole,
)
from qwen_edge.model.safetensors_reader import StoredTensor
from qwen_edge.model.source import UnsupportedError


def quantized_tensors(
    settings: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, StoredTensor],
) -> dict[str, IntegerMatrix]:
    """The quantized matrices of an AWQ checkpoint; what it left as floats is not among them.

    Args:
        settings: ``quantization_config`` of config.json, or quant_config.json.
        shapes: of the model's tensors.
        stored: the checkpoint's tensors.

    Raises:
        UnusableError: the settings or the tensors are malformed.
        UnsupportedError: the checkpoint uses a variant that is not read.
    """
    form = settings.get("version") or settings.get("format") or "gemm"
    if not isinstance(form, str) or form.lower() != "gemm":
        raise UnsupportedError(f"the AWQ layout {show(form)}")
    bits = whole(settings, ("bits", "w_bit"))
    if bits != 4:
        raise UnsupportedError(f"AWQ weights of {bits} bits")
    return integer_matrices(shapes, stored, Packing(bits, group_size(settings), awq=True))
