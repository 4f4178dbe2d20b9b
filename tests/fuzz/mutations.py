"""Changes of bytes, of JSON, and of what a safetensors file holds, drawn at random."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUMBERS = (0, 1, 2, 7, 8, 9, 31, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
           1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
TEXTS = (b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b"9" * 5000, b"[" * 3000, b"{}",
         b'"x"', b"null", b"true", b"1.5", b'"\\ud800"', b"\xff\xfe", b"[[]]", b"")  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 3, 33, 64, 96, 128, 1.5, -0.0, 1e-30, 1e30, 1e308, "", "x", "F32", "F16",
    "BF16", "U8", "I8", "I32", "F8_E4M3", "nf4", "fp4", "gptq_v2", "gemm", "\ud800", "a\x1b[31m",
    "../x", "/dev/zero", "x" * 5000, ".*", "(a|a)*" * 20, [], {}, [[]], [1], [1 << 40, 1 << 40],
    {"x": {"x": 1}}, *NUMBERS,
)  # fmt: skip
FILLS = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff\xff\x7f\x7f",
         b"\0\x7c", b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\x80")  # fmt: skip
DTYPES = ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "I16", "F16", "BF16", "I32", "F32", "I64",
          "F64")  # fmt: skip
WIDTHS = {"I16": 2, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8, "F64": 8}


def mutate_bytes(content: bytes, header: int, is_text: bool, numbers: random.Random) -> bytes:
    """One to four changes of the first ``header`` bytes; rarely, an end somewhere."""
    head = bytearray(content[:header])
    for _ in range(numbers.choice((1, 1, 1, 2, 4))):
        # Near the beginning are the counts that everything else hangs on.
        place = numbers.randrange(min(len(head), numbers.choice([64, 2048, len(head)])) or 1)
        choice = numbers.randrange(6)
        if choice == 0:
            head[place : place + 1] = bytes([numbers.randrange(256)])
        elif choice == 1:
            size = numbers.choice([4, 8])
            head[place : place + size] = (numbers.choice(NUMBERS) % (1 << 8 * size)).to_bytes(
                size, "little"
            )
        elif choice == 2:
            del head[place : place + numbers.randint(1, 64)]
        elif choice == 3:
            other = numbers.randrange(len(head) or 1)
            head[place:place] = head[other : other + numbers.randint(1, 64)]
        elif not is_text:
            bit = 1 << numbers.randrange(8)
            if place < len(head):
                head[place] ^= bit
        else:
            _replace_token(head, numbers)
    result = bytes(head) + content[header:]
    return result[: numbers.randrange(len(result) + 1)] if numbers.random() < 0.05 else result


def mutate_data(content: bytes, begin: int, numbers: random.Random) -> bytes:
    """Some places from ``begin`` on with values that are seldom expected."""
    result = bytearray(content)
    for _ in range(numbers.choice((1, 1, 4, 64))):
        piece = numbers.choice((*FILLS, numbers.randbytes(4)))
        place = numbers.randrange(begin, len(content) - len(piece))
        result[place : place + len(piece)] = piece
    return bytes(result)


def _replace_token(text: bytearray, numbers: random.Random) -> None:
    tokens = [m.span() for m in re.finditer(rb"[-\d.]+|\"[^\"]*\"", text)]
    if tokens:
        begin, end = numbers.choice(tokens)
        text[begin:end] = numbers.choice(TEXTS)


def mutate_header(content: bytes, numbers: random.Random) -> bytes:
    """Changes of a safetensors file's header as bytes; mostly, its length follows."""
    size = int.from_bytes(content[:8], "little")
    header = mutate_bytes(content[8 : 8 + size], size, True, numbers)
    length = len(header) if numbers.random() < 0.7 else numbers.choice((size, *NUMBERS))
    return length.to_bytes(8, "little") + header + content[8 + size :]


def mutate_json(table: Any, numbers: random.Random) -> Any:
    """A copy of a JSON value with a change of one of its parts, at any depth."""
    result = copy.deepcopy(table)
    parent, key = result, None
    while isinstance(parent, dict | list) and parent:
        key = numbers.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        if not isinstance(parent[key], dict | list) or numbers.random() < 0.2:
            break
        parent = parent[key]
    if key is None or not parent:
        return numbers.choice(VALUES)
    choice = numbers.randrange(6)
    if choice == 0:
        del parent[key]
    elif choice == 1 and isinstance(parent, dict):
        parent[numbers.choice((str(key) + "x", "x", "", "__metadata__"))] = parent.pop(key)
    elif choice == 2 and isinstance(parent, dict):
        other = numbers.choice(list(parent))
        parent[key], parent[other] = parent[other], parent[key]
    elif type(parent[key]) is int and choice < 5:
        n = parent[key]
        parent[key] = numbers.choice((n + 1, n - 1, n * 2, n // 2, -n, float(n), n + 32, str(n)))
    else:
        parent[key] = numbers.choice(VALUES)
    return result


def mutate_json_file(content: bytes, numbers: random.Random) -> bytes:
    """Changes of a JSON file, as bytes or as what it says."""
    if numbers.random() < 0.3:
        return mutate_bytes(content, len(content), True, numbers)
    try:
        table = json.loads(content)
    except ValueError:  # A change before this one.
        return mutate_bytes(content, len(content), True, numbers)
    for _ in range(numbers.choice((1, 1, 1, 2, 3))):
        table = mutate_json(table, numbers)
    return json.dumps(table).encode()


@dataclass
class Held:
    """A stored tensor: its type, shape and bytes."""

    dtype: str
    shape: list[int]
    data: bytes


@dataclass
class Contents:
    """What a safetensors file holds."""

    metadata: dict[str, str]
    tensors: dict[str, Held]
    alignment: int = 1


def read_contents(path: Path) -> Contents:
    """Reads a sound file."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        tensors[name] = Held(entry["dtype"], entry["shape"], content[start + begin : start + end])
    return Contents(metadata, tensors, 64 if start % 64 == 0 else 1)


def as_file(contents: Contents) -> bytes:
    """The file, its offsets right whatever it holds."""
    header: dict[str, Any] = {"__metadata__": contents.metadata} if contents.metadata else {}
    end = 0
    for name, held in contents.tensors.items():
        span = [end, end + len(held.data)]
        header[name] = {"dtype": held.dtype, "shape": held.shape, "data_offsets": span}
        end += len(held.data)
    text = json.dumps(header).encode()
    text = text.ljust(-(-(len(text) + 8) // contents.alignment) * contents.alignment - 8)
    data = b"".join(held.data for held in contents.tensors.values())
    return len(text).to_bytes(8, "little") + text + data


def mutate_contents(contents: Contents, numbers: random.Random) -> Contents:
    """One to three changes of tensors or metadata that leave a sound container."""
    result = Contents(dict(contents.metadata), dict(contents.tensors), contents.alignment)
    changes = (_fill, _fill, _poke, _poke, _retype, _reshape, _resize, _rename, _drop, _metadata)
    for _ in range(numbers.choice((1, 1, 1, 2, 3))):
        if result.tensors:
            # Small tensors describe the large ones.
            names = sorted(result.tensors, key=lambda name: len(result.tensors[name].data))
            small = names[: numbers.choice((4, 16, len(names)))]
            numbers.choice(changes)(result, numbers.choice(small), numbers)
    return result


def _fill(contents: Contents, name: str, numbers: random.Random) -> None:
    held = contents.tensors[name]
    pattern = numbers.choice((*FILLS, numbers.randbytes(16)))
    data = (pattern * (len(held.data) // len(pattern) + 1))[: len(held.data)]
    contents.tensors[name] = Held(held.dtype, held.shape, data)


def _poke(contents: Contents, name: str, numbers: random.Random) -> None:
    held = contents.tensors[name]
    data = bytearray(held.data)
    if "quant_state" in name and data[:1] == b"{":
        # A description: as text, or as what it says.
        data[:] = mutate_json_file(bytes(data), numbers)
    elif data:
        width = WIDTHS.get(held.dtype, 1)
        place = numbers.randrange(len(data)) // width * width
        piece = (numbers.choice(FILLS) * 8)[:width]
        data[place : place + width] = numbers.choice((piece, numbers.randbytes(width)))
    shape = [len(data)] if len(data) != len(held.data) else held.shape
    contents.tensors[name] = Held(held.dtype, shape, bytes(data))


def _retype(contents: Contents, name: str, numbers: random.Random) -> None:
    held = contents.tensors[name]
    width = WIDTHS.get(held.dtype, 1)
    alike = [kind for kind in DTYPES if WIDTHS.get(kind, 1) == width]
    contents.tensors[name] = Held(numbers.choice(alike), held.shape, held.data)


def _reshape(contents: Contents, name: str, numbers: random.Random) -> None:
    held = contents.tensors[name]
    shape = [*held.shape]
    choice = numbers.randrange(4)
    if choice == 0:
        shape.reverse()
    elif choice == 1:
        shape.insert(numbers.randint(0, len(shape)), 1)
    elif choice == 2:
        count = 1
        for size in shape:
            count *= size
        shape = [count]
    elif shape and shape[-1] % 2 == 0:
        shape = [*shape[:-1], 2, shape[-1] // 2]
    contents.tensors[name] = Held(held.dtype, shape, held.data)


def _resize(contents: Contents, name: str, numbers: random.Random) -> None:
    """More or fewer rows; none at all, too."""
    held = contents.tensors[name]
    if not held.shape or not held.data:
        return
    row = len(held.data) // (held.shape[0] or 1)
    rows = numbers.choice((0, 1, held.shape[0] - 1, held.shape[0] + 1, 2 * held.shape[0]))
    data = (held.data * 2)[: rows * row].ljust(rows * row, b"\0")
    contents.tensors[name] = Held(held.dtype, [rows, *held.shape[1:]], data)


def _rename(contents: Contents, name: str, numbers: random.Random) -> None:
    other = numbers.choice([*contents.tensors])
    if numbers.random() < 0.7:
        contents.tensors[name], contents.tensors[other] = (
            contents.tensors[other],
            contents.tensors[name],
        )
    else:
        added = numbers.choice((name + "x", "x", "\x1b[31m", "", name + ".bias", other + "_scale"))
        contents.tensors[added] = contents.tensors.pop(name)


def _drop(contents: Contents, name: str, numbers: random.Random) -> None:
    del contents.tensors[name]


def _metadata(contents: Contents, name: str, numbers: random.Random) -> None:
    for key, text in contents.metadata.items():
        if text.startswith("{"):
            contents.metadata[key] = json.dumps(mutate_json(json.loads(text), numbers))


def mutate_safetensors(path: Path) -> Callable[[bytes, random.Random], bytes]:
    """Changes of a safetensors file that is sound now: of its header's bytes or what it holds."""
    contents = read_contents(path)

    def mutate(content: bytes, numbers: random.Random) -> bytes:
        if numbers.random() < 0.4:
            return mutate_header(content, numbers)
        return as_file(mutate_contents(contents, numbers))

    return mutate
