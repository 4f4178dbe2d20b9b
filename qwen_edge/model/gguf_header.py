"""The header of GGUF files, parsed as if it were written by an enemy.

A file is a magic, a version, two counts, pairs of a key and a typed value, the tensors' names,
dimensions, types and offsets, and their data from the next multiple of the alignment on; all
little-endian. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md describes it.
"""

from __future__ import annotations

import ctypes
import math
import struct
import sys
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

from qwen_edge.model.container import ContainerError, NotAContainerError, TruncatedError, show
from qwen_edge.model.file_map import MappedFile
from qwen_edge.quant.gguf_blocks import BLOCK_TYPES, UNREAD_TYPES, BlockType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
# By the number of a value's type.
SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", UINT32: "I", INT32: "i", FLOAT32: "f", BOOL: "B", 10: "Q",
    11: "q", 12: "d",
}  # fmt: skip
# Qwen's header takes 6 MB. What is counted below takes memory beyond its bytes in the file.
HEADER_LIMIT = 64 << 20
_MOST_STRINGS = 1 << 22
_MOST_KEYS = 1 << 16
_MOST_TENSORS = 1 << 16
_LONGEST_NAME = 1 << 10
_DEEPEST_ARRAY = 4
_MOST_DIMENSIONS = 4
_LARGEST_ALIGNMENT = 1 << 16


class UnreadTypeError(ContainerError):
    """A tensor has a type that is not read."""


class GgufEntry(NamedTuple):
    """A tensor of a file.

    Attributes:
        block: its type.
        shape: rows first, as Hugging Face has it; ggml names the columns first.
        begin: offset of its first byte in the file.
        nbytes: its size.
    """

    block: BlockType
    shape: tuple[int, ...]
    begin: int
    nbytes: int


class GgufHeader(NamedTuple):
    """What the header says.

    Attributes:
        version: of the format.
        metadata: values by key: numbers, texts, truth values, arrays of numbers or truth
            values, lists of texts or of arrays.
        tensors: by name, in the file's order.
    """

    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufEntry]


def parse_gguf(file: MappedFile) -> GgufHeader:
    """Reads the header and checks every count, length and offset against the file's size.

    Raises:
        ContainerError: or one of its kinds.
    """
    start = file.read(0, min(file.size, 8))
    if start[:4] != MAGIC:
        raise NotAContainerError("it does not begin as a GGUF file")
    if len(start) < 8:
        raise TruncatedError(f"it has only {file.size} bytes")
    version = int.from_bytes(start[4:], "little")
    if version not in VERSIONS:
        if int.from_bytes(start[4:], "big") in VERSIONS:
            raise ContainerError("it is big-endian")
        known = " and ".join(map(str, VERSIONS))
        raise ContainerError(f"it has version {version} of GGUF, {known} are read")
    data = memoryview((ctypes.c_ubyte * file.size).from_address(file.address)).cast("B")
    cursor = _Cursor(data, 8)
    tensors, keys = cursor.number("Q"), cursor.number("Q")
    if tensors > _MOST_TENSORS or keys > _MOST_KEYS:
        raise ContainerError(f"it claims {tensors} tensors and {keys} keys")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = cursor.name()
        if key in metadata:
            raise ContainerError(f"it has the key {show(key)} twice")
        try:
            metadata[key] = cursor.value(cursor.number("I"))
        except UnicodeDecodeError:
            raise ContainerError(f"its {show(key)} is not UTF-8") from None
    alignment = _alignment(metadata)
    found = [_tensor_info(cursor, alignment) for _ in range(tensors)]
    begin = -(-cursor.place // alignment) * alignment
    return GgufHeader(version, metadata, _entries(found, begin, file.size))


class _Cursor:
    """Reads on from a place; never beyond the end of the file or of what a header may take."""

    def __init__(self, data: memoryview, place: int) -> None:
        self._data = data
        self.place = place
        self._strings = 0

    def _take(self, size: int) -> int:
        """The place of the next ``size`` bytes, which are passed."""
        place = self.place
        if place + size > len(self._data):
            raise TruncatedError(
                f"its header takes more than {place} bytes and the file has {len(self._data)}"
            )
        if place + size > HEADER_LIMIT:
            raise ContainerError(f"its header takes more than {HEADER_LIMIT} bytes")
        self.place = place + size
        return place

    def number(self, code: str) -> Any:
        layout = _LAYOUTS[code]
        return layout.unpack_from(self._data, self._take(layout.size))[0]

    def string(self) -> str:
        size = self.number("Q")
        place = self._take(size)
        return str(self._data[place : place + size], "utf-8")

    def name(self) -> str:
        """A key, or the name of a tensor."""
        begin = self.place
        try:
            text = self.string()
        except UnicodeDecodeError:
            raise ContainerError(f"a name at byte {begin} is not UTF-8") from None
        if not 0 < len(text) <= _LONGEST_NAME:
            raise ContainerError(f"a name at byte {begin} has {len(text)} characters")
        return text

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            self._count(1)
            return self.string()
        if kind == ARRAY:
            return self._array(depth)
        if kind not in SCALARS:
            raise ContainerError(f"it has a value of the unknown type {kind}")
        number = self.number(SCALARS[kind])
        if kind == BOOL and number > 1:
            raise ContainerError("it has a truth value that is neither 0 nor 1")
        return bool(number) if kind == BOOL else number

    def _count(self, strings: int) -> None:
        self._strings += strings
        if self._strings > _MOST_STRINGS:
            raise ContainerError(f"its header has more than {_MOST_STRINGS} texts and lists")

    def _array(self, depth: int) -> Any:
        kind, count = self.number("I"), self.number("Q")
        if kind in SCALARS:
            values = array(SCALARS[kind])
            place = self._take(count * values.itemsize)
            values.frombytes(self._data[place : self.place])
            if sys.byteorder != "little":
                values.byteswap()
            if kind == BOOL and max(values, default=0) > 1:
                raise ContainerError("it has a truth value that is neither 0 nor 1")
            return values
        if depth == _DEEPEST_ARRAY:
            raise ContainerError("its arrays are nested too deeply")
        # Counted before they are read: a text takes 8 bytes at least, a list 12.
        self._count(count)
        if count * 8 > len(self._data) - self.place:
            raise TruncatedError(f"it claims {count} values and has {len(self._data)} bytes")
        if kind == STRING:
            return [self.string() for _ in range(count)]
        return [self.value(kind, depth + 1) for _ in range(count)]


_LAYOUTS = {code: struct.Struct("<" + code) for code in set(SCALARS.values())}


def _alignment(metadata: Mapping[str, Any]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(value) is not int or not 8 <= value <= _LARGEST_ALIGNMENT or value & (value - 1):
        raise ContainerError(f"its general.alignment is {show(value)}")
    return value


class _Info(NamedTuple):
    name: str
    shape: tuple[int, ...]
    block: BlockType
    offset: int


def _tensor_info(cursor: _Cursor, alignment: int) -> _Info:
    name = cursor.name()
    count = cursor.number("I")
    if not 1 <= count <= _MOST_DIMENSIONS:
        raise ContainerError(f"its tensor {show(name)} has {count} dimensions")
    shape = tuple(reversed([cursor.number("Q") for _ in range(count)]))
    # Two factors of the size at most are then large: what is multiplied below stays sensible.
    if min(shape) < 1 or max(shape) >= 1 << 31:
        raise ContainerError(f"its tensor {show(name)} is {shape}")
    number, offset = cursor.number("I"), cursor.number("Q")
    block = BLOCK_TYPES.get(number)
    if block is None:
        kind = UNREAD_TYPES.get(number, f"the type {number}")
        raise UnreadTypeError(f"its tensor {show(name)} is in {kind}, which is not read")
    if shape[-1] % block.width:
        raise ContainerError(
            f"its tensor {show(name)} is {shape}, not whole blocks of {block.name}"
        )
    if offset % alignment:
        raise ContainerError(f"its tensor {show(name)} does not begin at a multiple of {alignment}")
    return _Info(name, shape, block, offset)


def _entries(found: list[_Info], data: int, size: int) -> dict[str, GgufEntry]:
    entries: dict[str, GgufEntry] = {}
    for info in found:
        if info.name in entries:
            raise ContainerError(f"it has the tensor {show(info.name)} twice")
        rows = math.prod(info.shape[:-1])
        nbytes = info.block.tensor_bytes(rows, info.shape[-1])
        entries[info.name] = GgufEntry(info.block, info.shape, data + info.offset, nbytes)
    end = data
    for name, entry in sorted(entries.items(), key=lambda item: item[1].begin):
        if entry.begin < end:
            raise ContainerError(f"its tensor {show(name)} overlaps another tensor")
        end = entry.begin + entry.nbytes
        if end > size:
            raise TruncatedError(f"its tensor {show(name)} ends at byte {end} of {size}")
    return entries
