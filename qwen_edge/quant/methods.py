"""The ways to round weights, by name, and what the calibrated ones need to know of the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from qwen_edge.errors import UsageError
from qwen_edge.quant import activation_aware, error_compensation, round_to_nearest
from qwen_edge.quant.layer_rows import Floats, floats
from qwen_edge.quant.packing import Array

METHODS = {
    "nearest": round_to_nearest.METHOD,
    "aware": activation_aware.METHOD,
    "gptq": error_compensation.METHOD,
}
"""How each method calls itself in a model file."""
BEST_METHOD = "gptq"
BEST_CODEBOOK = "iq4_nl"
"""What loses least at 4.5 bits a weight: benchmarks/results/quality.json."""

_LARGEST_TEXT = 1 << 20


@dataclass(frozen=True)
class Guide:
    """What ``round_to_nearest.quantize`` takes to go by the inputs of a matrix; see there."""

    importance: Floats | None = None
    panels: Floats | None = None


class Inputs(Protocol):
    """Collects the inputs of a matrix, or of several with the same inputs."""

    def add(self, rows: Array, n: int) -> None:
        """Takes rows [n, cols] in."""

    def guide(self, damping: float) -> Guide:
        """What they come to; nothing can be added after that."""


class _Squares:
    def __init__(self, cols: int) -> None:
        self._cols, self._squares = cols, floats(cols)

    def add(self, rows: Array, n: int) -> None:
        activation_aware.add_squares(rows, n, self._cols, self._squares)

    def guide(self, damping: float) -> Guide:
        del damping
        return Guide(importance=self._squares)


class _Moments:
    def __init__(self, cols: int, threads: int) -> None:
        self._cols, self._threads, self._moments = cols, threads, floats(cols * cols)

    def add(self, rows: Array, n: int) -> None:
        error_compensation.add_moments(rows, n, self._cols, self._moments, self._threads)

    def guide(self, damping: float) -> Guide:
        factors = error_compensation.factorize(self._moments, self._cols, damping, self._threads)
        return Guide(factors.pivots, factors.panels)


def inputs(method: str, cols: int, threads: int = 0) -> Inputs:
    """A collector for a calibrated method, ``aware`` or ``gptq``."""
    return _Squares(cols) if method == "aware" else _Moments(cols, threads)


@cache
def calibration_text() -> str:
    """The text that inputs are measured on if no other is given: English, Chinese and code."""
    return (Path(__file__).parent / "calibration.txt").read_text(encoding="utf-8")


def read_calibration(path: Path) -> str:
    """The beginning of a text file, more than is used.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_TEXT).decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        # The limit may cut a character in two.
        if error.start > _LARGEST_TEXT - 4:
            return str(error.object[: error.start], "utf-8")
        reason = "it is not UTF-8"
    except OSError as error:
        reason = error.strerror or str(error)
    raise UsageError(
        "The calibration text {path} cannot be used: {reason}.", path=path, reason=reason
    )
