"""The native tokenizer against Hugging Face's, id for id."""

from __future__ import annotations

import json
import os
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from qwen_edge.text.pack_tokenizer import pack_tokenizer
from qwen_edge.text.tokenizer import Tokenizer
from tests.text.make_text import long_runs, make_texts

STRINGS = int(os.environ.get("QWEN_EDGE_TEST_STRINGS", "100000"))
BATCH = 20_000


def batches(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), BATCH):
        yield texts[start : start + BATCH]


def expect_same(
    texts: list[str],
    tokenizer: Tokenizer,
    oracle: tokenizers.Tokenizer,
    allow_special: bool = False,
) -> None:
    for batch in batches(texts):
        expected = oracle.encode_batch_fast(batch, add_special_tokens=False)
        for text, encoding in zip(batch, expected, strict=True):
            ids = tokenizer.encode(text, allow_special=allow_special)
            assert ids == encoding.ids, ascii(text)


def test_published_vectors(tokenizer: Tokenizer, qwen3_dir: Path) -> None:
    vectors = json.loads((qwen3_dir / "token_vectors.json").read_text(encoding="utf-8"))
    assert len(vectors) > 40
    for vector in vectors:
        assert tokenizer.encode(vector["text"]) == vector["ids"], ascii(vector["text"])


def test_every_code_point(tokenizer: Tokenizer, plain_oracle: tokenizers.Tokenizer) -> None:
    texts = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    expect_same(texts, tokenizer, plain_oracle)


def test_every_code_point_in_company(
    tokenizer: Tokenizer, plain_oracle: tokenizers.Tokenizer
) -> None:
    """Shows what each character joins, and whether marks move around it.

    Past plane 1 there are only ideographs, tags and private characters: a sample will do.
    """
    codes = [c for c in (*range(0x20000), *range(0x20000, 0x110000, 61)) if c >> 11 != 27]
    texts = [
        "".join(f"a{chr(c)}.\u0345{chr(c)}\u0334" for c in codes[start : start + 64])
        for start in range(0, len(codes), 64)
    ]
    expect_same(texts, tokenizer, plain_oracle)


def test_generated_plain_text(tokenizer: Tokenizer, plain_oracle: tokenizers.Tokenizer) -> None:
    expect_same(make_texts(1, STRINGS * 3 // 4), tokenizer, plain_oracle)


def test_generated_text_with_control_tokens(
    tokenizer: Tokenizer, oracle: tokenizers.Tokenizer
) -> None:
    expect_same(make_texts(2, STRINGS // 4), tokenizer, oracle, allow_special=True)


def test_long_runs_are_right_and_fast(tokenizer: Tokenizer, oracle: tokenizers.Tokenizer) -> None:
    for text in long_runs():
        start = time.perf_counter()
        ids = tokenizer.encode(text, allow_special=True)
        assert time.perf_counter() - start < 2, ascii(text[:8])
        assert ids == oracle.encode(text).ids, ascii(text[:8])


def test_every_token_decodes(tokenizer: Tokenizer, oracle: tokenizers.Tokenizer) -> None:
    assert tokenizer.vocab_size == oracle.get_vocab_size()
    for id in range(tokenizer.vocab_size):
        text = oracle.decode([id], skip_special_tokens=False)
        assert tokenizer.decode([id]) == text
    shown = [oracle.decode([id]) for id in range(151_640, tokenizer.vocab_size)]
    assert shown == [
        tokenizer.decode([id], skip_special=True) for id in range(151_640, tokenizer.vocab_size)
    ]


def test_text_comes_back_in_form_c(tokenizer: Tokenizer) -> None:
    normalize = tokenizers.normalizers.NFC().normalize_str
    # Characters that were there in Unicode 3.2 normalize alike in every version since.
    old = unicodedata.ucd_3_2_0
    compared = 0
    for text in make_texts(3, 20_000):
        decoded = tokenizer.decode(tokenizer.encode(text))
        assert decoded == normalize(text), ascii(text)
        if all(old.category(c) != "Cn" for c in text):
            compared += 1
            assert decoded == unicodedata.normalize("NFC", text), ascii(text)
    assert compared > 5_000


def test_all_added_tokens(tokenizer: Tokenizer, definition: bytes) -> None:
    added = json.loads(definition)["added_tokens"]
    assert tokenizer.special_ids() == {token["content"]: token["id"] for token in added}
    for token in added:
        assert tokenizer.is_special(token["id"]) is token["special"]
        assert tokenizer.encode(token["content"], allow_special=True) == [token["id"]]
        assert token["id"] not in tokenizer.encode(token["content"])


@pytest.mark.parametrize("allow_special", [False, True])
def test_a_small_trained_tokenizer(
    small_definition: dict[str, Any],
    open_blob_of: Callable[[bytes], Tokenizer],
    allow_special: bool,
) -> None:
    """One whose special tokens lie at the start of the vocabulary, one being another's prefix."""
    tokenizer = open_blob_of(pack_tokenizer(json.dumps(small_definition).encode()))
    parts = dict(small_definition, added_tokens=[]) if not allow_special else small_definition
    oracle = tokenizers.Tokenizer.from_str(json.dumps(parts))
    texts = [*make_texts(4, 5000), *(text[:5000] for text in long_runs())]
    texts += [
        "<think>\n<think><think>\r",
        "<<think>\n\n",
        "<|im_end|><|im_end|",
        "<|im_start<|im_end|>",
    ]
    expect_same(texts, tokenizer, oracle, allow_special)


def test_merges_may_be_written_as_strings(
    small_definition: dict[str, Any], open_blob_of: Callable[[bytes], Tokenizer]
) -> None:
    blob = pack_tokenizer(json.dumps(small_definition).encode())
    merges = [" ".join(pair) for pair in small_definition["model"]["merges"]]
    parts = dict(small_definition, model=dict(small_definition["model"], merges=merges))
    assert pack_tokenizer(json.dumps(parts).encode()) == blob
