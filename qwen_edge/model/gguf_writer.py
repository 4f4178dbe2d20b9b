"""Writes GGUF files, version 3, tensor by tensor; gguf_header.py says what they are."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
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
from qwen_edge.model.replacing_file import ReplacingFile
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


class GgufWriter:
    """Writes one file; use it as a context manager and end with ``finish``.

    Leaving it without ``finish`` leaves nothing behind, and an existing file as it was.

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
        self._tensors = tensors
        self._places = {name: data + offset for name, offset in offsets.items()}
        self._written = dict.fromkeys(tensors, 0)
        self._file = ReplacingFile(path, data + end)
        try:
            self._file.write(header.ljust(data, b"\0"), 0)
            # Nothing may lie behind the last tensor's end, and the file ends aligned.
            self._file.write(b"\0", data + end - 1)
        except BaseException:
            self._file.__exit__(None, None, None)
            raise

    @property
    def size(self) -> int:
        """Bytes of the finished file."""
        return self._file.size

    def write(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Appends bytes to a tensor.

        Raises:
            ValueError: that is more than the tensor takes.
            QwenEdgeError: the disk is full, or fails.
        """
        done, size = self._written[name], memoryview(data).nbytes
        if done + size > self._tensors[name].nbytes:
            raise ValueError(f"{name} takes {self._tensors[name].nbytes} bytes")
        self._file.write(data, self._places[name] + done)
        self._written[name] = done + size

    def finish(self) -> None:
        """Syncs the file, opens it as a reader would, and gives it its name.

        Raises:
            ValueError: a tensor is incomplete.
            DamagedModelError: what was written does not make a model.
            QwenEdgeError: the disk fails.
        """
        for name, plan in self._tensors.items():
            if self._written[name] != plan.nbytes:
                raise ValueError(f"{name} has {self._written[name]} of {plan.nbytes} bytes")
        self._file.commit(lambda path: open_gguf(path).close())

    def __enter__(self) -> GgufWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)


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
