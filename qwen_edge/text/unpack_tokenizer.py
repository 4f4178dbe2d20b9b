"""Turns the packed tokenizer of a model file back into its tokens and merges."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn

from qwen_edge.errors import DamagedModelError
from qwen_edge.text.pack_tokenizer import (
    ADDED,
    HEADER,
    MAGIC,
    NO_TOKEN,
    SPECIAL,
    VERSION,
    byte_alphabet,
)
from qwen_edge.text.vocabulary import Kind, Vocabulary, kind_of_added


def unpack_tokenizer(blob: bytes) -> Vocabulary:
    """The vocabulary that ``pack_tokenizer`` packed; ids that it left out are unused.

    Raises:
        DamagedModelError: the blob is malformed, or has tokens that no list can tell apart.
    """
    if len(blob) < HEADER.size:
        _malformed("it is truncated")
    magic, version, count, slots, _, added_count, _, total, size, *places = HEADER.unpack_from(blob)
    if magic != MAGIC or version != VERSION or total != len(blob):
        _malformed("its header is not one of this version")
    sections = _Sections(blob)
    offsets = sections.words(places[0], count + 1)
    text = sections.part(places[1], size)
    flags = sections.part(places[2], count)
    added = sections.words(places[5], added_count)
    if offsets[0] or offsets[-1] != size or any(a > b for a, b in pairwise(offsets)):
        _malformed("its tokens do not follow each other")
    if any(id >= count or not flags[id] & ADDED for id in added):
        _malformed("an added token is out of range")
    tokens, kinds = _tokens(offsets, text, flags)
    merges = _merges(sections.words(places[4], 4 * slots), tokens)
    return Vocabulary(tokens, kinds, merges)


def _malformed(what: str) -> NoReturn:
    raise DamagedModelError(
        "The tokenizer is damaged: {what}.", "Download the model again.", what=what
    )


class _Sections:
    """Parts of the blob, checked to be inside."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def part(self, begin: int, size: int) -> bytes:
        if begin + size > len(self._blob):
            _malformed("it is truncated")
        return self._blob[begin : begin + size]

    def words(self, begin: int, count: int) -> array[int]:
        words = array("I")
        words.frombytes(self.part(begin, 4 * count))
        if sys.byteorder != "little":
            words.byteswap()
        return words


def _tokens(offsets: Sequence[int], text: bytes, flags: bytes) -> tuple[list[str], list[int]]:
    from_latin = {byte: ord(character) for byte, character in byte_alphabet().items()}
    # All at once: a character of the byte alphabet stands for each byte.
    characters = text.decode("latin-1").translate(from_latin)
    tokens: list[str] = []
    kinds: list[int] = []
    for flag, (begin, end) in zip(flags, pairwise(offsets), strict=True):
        token, kind = characters[begin:end], Kind.NORMAL if end > begin else Kind.UNUSED
        if flag & ADDED:
            try:
                token = text[begin:end].decode()
            except UnicodeDecodeError:
                _malformed("an added token is not UTF-8")
            kind = kind_of_added(token, bool(flag & SPECIAL))
        tokens.append(token)
        kinds.append(kind)
    if len(set(tokens) - {""}) != sum(1 for token in tokens if token):
        _malformed("two tokens have the same text")
    return tokens, kinds


def _merges(table: Sequence[int], tokens: Sequence[str]) -> list[str]:
    count = len(tokens)
    found = []
    for place in range(0, len(table), 4):
        left, right, rank, merged = table[place : place + 4]
        if left == NO_TOKEN:
            continue
        if max(left, right, merged) >= count:
            _malformed("a merge is out of range")
        if tokens[left] + tokens[right] != tokens[merged] or " " in tokens[merged]:
            _malformed("a merge does not make the token it names")
        found.append((rank, f"{tokens[left]} {tokens[right]}"))
    found.sort()
    return [merge for _, merge in found]
