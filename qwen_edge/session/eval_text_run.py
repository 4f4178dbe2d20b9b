"""The evaluation of a text from beginning to end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.errors import UsageError
from qwen_edge.session.eval_models import Precision, Words, load_engines
from qwen_edge.session.eval_reference import Reference
from qwen_edge.session.eval_reference_writer import ReferenceWriter
from qwen_edge.session.eval_result import Report
from qwen_edge.session.eval_run import Run, Stepper, Watcher, checksum_of
from qwen_edge.session.eval_text import EngineJudge, Judge, Text, TextEvaluation, cut_text
from qwen_edge.session.eval_windows import DEFAULT_CONTEXT


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


class TextRun(Run):
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
                load_engines(
                    self._flags,
                    models,
                    text.context,
                    self._precision,
                    packs=packs,
                    watcher=self._watcher.setup,
                )
            )
            self._describe(engines, context=text.context, stride=text.stride)
            # Two models take the same time twice.
            each = sum(window.end - 1 - window.begin for window in text.windows)
            self._watcher.begin(each * len(models))
            judges = [
                EngineJudge(engine, Stepper(engines, self._watcher)) for engine in engines.engines
            ]
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
                "checksum": checksum_of(text.ids),
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
