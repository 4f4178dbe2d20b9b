"""One answer: prefill of what the KV cache lacks, then a token at a time.

A decode call may carry drafted tokens behind the last one: as long as the token drawn is the
drafted one, the next row's logits are already there. A row's result does not depend on the rows
beside it and each token is one draw, so the answer is the very same with drafts and without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from qwen_edge.engine.interface import Engine, Logits, Row, SamplingParams
from qwen_edge.engine.sampler import Sampler, token_logprobs
from qwen_edge.engine.speculation import CallCosts, Drafter
from qwen_edge.engine.stats import GenerationStats
from qwen_edge.errors import MemoryLimitError, UsageError


class Step(NamedTuple):
    """One generated token.

    Attributes:
        id: token id.
        logprob: its natural log probability before any sampling change, if asked for.
        top: the most likely (id, log probability) pairs, best first.
    """

    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]


def keep_prefix(engine: Engine, wanted: Sequence[int], sequence: int) -> int:
    """Cuts a sequence back to what it has in common with ``wanted``; returns that length."""
    held = engine.cached_ids(sequence)
    limit = min(len(held), len(wanted))
    common = 0
    while common < limit and held[common] == wanted[common]:
        common += 1
    if common < len(held):
        engine.truncate(common, sequence)
    return common


def extend(
    engine: Engine, ids: Sequence[int], sequence: int, *, wants_logits: bool
) -> list[Logits]:
    """Computes ``ids`` after what the sequence holds; logits of the last, if wanted."""
    start, last = len(engine.cached_ids(sequence)), len(ids) - 1
    return engine.forward(
        [Row(sequence, start + i, token, wants_logits and i == last) for i, token in enumerate(ids)]
    )


class Generation:
    """One answer, iterated token by token.

    Args:
        engine: its sequence keeps the prefix that it has in common with the prompt, unless its
            configuration says not to keep the cache.
        prompt_ids: at least one id.
        sampling: how tokens are drawn.
        max_tokens: the most tokens generated, at least 1.
        stop_ids: ids that end the answer; the stop token is yielded last.
        logprobs: how many of the most likely ids come with each step; None for none at all.
        sequence: which KV cache.
        on_prefill: called with (tokens done, tokens to do) after each chunk of the prompt.
        costs: what is known of the duration of the engine's calls, where answers share it; decides
            on drafts, which there are if ``EngineConfig.drafts`` allows any.
        prepare: called first; it may fill the sequence from elsewhere, and counts as prefill.

    Raises:
        UsageError: the prompt is empty or leaves no room in the context.
    """

    def __init__(
        self,
        engine: Engine,
        prompt_ids: Sequence[int],
        sampling: SamplingParams,
        *,
        max_tokens: int,
        stop_ids: Collection[int],
        logprobs: int | None = None,
        sequence: int = 0,
        on_prefill: Callable[[int, int], None] | None = None,
        costs: CallCosts | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        context = engine.config.context
        if not prompt_ids:
            raise UsageError("The prompt is empty.", "Give some text to answer.")
        if len(prompt_ids) >= context:
            raise UsageError(
                "The prompt has {length} tokens, the context holds {context}.",
                "Shorten the prompt or raise --context.",
                length=len(prompt_ids),
                context=context,
            )
        if max_tokens < 1:
            raise UsageError("The answer must be allowed at least one token.")
        self.ids: list[int] = []
        self._engine = engine
        self._prompt = list(prompt_ids)
        self._sampler = Sampler(engine.vocab_size, sampling)
        self._tracks_tokens = sampling.repetition_penalty != 1.0 or sampling.presence_penalty != 0.0
        self._max_tokens = max_tokens
        self._stop_ids = frozenset(stop_ids)
        self._logprobs = logprobs
        self._sequence = sequence
        self._on_prefill = on_prefill
        self._costs = costs or CallCosts()
        self._drafter: Drafter | None = None
        self._drafts = 0
        if engine.config.keep_cache:
            self._drafts = min(engine.config.drafts, engine.config.prefill_rows - 1)
        self._drafted = self._accepted = 0
        self._prepare = prepare
        self._cached = 0
        self._start = self._prefilled = self._first = self._last = 0.0
        self._finish = "interrupted"

    @property
    def stats(self) -> GenerationStats:
        """Counts and timings so far."""
        return GenerationStats(
            prompt_tokens=len(self._prompt),
            cached_tokens=self._cached,
            generated_tokens=len(self.ids),
            prefill_seconds=max(self._prefilled - self._start, 0.0),
            first_token_seconds=max(self._first - self._start, 0.0),
            decode_seconds=max(self._last - self._first, 0.0),
            finish_reason=self._finish,
            drafted_tokens=self._drafted,
            accepted_tokens=self._accepted,
        )

    @property
    def seed(self) -> int:
        """The seed in use, drawn from the system if none was given."""
        return self._sampler.seed

    def __iter__(self) -> Iterator[Step]:
        try:
            yield from self._steps()
        except (MemoryLimitError, MemoryError):
            self._finish = "memory"
            raise

    def _steps(self) -> Iterator[Step]:
        self._start = time.perf_counter()
        if self._prepare:
            self._prepare()
        logits = self._prefill()
        self._prefilled = time.perf_counter()
        if self._tracks_tokens:
            self._sampler.accept(self._prompt, generated=False)
        remaining = min(self._max_tokens, self._engine.config.context - len(self._prompt))
        steps = [self._draw(logits)]
        while True:
            for step in steps:
                self._note(step)
                yield step
            if steps[-1].id in self._stop_ids:
                self._finish = "stop"
                return
            remaining -= len(steps)
            if remaining < 1:
                self._finish = "length"
                return
            steps = self._decode([step.id for step in steps], remaining)

    def _prefill(self) -> Logits:
        if self._engine.config.keep_cache:
            # The last token is always computed anew: its logits are not kept.
            self._cached = keep_prefix(self._engine, self._prompt[:-1], self._sequence)
        else:
            self._engine.truncate(0, self._sequence)
        todo = self._prompt[self._cached :]
        chunk = self._engine.config.prefill_rows
        logits: list[Logits] = []
        for start in range(0, len(todo), chunk):
            part = todo[start : start + chunk]
            last = start + len(part) == len(todo)
            logits = extend(self._engine, part, self._sequence, wants_logits=last)
            if self._on_prefill:
                self._on_prefill(start + len(part), len(todo))
        return logits[0]

    def _decode(self, known: list[int], most: int) -> list[Step]:
        """The next steps, 1 to ``most``, after the tokens that the last call gave."""
        draft = self._draft(known, most - 1)
        length = len(self._engine.cached_ids(self._sequence))
        start = time.perf_counter()
        logits = self._compute(known[-1], draft)
        self._costs.measured(len(logits), time.perf_counter() - start)
        steps: list[Step] = []
        for row, drafted in zip_longest(logits, draft):
            steps.append(self._draw(row))
            if steps[-1].id != drafted or drafted in self._stop_ids:
                break
        if draft:
            self._drafted += len(draft)
            self._accepted += len(steps) - 1
            # The cache keeps what it would hold without drafts: all but the last token drawn.
            if len(steps) < len(logits):
                self._engine.truncate(length + len(steps), self._sequence)
        return steps

    def _draft(self, known: list[int], most: int) -> list[int]:
        if self._drafts < 1:
            return []
        if self._drafter is None:
            # Only now, since the first token is waited for.
            self._drafter = Drafter(self._prompt, self._drafts, self._costs)
        for token in known:
            self._drafter.push(token)
        return self._drafter.draft(most)

    def _compute(self, token: int, draft: list[int]) -> list[Logits]:
        """Logits after ``token`` and each drafted one; gives drafts up where memory is short."""
        if draft:
            try:
                start = len(self._engine.cached_ids(self._sequence))
                return self._engine.forward(
                    [
                        Row(self._sequence, position, drafted, True)
                        for position, drafted in enumerate((token, *draft), start)
                    ]
                )
            except (MemoryLimitError, MemoryError):
                self._drafts = 0
                draft.clear()
        return extend(self._engine, [token], self._sequence, wants_logits=True)

    def _draw(self, logits: Logits) -> Step:
        token = self._sampler.sample(logits)
        logprob: float | None = None
        top: tuple[tuple[int, float], ...] = ()
        if self._logprobs is not None:
            logprob, top = token_logprobs(logits, token, self._logprobs)
        if self._tracks_tokens:
            self._sampler.accept([token], generated=True)
        return Step(token, logprob, top)

    def _note(self, step: Step) -> None:
        self._last = time.perf_counter()
        if not self.ids:
            self._first = self._last
        self.ids.append(step.id)
