"""The safetensors container: its header, parsed as if it were written by an enemy.

A file is an 8-byte little-endian length, a JSON object of that many bytes, and the tensors' bytes
without a hole, as https://huggingface.co/docs/safetensors describes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from reprlib import Repr
from typing import Any, NamedTuple, NoReturn

from qwen_edge.model.file_map import MappedFile

HEADER_LIMIT = 100_000_000
"""The safetensors library's own limit for the header, in bytes."""
DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
    "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
_MOST_DIMENSIONS = 8
_SHORT = Repr()
_SHORT.maxtuple = 8
_KNOWN_STARTS = (
    (b"GGUF", "it is a GGUF file"),
    (b"PK\x03\x04", "it is a zip archive or a PyTorch checkpoint"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file itself"),
    (b"<!DOCTYPE", "it is a web page"),
    (b"<html", "it is a web page"),
)


class ContainerError(Exception):
    """A file is malformed; the message is a sentence fragment."""


class NotAContainerError(ContainerError):
    """A file is something else altogether."""


class TruncatedError(ContainerError):
    """A file ends too early."""


class Entry(NamedTuple):
    """A tensor of a container; begin and end are offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Container(NamedTuple):
    """A parsed header, entries in the order of their bytes."""

    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]


def show(name: object) -> str:
    """Any text of a file, short and safe for a terminal."""
    # Cut before it is escaped: it may be as long as the file.
    text = ascii(name[:80]) if isinstance(name, str) else _SHORT.repr(name)
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


def parse_json(data: bytes, what: str) -> Any:
    """Parses JSON strictly: UTF-8, no key twice, no NaN or infinity.

    Raises:
        ContainerError: it is not such JSON; ``what`` names it in the message.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in pairs:
            if name in result:
                raise ContainerError(f"{what} has the key {show(name)} twice")
            result[name] = value
        return result

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ContainerError(f"{what} has a number that is not finite")
        return value

    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique,
            parse_float=finite,
            parse_constant=finite,
        )
    except (ValueError, RecursionError):
        raise ContainerError(f"{what} is not valid JSON") from None


def parse(file: MappedFile, header_limit: int = HEADER_LIMIT) -> Container:
    """Reads the header and checks every tensor's offsets against the file's size.

    Raises:
        ContainerError: or one of its kinds.
    """
    start = file.read(0, min(file.size, 32))
    for magic, problem in _KNOWN_STARTS:
        if start.startswith(magic):
            raise NotAContainerError(problem)
    if not file.size:
        raise TruncatedError("it is empty")
    if file.size < 10:
        raise TruncatedError(f"it has only {file.size} bytes")
    length = int.from_bytes(start[:8], "little")
    if start[8:9] != b"{":
        raise NotAContainerError("it does not begin with a safetensors header")
    if length > header_limit:
        raise ContainerError(f"its header claims {length} bytes, {header_limit} is the limit")
    if 8 + length > file.size:
        raise TruncatedError(f"its header takes {8 + length} bytes and the file has {file.size}")
    header = parse_json(file.read(8, length), "its header")
    if not isinstance(header, dict):
        raise ContainerError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ContainerError("its __metadata__ is not a table of texts")
    return Container(metadata, _entries(header, 8 + length, file.size))


def _entries(header: dict[str, Any], data: int, size: int) -> dict[str, Entry]:
    entries = {name: _entry(name, value, data) for name, value in header.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    end = data
    for name, entry in ordered.items():
        if entry.begin != end:
            problem = "overlaps another tensor" if entry.begin < end else "leaves a hole before it"
            raise ContainerError(f"its tensor {show(name)} {problem}")
        end = entry.end
    if end > size:
        raise TruncatedError(f"its tensors end at byte {end} and the file has {size}")
    if end < size:
        raise ContainerError(f"it has {size - end} bytes after its last tensor")
    return ordered


def _entry(name: str, value: Any, data: int) -> Entry:
    def refuse(problem: str) -> NoReturn:
        raise ContainerError(f"its tensor {show(name)} {problem}")

    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        refuse("is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        refuse(f"has the unknown type {show(dtype)}")
    if not _naturals(shape) or len(shape) > _MOST_DIMENSIONS:
        refuse("has a malformed shape")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        refuse("has malformed offsets")
    # Python's integers do not overflow, whatever the shape claims.
    if math.prod(shape) * DTYPE_BYTES[dtype] != offsets[1] - offsets[0]:
        refuse("has a shape that does not fit its offsets")
    return Entry(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _naturals(value: Any) -> bool:
    if not isinstance(value, list) or not {int}.issuperset(map(type, value)):
        return False
    return min(value, default=0) >= 0
