"""What a conversion reads: a model's description and its tensors, in whatever format they are.

A source is a Hugging Face folder or a GGUF file. Its tensors go by Hugging Face's names and give
their rows slice by slice, as floats, or, where a format of ours holds theirs exactly, as codes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from qwen_edge.model.closing import Closing
from qwen_edge.model.config import GenerationDefaults, ModelConfig
from qwen_edge.quant.layout import WeightFormat
from qwen_edge.quant.packing import Array


class FloatRows(NamedTuple):
    """Some rows as floats, row-major.

    Attributes:
        data: their address, or a ctypes array that holds them.
        type: ``f32``, ``f16`` or ``bf16``.
    """

    data: Array
    type: str


class CodeRows(NamedTuple):
    """Some rows as ``pack_codes`` takes them.

    Attributes:
        codes: [rows, cols], a byte each: 0 to 15 for q4, two's complement for q8.
        scales: [rows, groups] fp16.
        minimums: likewise, or None if the format has none.
    """

    codes: Array
    scales: Array
    minimums: Array | None = None


class SourceTensor(ABC):
    """A tensor of a source: [rows, cols], or [n] for a norm, which is one row.

    Attributes:
        name: Hugging Face's.
        shape: the one that the model's config asks for.
        nbytes: its size in the source.
    """

    name: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def rows(self) -> int:
        return self.shape[0] if len(self.shape) > 1 else 1

    @property
    def cols(self) -> int:
        return self.shape[-1]

    @property
    def held(self) -> WeightFormat | None:
        """The format of ours that holds it exactly, but for its scales' rounding to fp16."""
        return None

    @property
    def nearest(self) -> WeightFormat | None:
        """What it goes to where nothing else is asked for; None leaves that to the conversion."""
        return self.held

    @property
    def order(self) -> bytes | None:
        """Which column is at each place, little-endian int32, if columns are not in their own.

        Floats and codes come in this order, and so the matrix is stored. Those that take the same
        activations in (``ORDERED`` in config.py) have the same.
        """
        return None

    @abstractmethod
    def floats(self, begin: int, rows: int) -> FloatRows:
        """Rows from ``begin`` on as floats; valid until ``release`` or the next call.

        Raises:
            DamagedModelError: they cannot be decoded.
        """

    def codes(self, begin: int, rows: int) -> CodeRows:
        """Rows from ``begin`` on as they are held; only where ``held`` names a format.

        Raises:
            DamagedModelError: they cannot be decoded.
        """
        raise NotImplementedError(f"{self.name} is not held in codes")

    def release(self, begin: int, rows: int) -> None:
        """Gives the memory of rows back that were read."""
        return

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory while it is converted, at least its size in the source."""
        return max(math.ceil(self.nbytes / self.rows), 2 * self.cols)


class QuantizedTensor(SourceTensor):
    """A matrix of a quantized checkpoint, made of several stored tensors.

    Attributes:
        parts: the names of the stored tensors that it takes up, all of them.
    """

    parts: Sequence[str]


class UnusableError(Exception):
    """The stored tensors do not make the model; the message is a sentence fragment."""


class UnsupportedError(Exception):
    """The source uses something that is not read; the message is a noun phrase."""


@dataclass(frozen=True)
class Source(Closing, ABC):
    """An open model to convert; use it as a context manager.

    Attributes:
        path: the folder or file.
        config: the model's numbers.
        generation: how its makers sample it.
        chat_template: Jinja source.
        tensors: of all that the model needs, shapes checked.
    """

    path: Path
    config: ModelConfig
    generation: GenerationDefaults
    chat_template: str
    tensors: Mapping[str, SourceTensor]

    @abstractmethod
    def tokenizer_json(self) -> bytes:
        """The tokenizer as Hugging Face's ``tokenizer.json`` has it.

        Raises:
            DamagedModelError: there is none, or it cannot be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Unmaps the weights; a second call does nothing."""
