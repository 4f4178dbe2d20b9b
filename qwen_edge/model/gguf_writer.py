"""Writes GGUF files, version 3, tensor by tensor; gguf_header.py says what they are."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from qwen_edge.model.gguf import open_gguf
from qwen_edge.model.gguf_header import (
    ARRAY,
    BOOL,
    DEFAULT_ALIGNMENT,
    FLOAT32,
    INT32,
    MAGIC,
    STRING,
    UINT32,
    VERSIONS,
)
from qwen_edge.model.tensor_file import Place, TensorFile
from qwen_edge.quant.gguf_blocks import BlockType

Value: TypeAlias = "str | bool | int | float | array[int] | Sequence[str]"
"""A text, a truth value, a number (written as uint32 or float32), int32 numbers or texts."""


class TensorPlan(NamedTuple):
    """A tensor to write: its type and its shape, rows first."""

    block: BlockType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        rows = self.shape[0] if len(self.shape) > 1 else 1
        return self.block.tensor_bytes(rows, self.shape[-1])


class GgufWriter(TensorFile):
    """Writes one file as ``TensorFile`` does; end with ``finish``.

    Args:
        path: the file to make, or to replace.
        metadata: values by key.
        tensors: every tensor by its name in the file, in the file's order.

    Raises:
        QwenEdgeError: the file cannot be written there, or there is not enough space.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, TensorPlan]
    ) -> None:
        header = bytearray(MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(metadata)))
        for key, value in metadata.items():
            header += _text(key) + _value(value)
        end = 0
        offsets: dict[str, int] = {}
        for name, plan in tensors.items():
            offsets[name] = end
            sizes = tuple(reversed(plan.shape))
            header += _text(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
            header += struct.pack("<IQ", plan.block.number, end)
            end += _aligned(plan.nbytes)
        data = _aligned(len(header))
        places = {
            name: Place(data + offset, tensors[name].nbytes) for name, offset in offsets.items()
        }
        # Nothing may lie behind the last tensor's end, and the file ends aligned.
        rest = [(bytes(header.ljust(data, b"\0")), 0), (b"\0", data + end - 1)]
        super().__init__(path, data + end, places, rest)

    def finish(self) -> None:
        """Syncs the file, opens it as a reader would, and gives it its name.

        Raises:
            ValueError: a tensor is incomplete.
            DamagedModelError: what was written does not make a model.
            QwenEdgeError: the disk fails.
        """
        self.commit(lambda path: open_gguf(path).close())


def _aligned(size: int) -> int:
    return -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", FLOAT32, value)
    if isinstance(value, array):
        return struct.pack(f"<IIQ{len(value)}i", ARRAY, INT32, len(value), *value)
    head = struct.pack("<IIQ", ARRAY, STRING, len(value))
    return head + b"".join(map(_text, value))
