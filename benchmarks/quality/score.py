"""Perplexity of weights in a model, and how far its predictions are from those of the floats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from benchmarks.quality.subjects import Subject


@dataclass(frozen=True)
class Score:
    """What a set of weights comes to.

    Attributes:
        perplexity: over all tokens that count.
        increase: of the perplexity over the floats', as a share.
        deviation: the standard error of that share, from the tokens' paired differences.
        divergence: mean Kullback-Leibler divergence from the floats' predictions, nats a token.
        agreement: share of tokens where the most likely one is the same.
    """

    perplexity: float
    increase: float
    deviation: float
    divergence: float
    agreement: float


class Scorer:
    """Computes scores in fp32 with transformers; only the weights differ."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._model = subject, subject.model()
        self._batches = list(subject.batches())
        self._truth = [self._logprobs(ids, mask) for ids, mask in self._batches]
        self.tokens = sum(int(mask[:, 1:].sum()) for _, mask in self._batches)
        self.perplexity = math.exp(float(torch.cat(self._losses(self._truth)).mean()))

    @torch.inference_mode()
    def _logprobs(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self._model.model(ids).last_hidden_state[:, :-1][mask[:, 1:]]
        return F.log_softmax(self._model.lm_head(hidden), -1)

    def _losses(self, logprobs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [
            -each.gather(-1, ids[:, 1:][mask[:, 1:]][:, None]).squeeze(1)
            for each, (ids, mask) in zip(logprobs, self._batches, strict=True)
        ]

    @torch.inference_mode()
    def score(self, weights: Mapping[str, torch.Tensor]) -> Score:
        """Scores weights by their Hugging Face names; those left out stay as they were."""
        own = self._subject.weights()
        self._model.load_state_dict({**own, **weights}, strict=False)
        # A tied head is the embedding; load_state_dict keeps them one.
        found = [self._logprobs(ids, mask) for ids, mask in self._batches]
        losses, true_losses = (torch.cat(self._losses(each)) for each in (found, self._truth))
        difference = (losses - true_losses).double()
        divergence = agreed = 0.0
        for mine, truth in zip(found, self._truth, strict=True):
            divergence += float((truth.exp() * (truth - mine)).sum())
            agreed += int((truth.argmax(-1) == mine.argmax(-1)).sum())
        increase = math.exp(float(difference.mean())) - 1
        return Score(
            perplexity=math.exp(float(losses.double().mean())),
            increase=increase,
            deviation=float(difference.std()) / math.sqrt(len(difference)),
            divergence=divergence / self.tokens,
            agreement=agreed / self.tokens,
        )
