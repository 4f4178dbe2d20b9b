"""What a conversion made, and how far its weights are off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.quant.error import QuantizationError

Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all, and the tensor's name."""


@dataclass(frozen=True)
class Conversion:
    """What a conversion made.

    Attributes:
        path: the model file.
        size: its bytes.
        error: of all matrices together.
        worst_name: the matrix with the largest relative error.
        worst_error: its error.
        kept: matrices whose codes were taken over as they are; what they are off by comes from
            scales rounded to fp16.
        matrices: of the model.
        method: how it was rounded, one of ``METHODS``; empty for exports.
        too_large: the method that was asked for, where memory was too little for it.
    """

    path: Path
    size: int
    error: QuantizationError
    worst_name: str
    worst_error: QuantizationError
    kept: int
    matrices: int
    method: str = ""
    too_large: str = ""


def summarize(
    output: Path, size: int, errors: Mapping[str, QuantizationError], kept: int
) -> Conversion:
    """What was made, from the errors of its matrices by name."""
    worst = max(errors, key=lambda name: errors[name].relative)
    total = sum(errors.values(), QuantizationError())
    return Conversion(output, size, total, worst, errors[worst], kept, len(errors))
