"""Questions with given choices, from a file of JSON lines in the shapes that are about.

* ``{"question": "…", "choices": ["…", "…"], "answer": 1}``; the answer is an index from 0, a
  letter, or the text of a choice, and ``options`` does for ``choices``;
* ``{"question": "…", "choices": {"A": "…", "B": "…"}, "answer": "B"}``;
* ``{"question": "…", "choices": {"text": ["…"], "label": ["A"]}, "answerKey": "A"}``, as in ARC;
* ``{"question": "…", "A": "…", "B": "…", "C": "…", "D": "…", "answer": "C"}``, as C-Eval has it;
* ``["…", "first choice", "…", "C"]``, a line of MMLU's tables as a list.

A field ``category`` or ``subject`` sorts the questions. Case does not matter in names of fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from qwen_edge.errors import UsageError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_QUESTION = ("question", "prompt", "问题")
_CHOICES = ("choices", "options", "选项")
_ANSWER = ("answer", "answer_index", "answer_idx", "answerkey", "label", "答案")
_CATEGORY = ("category", "subject", "类别")
_HINT = "Each line is like {example}."
_EXAMPLE = '{"question": "…", "choices": ["…", "…"], "answer": "A"}'
# "A. Paris", "(A) Paris", "A、巴黎": the letter is put there again by the prompt.
_LETTERED = re.compile(r"\(?([A-Z])(?:[.:)：、．]|）)\s*")


class Question(NamedTuple):
    """One question.

    Attributes:
        line: of the file, from 1.
        text: what is asked.
        choices: 2 to 26 texts.
        answer: index of the right one.
        category: may be empty.
    """

    line: int
    text: str
    choices: tuple[str, ...]
    answer: int
    category: str


def read_questions(text: str, limit: int | None = None) -> list[Question]:
    """Reads a file's text; blank lines count as lines only.

    Args:
        text: of the file.
        limit: the most questions; what comes after them is not looked at.

    Raises:
        UsageError: a line is no question, or there is none at all.
    """
    found: list[Question] = []
    for number, line in enumerate(text.split("\n"), 1):
        if limit is not None and len(found) >= limit:
            break
        if line.strip():
            found.append(_question(line, number))
    if not found:
        raise UsageError("The file holds no questions.", _HINT, example=_EXAMPLE)
    return found


def _question(line: str, number: int) -> Question:
    try:
        table = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("Line {line} is not JSON.", _HINT, line=number, example=_EXAMPLE) from None
    if isinstance(table, list):
        table = _table_of_list(table)
    if not isinstance(table, dict):
        raise UsageError("Line {line} holds no question.", _HINT, line=number, example=_EXAMPLE)
    lower = {str(key).lower(): value for key, value in table.items()}
    text = _first(lower, _QUESTION)
    if not isinstance(text, str) or not text.strip():
        raise UsageError("Line {line} holds no question.", _HINT, line=number, example=_EXAMPLE)
    labels, choices = _choices(table, lower)
    if not choices or not all(isinstance(one, str) and one.strip() for one in choices):
        raise UsageError(
            "Line {line} does not hold choices that are texts.",
            _HINT,
            line=number,
            example=_EXAMPLE,
        )
    if not 2 <= len(choices) <= len(LETTERS):
        raise UsageError(
            "Line {line} has {count} choices; {low} to {high} are possible.",
            line=number, count=len(choices), low=2, high=len(LETTERS),
        )  # fmt: skip
    texts = _without_letters([str(one).strip() for one in choices])
    given = _first(lower, _ANSWER)
    answer = _answer(given, labels, texts)
    if answer is None:
        raise UsageError(
            "Line {line}: the answer {answer} is none of the {count} choices.",
            "It is an index from 0, a letter, or the text of a choice.",
            line=number, answer=json.dumps(given, ensure_ascii=False)[:100], count=len(texts),
        )  # fmt: skip
    category = _first(lower, _CATEGORY)
    return Question(
        number,
        text.strip(),
        tuple(texts),
        answer,
        category.strip() if isinstance(category, str) else "",
    )


def _table_of_list(row: Sequence[object]) -> Mapping[str, object] | None:
    if len(row) < 4:
        return None
    return {"question": row[0], "choices": list(row[1:-1]), "answer": row[-1]}


def _first(table: Mapping[str, object], names: Sequence[str]) -> object:
    return next((table[name] for name in names if name in table), None)


def _choices(
    table: Mapping[str, object], lower: Mapping[str, object]
) -> tuple[Sequence[str], Sequence[object]]:
    """Labels and texts of the choices, as far as there are any."""
    found = _first(lower, _CHOICES)
    if isinstance(found, list):
        return LETTERS[: len(found)], found
    if isinstance(found, dict):
        texts, labels = found.get("text"), found.get("label")
        if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels):
            return [str(label) for label in labels], texts
        return [str(label) for label in found], list(found.values())
    letters = []
    for letter in LETTERS:
        # Tables have empty cells where a question has fewer choices than others.
        if table.get(letter) in (None, ""):
            break
        letters.append(letter)
    return letters, [table[letter] for letter in letters]


def _answer(given: object, labels: Sequence[str], texts: Sequence[str]) -> int | None:
    """Index of the right choice; None where the answer is none of them."""
    if isinstance(given, int) and not isinstance(given, bool):
        return given if 0 <= given < len(texts) else None
    if not isinstance(given, str):
        return None
    wanted = given.strip()
    for candidates in (labels, LETTERS[: len(texts)], texts):
        same = [index for index, one in enumerate(candidates) if one.lower() == wanted.lower()]
        if len(same) == 1:
            return same[0]
    return None


def _without_letters(texts: Sequence[str]) -> Sequence[str]:
    """The texts without letters of their own, if all of them bear theirs."""
    matches = [_LETTERED.match(text) for text in texts]
    for letter, text, match in zip(LETTERS, texts, matches, strict=False):
        if match is None or match.group(1) != letter or match.end() == len(text):
            return texts
    return [text[match.end() :] for text, match in zip(texts, matches, strict=True) if match]
