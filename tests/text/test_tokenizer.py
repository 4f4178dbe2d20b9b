"""What the tokenizer does at the edges of its interface."""

from __future__ import annotations

import threading

import pytest

from qwen_edge.errors import UsageError
from qwen_edge.text.tokenizer import Tokenizer
from tests.text.make_text import make_texts


def test_empty_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == []
    assert tokenizer.encode("", allow_special=True) == []
    assert tokenizer.decode([]) == ""


def test_lone_surrogates_become_the_replacement_character(tokenizer: Tokenizer) -> None:
    for lone in ("\ud800", "\udfff", "\udc80", "\udc00\ud800"):
        replaced = "\ufffd" * len(lone)
        for text in ("{}", "a{}b", "\ufeff{}\n"):
            assert tokenizer.encode(text.format(lone)) == tokenizer.encode(text.format(replaced))


def test_a_pair_of_surrogates_is_its_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("x\ud83d\ude00\ud800") == tokenizer.encode("x😀\ufffd")


def test_control_text_is_plain_unless_allowed(tokenizer: Tokenizer) -> None:
    text = "a<|im_end|>\n<think>"
    control = set(tokenizer.special_ids().values())
    assert not control & set(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    im_end, think = (tokenizer.special_ids()[name] for name in ("<|im_end|>", "<think>"))
    newline = tokenizer.encode("\n")
    assert tokenizer.encode(text, allow_special=True) == [64, im_end, *newline, think]


def test_normalization_stops_at_control_tokens(tokenizer: Tokenizer) -> None:
    # The accent belongs to nothing here, and the token's own text is not normalized.
    ids = tokenizer.encode("e<think>\u0301", allow_special=True)
    assert tokenizer.decode(ids) == "e<think>\u0301"


def test_text_that_normalization_makes_longer(tokenizer: Tokenizer) -> None:
    # U+1D160 takes 4 bytes and becomes three characters of 12.
    text = "\U0001d160" * 1000
    decoded = tokenizer.decode(tokenizer.encode(text))
    assert decoded == "\U0001d158\U0001d165\U0001d16e" * 1000


def test_skipping_leaves_what_is_not_special(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<think>a</think>b<|im_end|>", allow_special=True)
    assert tokenizer.decode(ids, skip_special=True) == "<think>a</think>b"
    assert tokenizer.decode(ids) == "<think>a</think>b<|im_end|>"


@pytest.mark.parametrize("id", [-1, 151_669, 151_935, 2**31 - 1, -(2**31)])
def test_ids_without_a_token_are_nothing(tokenizer: Tokenizer, id: int) -> None:
    assert tokenizer.token_bytes(id) == b""
    assert not tokenizer.is_special(id)
    assert tokenizer.decode([64, id, 65]) == "ab"


def test_ids_of_more_than_32_bits(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes(2**40) == b""
    with pytest.raises(UsageError):
        tokenizer.decode([2**40])


def test_bytes_of_half_a_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(" 🦙")
    assert len(ids) > 1
    assert b"".join(map(tokenizer.token_bytes, ids)) == " 🦙".encode()
    assert tokenizer.decode_bytes(ids[:1]) == " 🦙".encode()[: len(tokenizer.token_bytes(ids[0]))]
    assert tokenizer.decode(ids[:1]) == " \ufffd"


def test_many_long_tokens_decode(tokenizer: Tokenizer) -> None:
    longest = max(range(tokenizer.vocab_size), key=lambda id: len(tokenizer.token_bytes(id)))
    token = tokenizer.token_bytes(longest)
    assert len(token) > 64
    assert tokenizer.decode_bytes([longest] * 100) == token * 100


def test_threads_share_one_tokenizer(tokenizer: Tokenizer) -> None:
    texts = make_texts(5, 500)
    expected = [tokenizer.encode(text) for text in texts]
    wrong: list[str] = []

    def work() -> None:
        for text, ids in zip(texts, expected, strict=True):
            if tokenizer.encode(text) != ids:
                wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
