"""What quantized weights are off by."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class QuantizationError:
    """Sums over weights and their quantized values; instances add up over tensors.

    Attributes:
        squared_error: sum of the squared differences.
        squared_weight: sum of the squared weights.
        largest_error: the largest difference.
        count: number of weights.
    """

    squared_error: float = 0.0
    squared_weight: float = 0.0
    largest_error: float = 0.0
    count: int = 0

    def __add__(self, other: QuantizationError) -> QuantizationError:
        return QuantizationError(
            self.squared_error + other.squared_error,
            self.squared_weight + other.squared_weight,
            max(self.largest_error, other.largest_error),
            self.count + other.count,
        )

    @property
    def rms(self) -> float:
        """Root of the mean squared error, in the weights' unit."""
        return math.sqrt(self.squared_error / self.count) if self.count else 0.0

    @property
    def relative(self) -> float:
        """L2 norm of the error over that of the weights."""
        if self.squared_error == 0:
            return 0.0
        if self.squared_weight == 0:
            return math.inf
        return math.sqrt(self.squared_error / self.squared_weight)

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise ratio in decibels; infinite if there is no error."""
        relative = self.relative
        return -20 * math.log10(relative) if relative > 0 else math.inf

    def as_dict(self) -> dict[str, float]:
        """Rounded figures for JSON; the ratio is left out where it is infinite."""
        figures = {
            "relative": float(f"{self.relative:.4g}"),
            "rms": float(f"{self.rms:.4g}"),
            "largest": float(f"{self.largest_error:.4g}"),
        }
        if math.isfinite(self.sqnr_db):
            figures["sqnr_db"] = round(self.sqnr_db, 2)
        return figures


class ErrorSums(ctypes.Structure):
    """QeErrorSums of native/quantize.h."""

    _fields_ = (
        ("squared_error", ctypes.c_double),
        ("squared_weight", ctypes.c_double),
        ("largest_error", ctypes.c_double),
        ("count", ctypes.c_uint64),
    )

    def total(self) -> QuantizationError:
        """The sums as Python has them."""
        return QuantizationError(
            self.squared_error, self.squared_weight, self.largest_error, int(self.count)
        )
