"""Questions with choices: the shapes that are read, and what is refused with its line."""

from __future__ import annotations

import json

import pytest

from qwen_edge.errors import UsageError
from qwen_edge.session.eval_questions import Question, read_questions

CITIES = ("Berlin", "Paris", "Rome")


@pytest.mark.parametrize(
    "line",
    [
        {"question": "Q", "choices": list(CITIES), "answer": 1},
        {"question": "Q", "choices": list(CITIES), "answer": "B"},
        {"question": "Q", "choices": list(CITIES), "answer": "b "},
        {"question": "Q", "choices": list(CITIES), "answer": "Paris"},
        {"Question": " Q ", "Options": list(CITIES), "Answer_Index": 1},
        {"question": "Q", "options": {"A": "Berlin", "B": "Paris", "C": "Rome"}, "answer": "B"},
        {"question": "Q", "A": "Berlin", "B": "Paris", "C": "Rome", "answer": "B"},
        {"question": "Q", "A": "Berlin", "B": "Paris", "C": "Rome", "D": "", "answer": "B"},
        {"question": "Q", "choices": {"text": list(CITIES), "label": ["1", "2", "3"]},
         "answerKey": "2"},
        {"question": "Q", "choices": ["A. Berlin", "B. Paris", "C. Rome"], "answer": "B"},
        {"question": "Q", "choices": ["(A) Berlin", "(B) Paris", "(C) Rome"], "answer": "B"},
        {"question": "Q", "choices": ["A、Berlin", "B、Paris", "C、Rome"], "answer": "B"},
        {"问题": "Q", "选项": list(CITIES), "答案": "B"},
        ["Q", *CITIES, "B"],
    ],
)  # fmt: skip
def test_shapes(line: object) -> None:
    assert read_questions(json.dumps(line)) == [Question(1, "Q", CITIES, 1, "")]


def test_lines_are_counted_and_limited() -> None:
    one = json.dumps({"question": "Q", "choices": ["x", "y"], "answer": 0, "subject": " sums "})
    text = f"\n{one}\r\n\n{one}\nnot a question\n"
    found = read_questions(text, limit=2)
    assert [(question.line, question.category) for question in found] == [(2, "sums"), (4, "sums")]
    with pytest.raises(UsageError, match="Line 5 is not JSON"):
        read_questions(text)


def test_letters_that_are_part_of_the_choices_stay() -> None:
    choices = ["B. Franklin", "A. Lincoln"]
    line = json.dumps({"question": "Q", "choices": choices, "answer": 0})
    assert read_questions(line)[0].choices == tuple(choices)


GOOD = {"question": "Q", "choices": ["x", "y"], "answer": 0}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("5", "holds no question"),
        ('["Q", "x", "A"]', "holds no question"),
        (GOOD | {"question": "  "}, "holds no question"),
        (GOOD | {"question": 5}, "holds no question"),
        (GOOD | {"choices": []}, "does not hold choices"),
        (GOOD | {"choices": "x"}, "does not hold choices"),
        (GOOD | {"choices": ["x", 5]}, "does not hold choices"),
        (GOOD | {"choices": ["x", " "]}, "does not hold choices"),
        ({"question": "Q", "answer": 0}, "does not hold choices"),
        (GOOD | {"choices": ["x"]}, "has 1 choices; 2 to 26 are possible"),
        (GOOD | {"choices": ["x"] * 27}, "has 27 choices"),
        (GOOD | {"answer": 2}, "the answer 2 is none of the 2 choices"),
        (GOOD | {"answer": -1}, "the answer -1 is none"),
        (GOOD | {"answer": "C"}, 'the answer "C" is none'),
        (GOOD | {"answer": True}, "the answer true is none"),
        (GOOD | {"answer": None}, "the answer null is none"),
        (GOOD | {"answer": "1"}, 'the answer "1" is none'),
        ({"question": "Q", "choices": ["x", "y"]}, "the answer null is none"),
    ],
)
def test_what_is_refused(line: object, said: str) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    with pytest.raises(UsageError) as caught:
        read_questions(json.dumps(GOOD) + "\n\n" + text)
    assert str(caught.value).startswith("Line 3")
    assert said in str(caught.value)


def test_a_file_without_questions_is_refused() -> None:
    with pytest.raises(UsageError, match="no questions"):
        read_questions("\n \n")
