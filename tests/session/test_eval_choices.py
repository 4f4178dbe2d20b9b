"""Choices weighed by an engine whose probabilities are known."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import pytest

from qwen_edge.engine.interface import Logits, Row
from qwen_edge.session.eval_choices import LETTER, TEXT, ChoiceEvaluation, longest, prepare
from qwen_edge.session.eval_questions import Question
from qwen_edge.session.eval_result import Judgement
from qwen_edge.text.qwen3_template import QWEN3_TEMPLATE
from tests.session.scripted import ScriptedEngine, byte_tokenizer


class PairEngine(ScriptedEngine):
    """An engine whose logits follow from the last character alone: 0 but for given pairs."""

    def __init__(self, pairs: dict[str, float]) -> None:
        self.tokenizer = byte_tokenizer()
        super().__init__(self.tokenizer)
        self._pairs = pairs
        self._kept: list[ctypes.Array[ctypes.c_float]] = []

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        self._ids += [row.token for row in rows]
        self.computed += len(rows)
        self._kept = [self._row(row.token) for row in rows if row.wants_logits]
        return [Logits(ctypes.addressof(row), self.vocab_size) for row in self._kept]

    def _row(self, token: int) -> ctypes.Array[ctypes.c_float]:
        values = (ctypes.c_float * self.vocab_size)()
        for (first, second), logit in self._pairs.items():
            if ord(first) == token:
                values[ord(second)] = logit
        return values

    def logprob(self, first: str, second: str) -> float:
        """What the engine's own table gives."""
        logits = {pair[1]: logit for pair, logit in self._pairs.items() if pair[0] == first}
        total = sum(math.exp(logit) for logit in logits.values())
        total += self.vocab_size - len(logits)
        return logits.get(second, 0.0) - math.log(total)


def judged(engine: PairEngine, questions: Sequence[Question], scoring: str) -> list[Judgement]:
    exams = prepare(questions, engine.tokenizer, QWEN3_TEMPLATE, scoring)
    evaluation = ChoiceEvaluation(engine, exams, lambda tokens: None)
    evaluation.run()
    assert evaluation.choices is not None
    return list(evaluation.choices.judgements)


def test_letters_are_compared_after_the_prompt() -> None:
    # The prompt ends with a line break.
    engine = PairEngine({"\nB": 2.0, "\nC": 1.0, "\nD": 9.0})
    question = Question(7, "Q", ("x", "y", "z"), 2, "kind")
    (found,) = judged(engine, [question], LETTER)
    assert (found.line, found.category, found.answer, found.chosen) == (7, "kind", 2, 1)
    expected = [engine.logprob("\n", letter) for letter in "ABC"]
    assert found.scores == pytest.approx(expected, abs=1e-6)


def test_texts_are_compared_by_the_byte() -> None:
    engine = PairEngine({"\na": 1.0, "\nx": 2.0, "ab": 6.0, "ba": 6.0})
    question = Question(1, "Q", ("x", "ababab", "é"), 1, "")
    (found,) = judged(engine, [question], TEXT)
    long = engine.logprob("\n", "a") + 3 * engine.logprob("a", "b") + 2 * engine.logprob("b", "a")
    first = engine.logprob("\n", "\xc3") + engine.logprob("\xc3", "\xa9")
    expected = [engine.logprob("\n", "x"), long / 6, first / 2]
    assert found.scores == pytest.approx(expected, abs=1e-6)
    # In all it is less likely than the short one.
    assert found.chosen == 1
    assert long < expected[0]


def test_of_equal_choices_the_first_is_taken() -> None:
    (found,) = judged(PairEngine({}), [Question(1, "Q", ("x", "y"), 1, "")], LETTER)
    assert found.chosen == 0


def test_the_prompt_shows_choices_only_for_letters() -> None:
    tokenizer = byte_tokenizer()
    questions = [
        Question(1, "Where is Paris?", ("France", "Italy"), 0, ""),
        Question(2, "巴黎在哪里？", ("法国", "意大利"), 0, ""),
    ]
    english, chinese = prepare(questions, tokenizer, QWEN3_TEMPLATE, LETTER)
    shown = tokenizer.decode(english.prompt)
    assert "Where is Paris?\nA. France\nB. Italy\nAnswer with the letter" in shown
    assert shown.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert "A. 法国\nB. 意大利\n请只回答正确选项的字母。" in tokenizer.decode(chinese.prompt)
    plain, _ = prepare(questions, tokenizer, QWEN3_TEMPLATE, TEXT)
    assert "France" not in tokenizer.decode(plain.prompt)
    assert [tokenizer.decode(answer) for answer in plain.answers] == ["France", "Italy"]
    assert longest([plain]) == len(plain.prompt) + 6


def test_what_questions_have_in_common_is_computed_once() -> None:
    question = Question(1, "A question of some length", ("x", "y"), 0, "")
    other = PairEngine({"\nB": 1.0})
    single = PairEngine({"\nB": 1.0})
    (alone,) = judged(single, [question], LETTER)
    twice = judged(other, [question, question], LETTER)
    assert twice == [alone, alone]
    assert other.computed == single.computed + 1
