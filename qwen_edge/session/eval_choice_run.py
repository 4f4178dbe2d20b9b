"""The evaluation of questions with given choices from beginning to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qwen_edge.errors import UsageError
from qwen_edge.session.eval_choices import ChoiceEvaluation, longest, prepare
from qwen_edge.session.eval_models import Precision, Words, load_engines
from qwen_edge.session.eval_questions import Question
from qwen_edge.session.eval_result import Report
from qwen_edge.session.eval_run import Run, Stepper, Watcher, checksum_of

# What the settings allow; shorter questions do not mind.
_SHORTEST_CONTEXT = 64


class ChoiceRun(Run):
    """Accuracy on questions with given choices.

    Args:
        questions: at least one.
        scoring: one of ``eval_choices.SCORINGS``.
        context: that questions have to fit into; None for as much as the model takes.
    """

    def __init__(
        self,
        flags: Mapping[str, object],
        questions: Sequence[Question],
        scoring: str,
        context: int | None,
        precision: Precision,
        watcher: Watcher,
    ) -> None:
        super().__init__(flags, precision, watcher)
        self._questions = questions
        self._scoring = scoring
        self._context = context
        self._evaluation: ChoiceEvaluation | None = None
        self._checksum = ""

    def run(self) -> None:
        """Goes through all questions.

        Raises:
            UsageError: a question does not fit, or a bad setting.
            ModelNotFoundError: there is no such model.
            DamagedModelError: the model cannot be used.
            MemoryLimitError: it does not fit.
        """
        with Words(self._flags) as words:
            template = words.model.chat_template
            exams = prepare(self._questions, words.tokenizer, template, self._scoring)
            most = self._context or words.model.config.max_positions
            path = words.path
        for exam in exams:
            length = longest([exam])
            if length > most:
                raise UsageError(
                    "Line {line}: the question takes {length} tokens, the context holds {context}.",
                    "Raise --context if the model takes more, or leave the question out.",
                    line=exam.question.line,
                    length=length,
                    context=most,
                )
        self._checksum = checksum_of([id for exam in exams for id in exam.prompt])
        context = min(max(longest(exams), _SHORTEST_CONTEXT), most)
        setup = self._watcher.setup
        with load_engines(self._flags, [path], context, self._precision, watcher=setup) as engines:
            self._describe(engines, scoring=self._scoring)
            self._watcher.begin(
                sum(
                    len(exam.prompt) + sum(len(answer) - 1 for answer in exam.answers)
                    for exam in exams
                )
            )
            step = Stepper(engines, self._watcher)
            self._evaluation = ChoiceEvaluation(engines.engines[0], exams, step)
            self._evaluation.run()

    def report(self, *, complete: bool) -> Report:
        """What was found so far."""
        source = {"questions": len(self._questions), "checksum": self._checksum}
        choices = self._evaluation.choices if self._evaluation else None
        return self._report(complete, source, choices=choices)
