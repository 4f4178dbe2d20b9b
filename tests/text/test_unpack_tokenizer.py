"""The packed tokenizer unpacks to what makes it again, and to what Hugging Face's library reads."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import tokenizers

from qwen_edge.errors import DamagedModelError
from qwen_edge.text.pack_tokenizer import pack_tokenizer
from qwen_edge.text.unpack_tokenizer import unpack_tokenizer
from qwen_edge.text.vocabulary import Kind, Vocabulary, padded, tokenizer_json

TEXTS = [
    "Hello, world! <|im_start|>user\nno\u0308 <think>\n\n</think>",
    "  你好，世界\r\n\t1234 it's <|fim_prefix|>",
    "Привет 😀 \u0000\u0007 a   b",
]


def library(definition: bytes) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(definition.decode())


def test_qwens_tokenizer_comes_back(blob: bytes, definition: bytes) -> None:
    vocabulary = unpack_tokenizer(blob)
    original = json.loads(definition)
    again = tokenizer_json(vocabulary)
    rebuilt = json.loads(again)
    assert pack_tokenizer(again) == blob
    assert rebuilt["model"]["vocab"] == original["model"]["vocab"]
    merges = [m.split(" ") if isinstance(m, str) else m for m in original["model"]["merges"]]
    assert rebuilt["model"]["merges"] == merges
    assert rebuilt["added_tokens"] == original["added_tokens"]
    mine, theirs = library(again), library(definition)
    for text in TEXTS:
        assert mine.encode(text).ids == theirs.encode(text).ids


@pytest.mark.parametrize("first", [None, 2000])
def test_small_tokenizers_come_back(small_definition: dict[str, Any], first: int | None) -> None:
    changed = json.loads(json.dumps(small_definition))
    if first is not None:
        # Ids with a hole before them, which the vocabulary must name.
        for i, token in enumerate(changed["added_tokens"]):
            changed["model"]["vocab"].pop(token["content"], None)
            changed["model"]["vocab"][token["content"]] = token["id"] = first + i
    packed = pack_tokenizer(json.dumps(changed).encode())
    again = tokenizer_json(unpack_tokenizer(packed))
    assert pack_tokenizer(again) == packed
    theirs, mine = library(json.dumps(changed).encode()), library(again)
    for text in TEXTS:
        assert mine.encode(text).ids == theirs.encode(text).ids


def test_padding_gives_every_unused_id_a_text_of_its_own() -> None:
    vocabulary = Vocabulary(["a", "", "[PAD1]", "<x>"], [1, 5, 1, 4], [])
    tokens, kinds, _ = padded(vocabulary, 6)
    assert tokens == ["a", "[[PAD1]]", "[PAD1]", "<x>", "[PAD4]", "[PAD5]"]
    assert kinds == [1, Kind.UNUSED, 1, 4, Kind.UNUSED, Kind.UNUSED]


def test_damaged_blobs_are_refused_or_read(small_definition: dict[str, Any]) -> None:
    packed = pack_tokenizer(json.dumps(small_definition).encode())
    numbers = random.Random(5)
    refused = 0
    for _ in range(300):
        damaged = bytearray(packed)
        for _ in range(numbers.randint(1, 8)):
            damaged[numbers.randrange(120 if numbers.random() < 0.5 else len(packed))] = (
                numbers.randrange(256)
            )
        try:
            unpack_tokenizer(bytes(damaged[: numbers.choice([len(packed), 5000])]))
        except DamagedModelError:
            refused += 1
    assert refused > 100
    with pytest.raises(DamagedModelError):
        unpack_tokenizer(b"")
