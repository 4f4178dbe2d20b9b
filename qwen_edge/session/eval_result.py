"""What an evaluation found, with its statistics and its form as JSON.

Nothing here depends on the clock or on the number of threads: the same evaluation on the same
device gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

SCHEMA = 1
# Of a normal distribution, 95 % lies within so many standard deviations.
_NORMAL_95 = 1.959963984540054


class Estimate(NamedTuple):
    """A mean and its standard error; the error of a single sample is given as 0."""

    value: float
    error: float


def mean_of(values: Sequence[float]) -> Estimate:
    """Mean and standard error of at least one sample; the samples count as independent."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Estimate(mean, 0.0)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Estimate(mean, math.sqrt(variance / n))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that ``share`` of the sorted samples do not exceed, interpolated linearly."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def interval(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (E. B. Wilson, 1927, JASA 22); trials is at least 1."""
    z2 = _NORMAL_95**2
    share = hits / trials
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = share * (1 - share) / trials + z2 / (4 * trials * trials)
    reach = _NORMAL_95 * math.sqrt(half) / (1 + z2 / trials)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


@dataclass(frozen=True)
class Perplexity:
    """How well a text was predicted.

    Attributes:
        tokens: how many were scored.
        nats: mean negative log probability of a token, and its standard error.
    """

    tokens: int
    nats: Estimate

    @property
    def perplexity(self) -> Estimate:
        """e to that power, with the error that follows to first order."""
        try:
            value = math.exp(self.nats.value)
        except OverflowError:
            value = math.inf
        return Estimate(value, value * self.nats.error)

    def as_json(self) -> dict[str, object]:
        """Plain types; a perplexity beyond all numbers is null."""
        found = self.perplexity
        known = math.isfinite(found.value)
        return {
            "tokens": self.tokens,
            "nats": self.nats.value,
            "nats_error": self.nats.error,
            "perplexity": found.value if known else None,
            "perplexity_error": found.error if known else None,
        }


@dataclass(frozen=True)
class Divergence:
    """How far predictions are from those of a reference.

    Attributes:
        reference: what is known of it: its model, KV type and so on.
        mean: Kullback-Leibler divergence in nats: what predicting as the model does costs where the
            reference is the truth.
        median, p90, p99, largest: of the positions.
        same_top: positions whose most likely token is the same.
        positions: all of them.
        perplexity: the reference's.
        change: in nats a token from the reference to the model; the error is that of the
            differences, far below that of either perplexity.
    """

    reference: Mapping[str, object]
    mean: Estimate
    median: float
    p90: float
    p99: float
    largest: float
    same_top: int
    positions: int
    perplexity: Perplexity
    change: Estimate

    @property
    def ratio(self) -> Estimate:
        """The model's perplexity over the reference's."""
        value = math.exp(min(self.change.value, 700.0))
        return Estimate(value, value * self.change.error)

    def as_json(self) -> dict[str, object]:
        """Plain types."""
        low, high = interval(self.same_top, self.positions)
        ours, theirs = self.perplexity.nats.value + self.change.value, self.perplexity.nats.value
        finite = max(ours, theirs) < 700.0
        return {
            "reference": dict(self.reference),
            "kl": {
                "mean": self.mean.value,
                "mean_error": self.mean.error,
                "median": self.median,
                "p90": self.p90,
                "p99": self.p99,
                "largest": self.largest,
            },
            "same_top": self.same_top / self.positions,
            "same_top_interval": [low, high],
            "reference_perplexity": self.perplexity.as_json(),
            "delta_nats": self.change.value,
            "delta_nats_error": self.change.error,
            "delta_perplexity": math.exp(ours) - math.exp(theirs) if finite else None,
            "perplexity_ratio": self.ratio.value,
            "perplexity_ratio_error": self.ratio.error,
        }


def divergence_of(
    reference: Mapping[str, object],
    divergences: Sequence[float],
    same_top: int,
    nats: Sequence[float],
    reference_nats: Sequence[float],
) -> Divergence:
    """Sums up positions, at least one.

    Args:
        reference: what is known of it.
        divergences: of the positions, in nats.
        same_top: positions where both like the same token best.
        nats: negative log probabilities that the model gave the tokens.
        reference_nats: that the reference gave them.
    """
    ordered = sorted(divergences)
    return Divergence(
        reference=reference,
        mean=mean_of(divergences),
        median=quantile(ordered, 0.5),
        p90=quantile(ordered, 0.9),
        p99=quantile(ordered, 0.99),
        largest=ordered[-1],
        same_top=same_top,
        positions=len(ordered),
        perplexity=Perplexity(len(ordered), mean_of(reference_nats)),
        change=mean_of([a - b for a, b in zip(nats, reference_nats, strict=True)]),
    )


class Judgement(NamedTuple):
    """What a model made of one question.

    Attributes:
        line: of the file.
        category: empty if the question has none.
        answer: index of the right choice.
        chosen: index of the model's.
        scores: of the choices, log probabilities in nats; the highest was chosen.
    """

    line: int
    category: str
    answer: int
    chosen: int
    scores: tuple[float, ...]


class Tally(NamedTuple):
    """Right answers among the questions asked, at least one."""

    right: int
    asked: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.asked

    def as_json(self) -> dict[str, object]:
        """Plain types, with the interval that holds the true share in 95 of 100 cases."""
        low, high = interval(self.right, self.asked)
        return {
            "right": self.right,
            "asked": self.asked,
            "accuracy": self.accuracy,
            "interval": [low, high],
        }


@dataclass(frozen=True)
class Choices:
    """How well questions with given choices were answered.

    Attributes:
        judgements: one for each question, in the file's order; at least one.
    """

    judgements: Sequence[Judgement]

    @property
    def total(self) -> Tally:
        """Over all questions."""
        return _tally(self.judgements)

    @property
    def guessing(self) -> float:
        """The share that guessing would get right on average."""
        return math.fsum(1 / len(one.scores) for one in self.judgements) / len(self.judgements)

    def categories(self) -> dict[str, Tally]:
        """By category, in the order of their first questions; empty where there are none."""
        names = dict.fromkeys(one.category for one in self.judgements if one.category)
        return {
            name: _tally(one for one in self.judgements if one.category == name) for name in names
        }

    def as_json(self) -> dict[str, object]:
        """Plain types."""
        return {
            **self.total.as_json(),
            "guessing": self.guessing,
            "categories": {name: tally.as_json() for name, tally in self.categories().items()},
            "questions": [one._asdict() for one in self.judgements],
        }


def _tally(judgements: Iterable[Judgement]) -> Tally:
    right = [one.chosen == one.answer for one in judgements]
    return Tally(sum(right), len(right))


@dataclass(frozen=True)
class Report:
    """All of one evaluation.

    Attributes:
        version: of this program.
        complete: False where it was broken off.
        model: name, bytes and quantization.
        settings: KV type, activations, kernels, and the method.
        source: what was evaluated: tokens, windows and so on.
        perplexity, divergence, choices: what was found; None where it was not looked for.
    """

    version: str
    complete: bool
    model: Mapping[str, object]
    settings: Mapping[str, object]
    source: Mapping[str, object]
    perplexity: Perplexity | None = None
    divergence: Divergence | None = None
    choices: Choices | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was found."""
        return self.perplexity is None and self.choices is None

    def as_json(self) -> dict[str, object]:
        """Plain types."""
        parts = {
            "perplexity": self.perplexity,
            "divergence": self.divergence,
            "choices": self.choices,
        }
        return {
            "schema": SCHEMA,
            "kind": "eval",
            "version": self.version,
            "complete": self.complete,
            "model": dict(self.model),
            "settings": dict(self.settings),
            "source": dict(self.source),
            **{key: part.as_json() for key, part in parts.items() if part is not None},
        }
