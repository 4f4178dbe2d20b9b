"""An evaluation from beginning to end: models loaded, text or questions gone through, a report."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import qwen_edge
from qwen_edge.errors import UsageError
from qwen_edge.native.checksum import checksum
from qwen_edge.session.eval_choices import ChoiceEvaluation, longest, prepare
from qwen_edge.session.eval_models import Engines, Precision, Words, load_engines
from qwen_edge.session.eval_questions import Question
from qwen_edge.session.eval_reference import Reference, ReferenceWriter
from qwen_edge.session.eval_result import Choices, Divergence, Perplexity, Report
from qwen_edge.session.eval_text import EngineJudge, Judge, Text, TextEvaluation, cut_text
from qwen_edge.session.eval_windows import DEFAULT_CONTEXT
from qwen_edge.session.plan import Plan

# What the settings allow; shorter questions do not mind.
_SHORTEST_CONTEXT = 64


class Watcher(Protocol):
    """Is told what goes on."""

    def loaded(self, plan: Plan) -> None:
        """The model is loaded."""
        ...

    def begin(self, tokens: int) -> None:
        """So many tokens are going to be computed, at most."""
        ...

    def step(self, tokens: int) -> None:
        """So many more are done; may raise, KeyboardInterrupt say."""
        ...


@dataclass(frozen=True)
class TextOptions:
    """What is wanted of a text.

    Attributes:
        context: tokens of a window; None for the usual.
        stride: see ``eval_windows``.
        limit: the most windows.
        special: whether the text of control tokens stands for them.
        against: name or path of the model to compare with.
        reference: file to compare with, which brings its own text.
        save: file to keep the predictions in.
    """

    context: int | None = None
    stride: int | None = None
    limit: int | None = None
    special: bool = False
    against: str | None = None
    reference: Path | None = None
    save: Path | None = None


class _Run:
    """What evaluations have in common: each has ``run``, which may be broken off, and ``report``.

    Args:
        flags: settings as on the command line.
        precision: of all models.
        watcher: is told what goes on.
    """

    def __init__(self, flags: Mapping[str, object], precision: Precision, watcher: Watcher) -> None:
        self._flags = flags
        self._precision = precision
        self._watcher = watcher
        self._model: Mapping[str, object] = {}
        self._settings: Mapping[str, object] = {}

    def _describe(self, engines: Engines, **method: object) -> None:
        model = engines.plans[0].model
        self._model = {
            "name": model.name,
            "bytes": model.size,
            "quantization": dict(model.quantization),
        }
        about = engines.about(0)
        self._settings = {key: about[key] for key in ("kv", "activations", "isa")} | method
        self._watcher.loaded(engines.plans[0])

    def _report(
        self,
        complete: bool,
        source: Mapping[str, object],
        *,
        perplexity: Perplexity | None = None,
        divergence: Divergence | None = None,
        choices: Choices | None = None,
    ) -> Report:
        return Report(
            version=qwen_edge.__version__,
            complete=complete,
            model=self._model,
            settings=self._settings,
            source=source,
            perplexity=perplexity,
            divergence=divergence,
            choices=choices,
        )


class TextRun(_Run):
    """Perplexity of a text, and the divergence from a reference if there is one.

    Args:
        text: what is predicted; empty where a reference file brings it.
        options: what is wanted.
    """

    def __init__(
        self,
        flags: Mapping[str, object],
        text: str,
        options: TextOptions,
        precision: Precision,
        watcher: Watcher,
    ) -> None:
        super().__init__(flags, precision, watcher)
        self._raw = text
        self._options = options
        self._text: Text | None = None
        self._evaluation: TextEvaluation | None = None

    def run(self) -> None:
        """Goes through the whole text.

        Raises:
            UsageError: the text is too short, a reference does not fit, a bad setting.
            ModelNotFoundError: there is no such model.
            DamagedModelError: a model cannot be used.
            MemoryLimitError: it does not fit.
            QwenEdgeError: the reference cannot be written.
        """
        options = self._options
        with contextlib.ExitStack() as stack:
            models, vocab, identity, reference = self._open(stack)
            text = self._text
            assert text is not None
            packs = bool(options.save or options.reference)
            engines = stack.enter_context(
                load_engines(self._flags, models, text.context, self._precision, packs=packs)
            )
            self._describe(engines, context=text.context, stride=text.stride)
            # Two models take the same time twice.
            each = sum(window.end - 1 - window.begin for window in text.windows)
            self._watcher.begin(each * len(models))
            judges = [EngineJudge(engine, self._stepper(engines)) for engine in engines.engines]
            threads = judges[0].threads
            writer: ReferenceWriter | None = None
            if options.save is not None:
                writer = stack.enter_context(
                    ReferenceWriter(options.save, text, vocab, identity, engines.about(0), threads)
                )
            other: Judge | None = reference
            about: Mapping[str, object] = reference.about if reference else {}
            if options.against is not None:
                other, about = judges[1], engines.about(1)
            self._evaluation = TextEvaluation(
                text,
                judges[0],
                other,
                about,
                threads=threads,
                keep=writer.write if writer else None,
            )
            self._evaluation.run()
            if writer is not None:
                writer.finish()

    def report(self, *, complete: bool) -> Report:
        """What was found so far."""
        evaluation, text = self._evaluation, self._text
        source: dict[str, object] = {}
        if evaluation is not None and text is not None:
            source = {
                "tokens": len(text.ids),
                "windows": len(text.windows),
                "windows_done": evaluation.windows,
                "checksum": _checksum(text.ids),
            }
        return self._report(
            complete,
            source,
            perplexity=evaluation.perplexity if evaluation else None,
            divergence=evaluation.divergence if evaluation else None,
        )

    def _open(
        self, stack: contextlib.ExitStack
    ) -> tuple[Sequence[Path], int, int, Reference | None]:
        """Reads the text with the models' words.

        Returns:
            The models' files, length and identity of their vocabulary, and the reference file.
        """
        options = self._options
        with Words(self._flags) as words:
            identity = words.identity() if self._needs_identity() else 0
            reference: Reference | None = None
            if options.reference is not None:
                reference = stack.enter_context(
                    Reference(options.reference, words.vocab, identity, options.limit)
                )
                self._text = reference.text
            else:
                ids = words.tokenizer.encode(self._raw, allow_special=options.special)
                context = options.context or DEFAULT_CONTEXT
                self._text = cut_text(ids, context, options.stride, options.limit)
            models = [words.path]
            if options.against is not None:
                with Words({"model": options.against}) as others:
                    if others.identity() != identity:
                        raise UsageError(
                            "{model} and {other} have different vocabularies.",
                            "Only models that share their vocabulary can be compared.",
                            model=words.model.name,
                            other=others.model.name,
                        )
                    models.append(others.path)
            return models, words.vocab, identity, reference

    def _needs_identity(self) -> bool:
        options = self._options
        return bool(options.against or options.reference or options.save)

    def _stepper(self, engines: Engines) -> _Stepper:
        return _Stepper(engines, self._watcher)


class ChoiceRun(_Run):
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
        self._checksum = _checksum([id for exam in exams for id in exam.prompt])
        context = min(max(longest(exams), _SHORTEST_CONTEXT), most)
        with load_engines(self._flags, [path], context, self._precision) as engines:
            self._describe(engines, scoring=self._scoring)
            self._watcher.begin(
                sum(
                    len(exam.prompt) + sum(len(answer) - 1 for answer in exam.answers)
                    for exam in exams
                )
            )
            step = _Stepper(engines, self._watcher)
            self._evaluation = ChoiceEvaluation(engines.engines[0], exams, step)
            self._evaluation.run()

    def report(self, *, complete: bool) -> Report:
        """What was found so far."""
        source = {"questions": len(self._questions), "checksum": self._checksum}
        choices = self._evaluation.choices if self._evaluation else None
        return self._report(complete, source, choices=choices)


class _Stepper:
    """Called after each call of an engine: looks at memory, and tells the watcher."""

    def __init__(self, engines: Engines, watcher: Watcher) -> None:
        self._engines = engines
        self._watcher = watcher

    def __call__(self, tokens: int) -> None:
        self._engines.poll()
        self._watcher.step(tokens)


def _checksum(ids: Sequence[int]) -> str:
    """Of token ids, to tell whether two results are of the same text."""
    return f"{checksum(array('i', ids).tobytes()):016x}"
