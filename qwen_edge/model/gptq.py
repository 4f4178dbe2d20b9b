"""GPTQ checkpoints of 4 and 8 bits, as AutoGPTQ and GPTQModel write them.

Both versions of the zero points are read (``checkpoint_format`` ``gptq``, one less than what they
stand for, and ``gptq_v2``), and columns sorted by activation (``desc_act``: each matrix then says
which group a column is of).
"""

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

# What is added to a stored zero point. GPTQ wraps around: 0 is stored as 15.
_ZERO_STEPS = {"gptq": 1, "gptq_v2": 0}


def quantized_tensors(
    settings: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, StoredTensor],
) -> dict[str, IntegerMatrix]:
    """The quantized matrices of a GPTQ checkpoint; what it left as floats is not among them.

    Args:
        settings: ``quantization_config`` of config.json, or quantize_config.json.
        shapes: of the model's tensors.
        stored: the checkpoint's tensors.

    Raises:
        UnusableError: the settings or the tensors are malformed.
        UnsupportedError: the checkpoint uses a variant that is not read.
    """
    form = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if settings.get("is_marlin_format") or not isinstance(form, str) or form not in _ZERO_STEPS:
        raise UnsupportedError(f"the GPTQ format {show(form)}")
    words = settings.get("pack_dtype") or "int32"
    if words != "int32":
        raise UnsupportedError(f"GPTQ weights packed into {show(words)}")
    bits, group = whole(settings, ("bits",)), group_size(settings)
    # Single matrices may be quantized otherwise; their shapes tell.
    varied = bool(settings.get("dynamic"))
    if bits not in (4, 8) and not varied:
        raise UnsupportedError(f"GPTQ weights of {bits} bits")
    packing = Packing(
        bits=None if varied else bits,
        group=None if varied else group,
        zero_step=_ZERO_STEPS[form],
        ordered=settings.get("desc_act") is True,
    )
    return integer_matrices(shapes, stored, packing)
