"""Which of the given choices a model holds likeliest, question by question.

Two scorings: ``letter`` shows the model question and choices and compares how likely each letter is
as its answer; ``text`` shows it the question alone and compares how likely each choice's text is as
the answer, a byte of it on average, so that long choices are not at a disadvantage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from qwen_edge.engine.generate import keep_prefix
from qwen_edge.engine.interface import Engine, Logits, Row
from qwen_edge.engine.scoring import score_rows
from qwen_edge.errors import UsageError
from qwen_edge.session.eval_models import logit_rows
from qwen_edge.session.eval_questions import LETTERS, Question
from qwen_edge.session.eval_result import Choices, Judgement
from qwen_edge.text.chat_template import encode_chat
from qwen_edge.text.tokenizer import Tokenizer

LETTER, TEXT = "letter", "text"
SCORINGS = (LETTER, TEXT)
_ASK = "Answer with the letter of the right choice only."
_ASK_ZH = "请只回答正确选项的字母。"


class Exam(NamedTuple):
    """A question as the model gets it.

    Attributes:
        question: as it was read.
        prompt: ids.
        answers: ids of each choice.
        sizes: bytes that each choice's score is divided by.
    """

    question: Question
    prompt: list[int]
    answers: list[list[int]]
    sizes: list[int]


def prepare(
    questions: Sequence[Question], tokenizer: Tokenizer, template: str, scoring: str
) -> list[Exam]:
    """Puts questions into the model's chat template, thinking off.

    Raises:
        DamagedModelError: the template fails.
        UsageError: the template refuses, or makes nothing of a question.
    """
    exams = []
    for question in questions:
        shown = question.text if scoring == TEXT else _with_choices(question)
        messages = [{"role": "user", "content": shown}]
        prompt = encode_chat(tokenizer, template, messages, enable_thinking=False)
        if not prompt:
            raise UsageError("The prompt is empty.", "Give some text to answer.")
        texts = question.choices if scoring == TEXT else LETTERS[: len(question.choices)]
        sizes = [len(text.encode()) if scoring == TEXT else 1 for text in texts]
        exams.append(Exam(question, prompt, [tokenizer.encode(text) for text in texts], sizes))
    return exams


def longest(exams: Sequence[Exam]) -> int:
    """Positions that the longest question and choice take."""
    return max(len(exam.prompt) + max(map(len, exam.answers)) for exam in exams)


def _with_choices(question: Question) -> str:
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, question.choices, strict=False)]
    ask = _ASK_ZH if any("\u4e00" <= sign <= "\u9fff" for sign in question.text) else _ASK
    return "\n".join([question.text, *lines, ask])


class ChoiceEvaluation:
    """Questions for one model; ``run`` may be broken off, and what was found can be read.

    Args:
        engine: its first sequence is used; its context takes the longest question.
        exams: the questions.
        step: called after each call of the engine with the tokens computed.
    """

    def __init__(self, engine: Engine, exams: Sequence[Exam], step: Callable[[int], None]) -> None:
        self._engine = engine
        self._exams = exams
        self._step = step
        self._threads = max(engine.config.prefill_threads, engine.config.threads, 1)
        self._judgements: list[Judgement] = []

    @property
    def choices(self) -> Choices | None:
        """What was found so far, if anything."""
        return Choices(self._judgements) if self._judgements else None

    def run(self) -> None:
        """Goes through all questions.

        Raises:
            DamagedModelError: the model computes what is not a number.
            MemoryLimitError: memory ran out.
            UsageError: a question does not fit into the context.
        """
        for exam in self._exams:
            scores = tuple(
                total / size for total, size in zip(self._logprobs(exam), exam.sizes, strict=True)
            )
            question = exam.question
            # Of equal scores the first counts.
            chosen = scores.index(max(scores))
            self._judgements.append(
                Judgement(question.line, question.category, question.answer, chosen, scores)
            )

    def _logprobs(self, exam: Exam) -> list[float]:
        """Natural log probability of each answer after the prompt."""
        prompt = exam.prompt
        # What a question has in common with the one before is not computed again.
        done = keep_prefix(self._engine, prompt[:-1], 0)
        most = self._engine.config.prefill_rows
        logits: list[Logits] = []
        for begin in range(done, len(prompt), most):
            end = min(begin + most, len(prompt))
            wanted = len(prompt) - 1 - begin
            logits = self._forward(prompt[begin:end], begin, first_wanted=wanted)
        firsts = [answer[0] for answer in exam.answers]
        scores = score_rows(logits * len(firsts), firsts, self._threads)
        found = [[score.logprob] for score in scores]
        for answer, parts in zip(exam.answers, found, strict=True):
            parts += self._rest(answer, len(prompt))
        return [math.fsum(parts) for parts in found]

    def _rest(self, answer: Sequence[int], start: int) -> list[float]:
        """Log probabilities of an answer's tokens but the first."""
        if len(answer) < 2:
            return []
        self._engine.truncate(start)
        found: list[float] = []
        rows = logit_rows(self._engine.vocab_size)
        for begin in range(0, len(answer) - 1, rows):
            part = answer[begin : min(begin + rows, len(answer) - 1)]
            logits = self._forward(part, start + begin, first_wanted=0)
            following = answer[begin + 1 : begin + 1 + len(part)]
            scores = score_rows(logits, following, self._threads)
            found += [score.logprob for score in scores]
        return found

    def _forward(self, ids: Sequence[int], start: int, *, first_wanted: int) -> list[Logits]:
        """Computes ids from a position on; logits of those from ``first_wanted`` on."""
        logits = self._engine.forward(
            [Row(0, start + i, token, i >= first_wanted) for i, token in enumerate(ids)]
        )
        self._step(len(ids))
        return logits
