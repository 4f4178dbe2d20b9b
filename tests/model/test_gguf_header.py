"""GGUF headers of all kinds: what the package writes is read, what an enemy writes is refused."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.model.container import ContainerError, NotAContainerError, TruncatedError
from qwen_edge.model.file_map import MappedFile
from qwen_edge.model.gguf_header import GgufHeader, parse_gguf

U8, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 5, 6, 7, 8, 9, 10
HUGE = 1 << 60


def text(value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def pair(key: bytes | str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, sizes: list[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def gguf_file(
    pairs: list[bytes], tensors: list[bytes], data: int = 0, version: int = 3, **counts: int
) -> bytes:
    """A file with these pairs and tensors, and so many bytes of data."""
    head = struct.pack(
        "<4sIQQ", b"GGUF", version, counts.get("tensor_count", len(tensors)),
        counts.get("pair_count", len(pairs)),
    )  # fmt: skip
    header = head + b"".join(pairs) + b"".join(tensors)
    return header + bytes(-len(header) % 32 + data)


def parse(folder: Path, content: bytes) -> GgufHeader:
    (folder / "file").write_bytes(content)
    with MappedFile(folder / "file") as file:
        return parse_gguf(file)


@pytest.mark.parametrize("version", [2, 3])
def test_values_of_every_type(version: int, tmp_path: Path) -> None:
    pairs = [
        pair("u8", U8, b"\xff"), pair("i8", 1, b"\xff"), pair("u16", 2, b"\xff\xff"),
        pair("i16", 3, b"\xff\xff"), pair("u32", 4, b"\xff" * 4), pair("i32", I32, b"\xff" * 4),
        pair("f32", F32, struct.pack("<f", 1.5)), pair("yes", BOOL, b"\1"), pair("no", BOOL, b"\0"),
        pair("text", STRING, text("é")), pair("u64", U64, b"\xff" * 8),
        pair("i64", 11, b"\xff" * 8), pair("f64", 12, struct.pack("<d", 0.1)),
        pair("numbers", ARRAY, struct.pack("<IQ3i", I32, 3, 1, -2, 3)),
        pair("texts", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("")),
        pair("nested", ARRAY, struct.pack("<IQ", ARRAY, 1) + struct.pack("<IQ2B", U8, 2, 7, 8)),
    ]  # fmt: skip
    tensors = [tensor("x", [32, 3], 2, 64), tensor("y", [5], 0, 0)]
    header = parse(tmp_path, gguf_file(pairs, tensors, 64 + 54, version))
    metadata: dict[str, Any] = dict(header.metadata)
    assert header.version == version
    assert list(metadata.pop("numbers")) == [1, -2, 3]
    assert [list(part) for part in metadata.pop("nested")] == [[7, 8]]
    assert metadata == {
        "u8": 255, "i8": -1, "u16": 65535, "i16": -1, "u32": 2**32 - 1, "i32": -1, "f32": 1.5,
        "yes": True, "no": False, "text": "é", "u64": 2**64 - 1, "i64": -1, "f64": 0.1,
        "texts": ["a", ""],
    }  # fmt: skip
    assert metadata["yes"] is True
    entry = header.tensors["x"]
    assert (entry.block.name, entry.shape, entry.nbytes) == ("Q4_0", (3, 32), 54)
    assert entry.begin - header.tensors["y"].begin == 64


ONE = [pair("a", U8, b"\0")]
HOSTILE: dict[str, tuple[bytes, type[ContainerError], str]] = {
    "other magic": (b"GGML" + bytes(64), NotAContainerError, "does not begin"),
    "short": (b"GGUF\3", TruncatedError, "only 5 bytes"),
    "version 1": (gguf_file([], [], version=1), ContainerError, "version 1"),
    "version 4": (gguf_file([], [], version=4), ContainerError, "version 4"),
    "big-endian": (b"GGUF\0\0\0\3" + bytes(64), ContainerError, "big-endian"),
    "many tensors": (gguf_file([], [], tensor_count=HUGE), ContainerError, "claims"),
    "many pairs": (gguf_file([], [], pair_count=HUGE), ContainerError, "claims"),
    "missing pairs": (gguf_file(ONE, [], pair_count=3), ContainerError, ""),
    "key twice": (gguf_file(ONE * 2, []), ContainerError, "'a' twice"),
    "empty key": (gguf_file([pair("", U8, b"\0")], []), ContainerError, "0 characters"),
    "long key": (gguf_file([pair("k" * 5000, U8, b"\0")], []), ContainerError, "5000 char"),
    "key not UTF-8": (gguf_file([pair(b"\xff", U8, b"\0")], []), ContainerError, "UTF-8"),
    "text not UTF-8": (gguf_file([pair("a", STRING, text(b"\xff"))], []), ContainerError, "UTF-8"),
    "unknown value": (gguf_file([pair("a", 13, b"\0")], []), ContainerError, "unknown type 13"),
    "truth value": (gguf_file([pair("a", BOOL, b"\2")], []), ContainerError, "truth value"),
    "truth values": (
        gguf_file([pair("a", ARRAY, struct.pack("<IQ2B", BOOL, 2, 1, 2))], []),
        ContainerError, "truth value",
    ),
    "2^60 texts": (
        gguf_file([pair("a", ARRAY, struct.pack("<IQ", STRING, HUGE))], []),
        ContainerError, "more than",
    ),
    "2^21 texts": (
        gguf_file([pair("a", ARRAY, struct.pack("<IQ", STRING, 1 << 21))], []),
        TruncatedError, "claims",
    ),
    "2^60 numbers": (
        gguf_file([pair("a", ARRAY, struct.pack("<IQ", U64, HUGE))], []), TruncatedError, "",
    ),
    "long text": (
        gguf_file([pair("a", STRING, struct.pack("<Q", HUGE))], []), TruncatedError, "",
    ),
    "deep arrays": (
        gguf_file([pair("a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 2000)], []),
        ContainerError, "nested",
    ),
    "no dimensions": (gguf_file([], [tensor("x", [], 0, 0)], 64), ContainerError, "0 dimensions"),
    "five dimensions": (
        gguf_file([], [tensor("x", [1] * 5, 0, 0)], 64), ContainerError, "5 dimensions",
    ),
    "empty tensor": (gguf_file([], [tensor("x", [0, 4], 0, 0)], 64), ContainerError, "(4, 0)"),
    "overflow": (
        gguf_file([], [tensor("x", [1 << 30, 1 << 30, 1 << 30, 1 << 30], 0, 0)], 64),
        TruncatedError, "ends at byte",
    ),
    "wide": (gguf_file([], [tensor("x", [1 << 63, 2], 0, 0)], 64), ContainerError, "9223372"),
    "unread type": (gguf_file([], [tensor("x", [256], 16, 0)], 64), ContainerError, "IQ2_XXS"),
    "no such type": (gguf_file([], [tensor("x", [4], 999, 0)], 64), ContainerError, "type 999"),
    "old type": (gguf_file([], [tensor("x", [32], 4, 0)], 64), ContainerError, "type 4"),
    "half a block": (gguf_file([], [tensor("x", [40], 2, 0)], 64), ContainerError, "whole blocks"),
    "odd offset": (gguf_file([], [tensor("x", [4], 0, 8)], 64), ContainerError, "multiple of 32"),
    "far offset": (
        gguf_file([], [tensor("x", [4], 0, (1 << 64) - 32)], 64), TruncatedError, "ends at byte",
    ),
    "overlap": (
        gguf_file([], [tensor("x", [16], 0, 0), tensor("y", [4], 0, 32)], 128),
        ContainerError, "overlaps",
    ),
    "tensor twice": (
        gguf_file([], [tensor("x", [4], 0, 0), tensor("x", [4], 0, 32)], 128),
        ContainerError, "twice",
    ),
    "truncated": (gguf_file([], [tensor("x", [64], 0, 0)], 255), TruncatedError, "ends at byte"),
    "alignment 0": (
        gguf_file([pair("general.alignment", 4, bytes(4))], []), ContainerError, "alignment is 0",
    ),
    "alignment a text": (
        gguf_file([pair("general.alignment", STRING, text("32"))], []),
        ContainerError, "alignment is '32'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_at_once(name: str, tmp_path: Path) -> None:
    content, kind, problem = HOSTILE[name]
    with pytest.raises(kind) as refusal:
        parse(tmp_path, content)
    assert problem in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_no_prefix_of_a_file_is_read_beyond_its_end(tmp_path: Path) -> None:
    pairs = [pair("a", STRING, text("value")), pair("b", ARRAY, struct.pack("<IQ2i", I32, 2, 1, 2))]
    whole = gguf_file(pairs, [tensor("x", [8], 0, 0)], 32)
    assert parse(tmp_path, whole).tensors["x"].nbytes == 32
    for length in range(len(whole)):
        with pytest.raises(ContainerError):
            parse(tmp_path, whole[:length])


MEMORY = """
import resource, sys
from pathlib import Path
from qwen_edge.model.container import ContainerError
from qwen_edge.model.file_map import MappedFile
from qwen_edge.model.gguf_header import parse_gguf
with MappedFile(Path(sys.argv[1])) as file:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        parse_gguf(file)
    except ContainerError as error:
        print(error)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize("kind", ["texts", "truths", "lists"])
def test_headers_as_large_as_a_model_take_little_memory(kind: str, tmp_path: Path) -> None:
    """A sparse file of 3 GB of zeros backs whatever lengths and counts the header claims."""
    value = {
        "texts": struct.pack("<IQ", STRING, 3 << 26), "truths": struct.pack("<IQ", BOOL, 3 << 29),
        "lists": struct.pack("<IQ", ARRAY, 3 << 26),
    }[kind]  # fmt: skip
    path = tmp_path / "sparse"
    path.write_bytes(gguf_file([pair("a", ARRAY, value)], []))
    with path.open("r+b") as file:
        file.truncate(3 << 30)
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, path], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "more than" in found[0]
    assert int(found[1]) < 400
