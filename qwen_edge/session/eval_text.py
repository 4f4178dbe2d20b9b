"""Perplexity of a text, and how far the predictions are from a reference's, window by window."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from qwen_edge.engine.interface import Engine, Logits, Row
from qwen_edge.engine.scoring import RowScore, divergences, score_rows
from qwen_edge.session.eval_models import logit_rows
from qwen_edge.session.eval_result import Divergence, Perplexity, divergence_of, mean_of
from qwen_edge.session.eval_windows import Window, plan_windows


@dataclass(frozen=True)
class Text:
    """A text cut into windows.

    Attributes:
        ids: its tokens, none beyond the last window.
        windows: at least one.
        context: tokens of a window.
        stride: see ``eval_windows``; None for halves.
    """

    ids: Sequence[int]
    windows: Sequence[Window]
    context: int
    stride: int | None


def cut_text(ids: Sequence[int], context: int, stride: int | None, limit: int | None) -> Text:
    """Cuts a text into windows, at most ``limit`` of them.

    Raises:
        UsageError: it is too short.
    """
    windows = plan_windows(len(ids), context, stride)[:limit]
    return Text(array("i", ids[: windows[-1].end]), windows, context, stride)


@dataclass(frozen=True)
class Judged:
    """Rows of logits that predict consecutive tokens.

    Attributes:
        rows: valid until the next ones come.
        scores: of the tokens that they predict.
    """

    rows: Sequence[Logits]
    scores: Sequence[RowScore]


class Judge(Protocol):
    """Whatever predicts the tokens of a text."""

    def judge(self, text: Text, window: Window) -> Iterator[Judged]:
        """The rows that predict a window's scored tokens, so many at a time as all judges give."""
        ...


class EngineJudge:
    """A model that predicts.

    Args:
        engine: its first sequence is used; a call takes ``logit_rows`` rows at least.
        step: called after each call of the engine with the tokens computed.

    Attributes:
        threads: that the engine has at most.
    """

    def __init__(self, engine: Engine, step: Callable[[int], None]) -> None:
        self._engine = engine
        self._step = step
        self._rows = logit_rows(engine.vocab_size)
        self.threads = max(engine.config.prefill_threads, engine.config.threads, 1)

    def judge(self, text: Text, window: Window) -> Iterator[Judged]:
        """See ``Judge.judge``."""
        self._engine.truncate(0)
        # The row of a token predicts the next: the last token of a window needs none.
        first, end = window.scored - 1, window.end - 1
        most = self._engine.config.prefill_rows
        for begin in range(window.begin, first, most):
            self._forward(text, window, begin, min(begin + most, first), wants_logits=False)
        for begin in range(first, end, self._rows):
            after = min(begin + self._rows, end)
            logits = self._forward(text, window, begin, after, wants_logits=True)
            yield Judged(logits, score_rows(logits, text.ids[begin + 1 : after + 1], self.threads))

    def _forward(
        self, text: Text, window: Window, begin: int, end: int, *, wants_logits: bool
    ) -> list[Logits]:
        logits = self._engine.forward(
            [Row(0, i - window.begin, text.ids[i], wants_logits) for i in range(begin, end)]
        )
        self._step(end - begin)
        return logits


class TextEvaluation:
    """One text; ``run`` may be broken off, and what was found until then can be read.

    Args:
        text: what is predicted.
        model: what predicts.
        reference: what it is compared with.
        about: what is known of the reference.
        threads: that compare rows.
        keep: called with all that the model gave, a few rows at a time.

    Attributes:
        windows: that are done.
    """

    def __init__(
        self,
        text: Text,
        model: Judge,
        reference: Judge | None = None,
        about: Mapping[str, object] | None = None,
        *,
        threads: int = 1,
        keep: Callable[[Judged], None] | None = None,
    ) -> None:
        self.windows = 0
        self._text = text
        self._model = model
        self._reference = reference
        self._about = about or {}
        self._threads = threads
        self._keep = keep
        self._nats = array("d")
        self._reference_nats = array("d")
        self._divergences = array("d")
        self._same_top = 0

    def run(self) -> None:
        """Goes through all windows.

        Raises:
            DamagedModelError: the model computes what is not a number.
            MemoryLimitError: memory ran out.
            UsageError: the reference is damaged.
        """
        for window in self._text.windows:
            if self._reference is None:
                for ours in self._model.judge(self._text, window):
                    self._take(ours)
            else:
                pairs = zip(
                    self._model.judge(self._text, window),
                    self._reference.judge(self._text, window),
                    strict=True,
                )
                for ours, theirs in pairs:
                    self._compare(ours, theirs)
            self.windows += 1

    @property
    def perplexity(self) -> Perplexity | None:
        """Of what was scored so far; None of nothing."""
        if not self._nats:
            return None
        return Perplexity(len(self._nats), mean_of(self._nats))

    @property
    def divergence(self) -> Divergence | None:
        """Likewise; None without a reference, too."""
        if not self._divergences:
            return None
        return divergence_of(
            self._about, self._divergences, self._same_top, self._nats, self._reference_nats
        )

    def _take(self, ours: Judged) -> None:
        if self._keep is not None:
            self._keep(ours)
        self._nats.extend(-score.logprob for score in ours.scores)

    def _compare(self, ours: Judged, theirs: Judged) -> None:
        found = divergences(theirs.rows, ours.rows, self._threads)
        pairs = zip(ours.scores, theirs.scores, strict=True)
        # An interrupt falls between calls of the engine, so that these stay in step.
        self._take(ours)
        self._divergences.extend(found)
        self._same_top += sum(own.top == other.top for own, other in pairs)
        self._reference_nats.extend(-score.logprob for score in theirs.scores)
