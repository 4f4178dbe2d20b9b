"""Generates unicode_tables.cpp: run ``python qwen_edge/native/generate_unicode.py``.

The tables must agree with the Hugging Face ``tokenizers`` library and not with the newest standard,
because a model was trained on what that library made of its text. So the library is asked about
every code point: its regular expressions for the categories, its NFD and NFC normalizers for
decompositions, compositions and combining classes. Two things that it cannot be asked for directly
come from ``unicodedata`` and are held against the library: which two characters a composite is made
of, and the number of a combining class.

``--check`` compares the committed file with what would be generated, without writing.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import NamedTuple

from tokenizers import Regex, normalizers, pre_tokenizers

OUTPUT = Path(__file__).resolve().with_name("unicode_tables.cpp")
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
OTHER, LETTER, NUMBER, SPACE, NEWLINE = range(5)
NEEDS_CHECK, BOUNDARY = 1, 2
BLOCK_SHIFT = 5  # makes the smallest tables; unicode_tables.h has it too
HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)
HANGUL_VOWELS = range(0x1161, 0x1176)
HANGUL_TRAILS = range(0x11A8, 0x11C3)

nfc = normalizers.NFC().normalize_str
nfd = normalizers.NFD().normalize_str

# What the library knows and what it does not know yet tells the version that it follows. Letters:
# Todhri came with Unicode 16.0, Sidetic with 17.0. Combining classes: Adlam's marks came with 9.0,
# Malayalam's vertical bar virama with 10.0.
CATEGORY_MARKS = ("\U000105c0", "\U00010940")
NORMALIZATION_MARKS = ("\U0001e944", "\u0d3b")


class Tables(NamedTuple):
    """What the generated file holds, still as Python objects."""

    properties: list[tuple[int, int, int]]  # category, combining class, flags
    property_of: list[int]  # a place in properties for each code point
    decompositions: dict[int, tuple[int, int]]  # second is 0 for a singleton
    composites: list[int]  # in the order of their (first, second)


def matching(pattern: str) -> set[int]:
    """The code points that the library's regular expressions match with ``pattern``."""
    splitter = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
    found: set[int] = set()
    for start in range(0, len(CODE_POINTS), 4096):
        text = "".join(map(chr, CODE_POINTS[start : start + 4096]))
        found.update(ord(piece) for piece, _ in splitter.pre_tokenize_str(text))
    return found


def categories() -> dict[int, int]:
    table = dict.fromkeys(matching(r"\p{L}"), LETTER)
    table.update(dict.fromkeys(matching(r"\p{N}"), NUMBER))
    table.update(dict.fromkeys(matching(r"\s"), SPACE))
    table.update({ord("\r"): NEWLINE, ord("\n"): NEWLINE})
    return table


def reorders(first: str, second: str) -> bool:
    """Whether the library puts ``second`` before ``first``."""
    return nfd(first + second) != first + second


def combining_classes(decomposable: set[int]) -> dict[int, int]:
    """The canonical combining classes of the library's version of the standard.

    A mark that the library's version does not know moves past nothing and is left out.
    """
    lowest, highest = "\u0334", "\u0345"  # classes 1 and 240
    known = {
        c: unicodedata.combining(chr(c))
        for c in CODE_POINTS
        if c not in decomposable and (reorders(highest, chr(c)) or reorders(chr(c), lowest))
    }
    witness: dict[int, str] = {}
    for c, number in sorted(known.items()):
        witness.setdefault(number, chr(c))
    ordered = sorted(witness)
    for c, number in known.items():
        place = ordered.index(number)
        below, above = ordered[max(place - 1, 0)], ordered[min(place + 1, len(ordered) - 1)]
        right = (
            number > 0
            and not reorders(witness[number], chr(c))
            and not reorders(chr(c), witness[number])
            and (below == number or reorders(chr(c), witness[below]))
            and (above == number or reorders(witness[above], chr(c)))
        )
        if not right:
            raise SystemExit(f"the combining class of U+{c:04X} is not {number} in the library")
    return known


def decompositions() -> dict[int, tuple[int, int]]:
    """One step of canonical decomposition of every code point that has one, Hangul left out."""
    table: dict[int, tuple[int, int]] = {}
    for c in CODE_POINTS:
        if c in HANGUL_SYLLABLES or nfd(chr(c)) == chr(c):
            continue
        parts = [int(part, 16) for part in unicodedata.decomposition(chr(c)).split()]
        table[c] = (parts[0], parts[1] if len(parts) == 2 else 0)
    for c, (first, second) in table.items():
        # Decomposing only ever goes on at the first character, which the C++ code relies on.
        if nfd(chr(c)) != nfd(chr(first)) + (chr(second) if second else "") or second in table:
            raise SystemExit(f"the decomposition of U+{c:04X} differs from the library's")
    return table


def collect() -> Tables:
    category = categories()
    parts = decompositions()
    classes = combining_classes(set(parts) | set(HANGUL_SYLLABLES))
    composites = [c for c, (_, second) in parts.items() if second and nfc(chr(c)) == chr(c)]
    composites.sort(key=lambda c: parts[c])
    seconds = {parts[c][1] for c in composites} | set(HANGUL_VOWELS) | set(HANGUL_TRAILS)
    numbers: dict[tuple[int, int, int], int] = {(OTHER, 0, BOUNDARY): 0}
    index = [0] * 0x110000
    for c in CODE_POINTS:
        changes = nfc(chr(c)) != chr(c)
        flags = NEEDS_CHECK if changes or c in seconds else 0
        start = ord(nfd(chr(c))[0])
        if not changes and c not in classes and start not in classes and start not in seconds:
            flags |= BOUNDARY
        entry = (category.get(c, OTHER), classes.get(c, 0), flags)
        index[c] = numbers.setdefault(entry, len(numbers))
    return Tables(list(numbers), index, parts, composites)


def blocks(index: list[int]) -> tuple[list[int], list[int]]:
    """The two-level form of ``index``: block numbers, and the blocks one after another."""
    size = 1 << BLOCK_SHIFT
    seen: dict[tuple[int, ...], int] = {}
    first = [
        seen.setdefault(tuple(index[start : start + size]), len(seen))
        for start in range(0, len(index), size)
    ]
    while not any(index[(len(first) - 1) * size :][:size]):
        first.pop()  # a code point past the last block has property 0
    return first, [value for block in seen for value in block]


def version(marks: tuple[str, str], known: bool, unknown: bool, name: str) -> str:
    if not known or unknown:
        raise SystemExit(f"the library follows another Unicode version than {name} at {marks!r}")
    return name


def array(kind: str, name: str, values: list[str], line_width: int = 100) -> str:
    lines, line = [], ""
    for value in values:
        if len(line) + len(value) + 5 > line_width:
            lines.append(line)
            line = ""
        line += (" " if line else "    ") + value + ","
    lines.append(line)
    return f"const {kind} {name}[{len(values)}] = {{\n" + "\n".join(lines) + "\n};\n"


def generate() -> str:
    tables = collect()
    first, second = blocks(tables.property_of)
    used = [tables.properties[tables.property_of[ord(mark)]] for mark in CATEGORY_MARKS]
    letters = version(CATEGORY_MARKS, used[0][0] == LETTER, used[1][0] == LETTER, "Unicode 16.0")
    used = [tables.properties[tables.property_of[ord(mark)]] for mark in NORMALIZATION_MARKS]
    forms = version(NORMALIZATION_MARKS, used[0][1] > 0, used[1][1] > 0, "Unicode 9.0")
    parts = [
        f"{{0x{c:X}, 0x{a:X}, 0x{b:X}}}" for c, (a, b) in sorted(tables.decompositions.items())
    ]
    places = {c: place for place, c in enumerate(sorted(tables.decompositions))}
    return "\n".join(
        [
            "// Generated by generate_unicode.py from Hugging Face's tokenizers; do not edit.",
            f"// Categories L, N and white space: {letters}. Normalization: {forms}.",
            "// clang-format off",
            '#include "unicode_tables.h"',
            "",
            "namespace qe::unicode {",
            "",
            f"const uint32_t kBlockCount = {len(first)};",
            f"const uint32_t kDecompositionCount = {len(parts)};",
            f"const uint32_t kCompositeCount = {len(tables.composites)};",
            "",
            array(
                "Properties", "kProperties", [f"{{{a}, {b}, {c}}}" for a, b, c in tables.properties]
            ),
            array("uint16_t", "kBlocks", list(map(str, first))),
            array("uint8_t", "kPropertyOf", list(map(str, second))),
            array("Decomposition", "kDecompositions", parts),
            array("uint16_t", "kComposites", [str(places[c]) for c in tables.composites]),
            "}  // namespace qe::unicode",
            "",
        ]
    )


if __name__ == "__main__":
    text = generate()
    if sys.argv[1:] == ["--check"]:
        if OUTPUT.read_text(encoding="utf-8") != text:
            sys.exit(f"{OUTPUT.name} is not what generate_unicode.py makes")
    else:
        OUTPUT.write_text(text, encoding="utf-8")
