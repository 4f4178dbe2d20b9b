"""Streaming gives the text of all ids, and never a part of a character."""

from __future__ import annotations

import random

import pytest

from qwen_edge.text.detokenizer import StreamDecoder
from qwen_edge.text.tokenizer import Tokenizer
from tests.text.make_text import make_texts

TEXTS = ["👨‍👩‍👧‍👦!", "我想在🦙工作", "Cửa Việt ✅", "कि\u0301 한국어", "a\u0301", "\U0010ffff\x00"]


def stream(tokenizer: Tokenizer, ids: list[int], skip_special: bool = True) -> list[str]:
    decoder = StreamDecoder(tokenizer, skip_special)
    return [*(decoder.push(id) for id in ids), decoder.finish()]


def byte_id(tokenizer: Tokenizer, byte: int) -> int:
    """The id of the token of one byte."""
    for id in range(256):
        if tokenizer.token_bytes(id) == bytes([byte]):
            return id
    raise AssertionError(f"byte {byte} has no token")


@pytest.mark.parametrize("text", TEXTS)
def test_characters_come_whole(tokenizer: Tokenizer, text: str) -> None:
    for ids in (
        tokenizer.encode(text),
        [byte_id(tokenizer, byte) for byte in text.encode()],
    ):
        pieces = stream(tokenizer, ids)
        assert not any("\ufffd" in piece for piece in pieces)
        assert "".join(pieces) == tokenizer.decode(ids)
        assert pieces[-1] == ""


@pytest.mark.parametrize("text", TEXTS)
def test_an_end_at_any_byte(tokenizer: Tokenizer, text: str) -> None:
    ids = [byte_id(tokenizer, byte) for byte in text.encode()]
    for end in range(len(ids)):
        pieces = stream(tokenizer, ids[:end])
        assert "".join(pieces) == text.encode()[:end].decode("utf-8", "replace")


def test_any_bytes_are_as_if_decoded_at_once(tokenizer: Tokenizer) -> None:
    chance = random.Random(6)
    table = [byte_id(tokenizer, byte) for byte in range(256)]
    hard = [
        0x41,
        0x80,
        0xBF,
        0xC0,
        0xC2,
        0xE0,
        0xE4,
        0xED,
        0xA0,
        0xF0,
        0x9F,
        0xF4,
        0x90,
        0xF5,
        0xFF,
    ]
    for _ in range(5000):
        ids = [table[chance.choice(hard)] for _ in range(chance.randint(1, 8))]
        assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


def test_any_ids_are_as_if_decoded_at_once(tokenizer: Tokenizer) -> None:
    chance = random.Random(7)
    for skip in (False, True):
        for _ in range(2000):
            ids = [chance.randrange(152_000) for _ in range(chance.randint(1, 12))]
            ids += chance.choices(range(151_640, 151_670), k=2)
            chance.shuffle(ids)
            expected = tokenizer.decode(ids, skip_special=skip)
            assert "".join(stream(tokenizer, ids, skip)) == expected


def test_generated_text_streams(tokenizer: Tokenizer) -> None:
    for text in make_texts(8, 3000):
        ids = tokenizer.encode(text, allow_special=True)
        assert "".join(stream(tokenizer, ids, False)) == tokenizer.decode(ids)


def test_invalid_bytes_do_not_wait(tokenizer: Tokenizer) -> None:
    decoder = StreamDecoder(tokenizer)
    assert decoder.push(byte_id(tokenizer, 0xFF)) == "\ufffd"
    assert decoder.push(byte_id(tokenizer, 0xE4)) == ""
    assert decoder.push(byte_id(tokenizer, 0x41)) == "\ufffdA"
