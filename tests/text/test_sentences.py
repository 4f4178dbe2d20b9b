"""Cutting a growing text into sentences to be spoken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.text.sentences import Sentences


def cut(text: str, size: int = 1) -> list[str]:
    """The sentences of a text that comes in pieces of a size."""
    sentences = Sentences()
    found = [
        sentence
        for start in range(0, len(text), size)
        for sentence in sentences.push(text[start : start + size])
    ]
    return found + sentences.finish()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
        ("Pi is 3.14. Really.", ["Pi is 3.14.", "Really."]),
        ("Fruit, e.g. an apple, is good. Eat it.", ["Fruit, e.g. an apple, is good.", "Eat it."]),
        ("Dr. Who met J. Smith in the U.S. Army.", ["Dr. Who met J. Smith in the U.S. Army."]),
        ("See fig. 3. No. It is no. 7. End", ["See fig. 3.", "No.", "It is no. 7.", "End"]),
        ("So he left... and came back. Yes", ["So he left... and came back.", "Yes"]),
        ('He said "Go." Then (it ended.) Now.', ['He said "Go."', "Then (it ended.)", "Now."]),
        ("Visit qwen.ai now. Good", ["Visit qwen.ai now.", "Good"]),
        ("你好。我是小明！真的吗？是的", ["你好。", "我是小明！", "真的吗？", "是的"]),
        ("“真的吗？”他问。『好！』", ["“真的吗？”", "他问。", "『好！』"]),
        ("价格是3.14元。", ["价格是3.14元。"]),
        ("什么？！不会吧。", ["什么？！", "不会吧。"]),
        ("One line\nanother\n\n", ["One line", "another"]),
        ("1. First. Then.\n2. Second", ["1. First.", "Then.", "2. Second"]),
        ("a. One\n- Two\n* Three", ["a. One", "Two", "Three"]),
        ("# Title\n> Quote", ["Title", "Quote"]),
        ("**Bold.** *Next* `code` __x__ snake_case", ["Bold.", "Next code x snake_case"]),
        ("[A link](https://a.b/c_d) ![image](x.png).", ["A link image."]),
        ("2*3 = 6, 2 * 3 too", ["2*3 = 6, 2 * 3 too"]),
        ("| a | b |\n|---|---|\n| 1 | 2 |", ["a , b", "1 , 2"]),
        ("Before.\n```python\nx = 1. Y = 2\n```\nAfter.", ["Before.", "After."]),
        ("~~~\n```\nx. Y\n~~~\nAfter.", ["After."]),
        ("```\nnever closed. No", []),
        ("... !!! --- \n***", []),
        ("", []),
        ("\x1b[31mred\x07. \u202eNext", ["[31mred.", "Next"]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_sentences(text: str, expected: list[str], size: int) -> None:
    assert cut(text, size) == expected


def test_a_sentence_comes_as_soon_as_the_next_one_begins() -> None:
    sentences = Sentences()
    assert sentences.push("One two.") == []
    assert sentences.push(" T") == ["One two."]
    assert sentences.push("hree\n") == ["Three"]
    assert sentences.push("好。") == []
    assert sentences.push("他") == ["好。"]


@pytest.mark.parametrize("text", ["word " * 200, "word, " * 200, "字" * 900, "字，" * 400])
def test_what_has_no_end_is_cut(text: str) -> None:
    found = cut(text, 7)
    assert all(0 < len(sentence) <= 240 for sentence in found)
    said = "".join("".join(found).split())
    assert said.count("字") + said.count("word") == text.count("字") + text.count("word")


@given(st.text(alphabet="aB1. \n。！？\"'`*_-#|…()e.g", max_size=80), st.integers(1, 9))
def test_pieces_make_no_difference_to_what_is_said(text: str, size: int) -> None:
    whole, pieces = cut(text, max(len(text), 1)), cut(text, size)
    assert "".join("".join(pieces).split()) == "".join("".join(whole).split())
    assert all(any(map(str.isalnum, sentence)) for sentence in pieces)
