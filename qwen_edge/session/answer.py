"""One answer: tokens become thoughts and text, event by event. Nothing here prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from qwen_edge.engine.generate import Generation, Step
from qwen_edge.engine.interface import Engine, SamplingParams
from qwen_edge.engine.speculation import CallCosts
from qwen_edge.engine.stats import GenerationStats
from qwen_edge.errors import DamagedModelError, DeviceLimitError, MemoryLimitError
from qwen_edge.session.memory import memory_errors
from qwen_edge.session.stop_text import StopFinder
from qwen_edge.text.detokenizer import StreamDecoder
from qwen_edge.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from qwen_edge.session.prompt_cache import PromptCache

THINK_BEGIN, THINK_END = "<think>", "</think>"


class ThinkingText(NamedTuple):
    """A piece of what the model thinks before it answers."""

    text: str


class AnswerText(NamedTuple):
    """A piece of the answer."""

    text: str


class Done(NamedTuple):
    """The end of the answer; always the last event."""

    stats: GenerationStats


Event = ThinkingText | AnswerText | Done


@dataclass(frozen=True)
class ChatModel:
    """What an answer needs of a model.

    Attributes:
        engine: computes the tokens.
        tokenizer: of the same model.
        template: the chat template, Jinja.
        stop_ids: the ids that end an answer.
        costs: what was learned of the duration of the engine's calls.
        prompts: keeps prompts on disk; None keeps none.
        poll: called between tokens and between parts of a long prompt; stops the answer with the
            error it raises, MemoryLimitError when too much memory is in use say. Where it gives
            seconds, the answer waits as long and calls it again.
    """

    engine: Engine
    tokenizer: Tokenizer
    template: str
    stop_ids: frozenset[int]
    costs: CallCosts = field(default_factory=CallCosts)
    prompts: PromptCache | None = None
    poll: Callable[[], float | None] = lambda: None


@dataclass(frozen=True)
class AnswerOptions:
    """How an answer is made.

    Attributes:
        sampling: how tokens are drawn.
        max_tokens: the longest answer, thoughts included.
        thinking: whether to think first; None leaves it to the chat template.
        thinking_budget: the most tokens to think for; then the answer has to begin.
        stop: strings that end the answer; they are not part of it.
        logprobs: how many of the likeliest ids come with each token; None for no logprobs at all.
        split_thinking: whether thoughts are told apart from the answer.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int = 512
    thinking: bool | None = None
    thinking_budget: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    split_thinking: bool = True


class Answer:
    """An answer in the making: iterate once for its events, the last of which is ``Done``.

    What there is so far can be read at any time, also after the iteration was broken off by an
    error or an interrupt; ``rest`` then gives the text that was still held back.

    Args:
        model: what computes.
        prompt_ids: the prompt.
        options: how.
        on_prefill: called with (tokens done, tokens to do) while the prompt is read.

    Attributes:
        prompt_ids: the prompt.
        steps: the tokens so far, the stop token included.

    Raises:
        UsageError: the prompt does not fit into the context.
    """

    def __init__(
        self,
        model: ChatModel,
        prompt_ids: Sequence[int],
        options: AnswerOptions,
        on_prefill: Callable[[int, int], None] | None = None,
    ) -> None:
        self.prompt_ids = list(prompt_ids)
        self.steps: list[Step] = []
        self._model = model
        self._options = options
        self._on_prefill = on_prefill
        self._splitter = _Splitter(model, self.prompt_ids, options)
        self._generations = [self._generation([], options.max_tokens, options.sampling)]
        self._thought = 0
        # Seconds of waiting in all, up to the first token, and up to the last one.
        self._paused = self._paused_first = self._paused_last = 0.0
        self._finish = ""

    def __iter__(self) -> Iterator[Event]:
        try:
            with memory_errors():
                for step in self._steps():
                    self._paused_last = self._paused
                    if not self.steps:
                        self._paused_first = self._paused
                    self.steps.append(step)
                    yield from self._splitter.push(step.id)
                    if self._splitter.stopped:
                        self._finish = "stop"
                        break
                    self._poll()
        except MemoryLimitError:
            self._finish = "memory"
            raise
        except DeviceLimitError:
            self._finish = "device"
            raise
        except DamagedModelError:
            blame = self._model.prompts.blame() if self._model.prompts else None
            if blame is None:
                raise
            self._model.engine.truncate(0)
            raise blame from None
        yield from self.rest()
        yield Done(self.stats)
        # Last of all: nobody waits for it.
        if self._model.prompts is not None:
            self._model.prompts.save(self.prompt_ids)

    def rest(self) -> list[Event]:
        """The events of text that waited for more; empties itself."""
        return self._splitter.finish()

    @property
    def ids(self) -> list[int]:
        """Token ids so far, thoughts and stop token included."""
        return [step.id for step in self.steps]

    @property
    def text(self) -> str:
        """The answer so far, without thoughts."""
        return "".join(self._splitter.answer)

    @property
    def thinking(self) -> str:
        """The thoughts so far."""
        return "".join(self._splitter.thinking)

    @property
    def stats(self) -> GenerationStats:
        """Counts and timings so far."""
        parts = [generation.stats for generation in self._generations]
        first, *others = parts
        paused = self._paused_last - self._paused_first
        seconds = sum(part.first_token_seconds + part.decode_seconds for part in others)
        return replace(
            first,
            generated_tokens=sum(part.generated_tokens for part in parts),
            drafted_tokens=sum(part.drafted_tokens for part in parts),
            accepted_tokens=sum(part.accepted_tokens for part in parts),
            decode_seconds=max(first.decode_seconds + seconds - paused, 0.0),
            finish_reason=self._finish or self._generations[-1].stats.finish_reason,
            paused_seconds=self._paused,
        )

    def _generation(
        self, answered: list[int], max_tokens: int, sampling: SamplingParams
    ) -> Generation:
        return Generation(
            self._model.engine,
            self.prompt_ids + answered,
            sampling,
            max_tokens=max_tokens,
            stop_ids=self._model.stop_ids,
            logprobs=self._options.logprobs,
            on_prefill=self._prefilled,
            costs=self._model.costs,
            prepare=None if answered else self._load_prompt,
        )

    def _load_prompt(self) -> None:
        if self._model.prompts is not None:
            self._model.prompts.load(self.prompt_ids)

    def _prefilled(self, done: int, total: int) -> None:
        # Forced tokens are few: only the prompt itself is worth telling of.
        if self._on_prefill and not self.steps:
            self._on_prefill(done, total)
        self._poll()

    def _poll(self) -> None:
        """Lets the model's keeper look, and waits as long as it says so."""
        seconds = self._model.poll()
        if not seconds:
            return
        began = time.perf_counter()
        try:
            while seconds:
                time.sleep(seconds)
                seconds = self._model.poll()
        finally:
            self._paused += time.perf_counter() - began

    def _steps(self) -> Iterator[Step]:
        """The model's tokens; where the thinking budget runs out, those that end the thoughts."""
        budget = self._options.thinking_budget
        for step in self._generations[0]:
            yield step
            self._thought += self._splitter.is_thinking
            if budget is not None and self._splitter.is_thinking and self._thought >= budget:
                break
        else:
            return
        forced = self._splitter.end_of_thoughts
        left = self._options.max_tokens - len(self.steps) - len(forced)
        room = self._model.engine.config.context - len(self.prompt_ids) - len(self.steps)
        if left < 1 or room <= len(forced):
            self._finish = "length"
            return
        yield from (Step(token, None, ()) for token in forced)
        # Another seed, or the answer would be drawn with the very numbers of the thoughts.
        sampling = replace(self._options.sampling, seed=(self._generations[0].seed + 1) % 2**63)
        self._generations.append(self._generation(self.ids, left, sampling))
        yield from self._generations[-1]


class _Splitter:
    """Turns token ids into events: thoughts, answer, stop strings.

    The marks ``<think>`` and ``</think>`` count as tokens only, so that nobody can forge them with
    text. Blank lines around the thoughts are dropped.
    """

    def __init__(self, model: ChatModel, prompt_ids: list[int], options: AnswerOptions) -> None:
        special = model.tokenizer.special_ids() if options.split_thinking else {}
        self._begin, self._end = special.get(THINK_BEGIN), special.get(THINK_END)
        self._stop_ids = model.stop_ids
        self._decoder = StreamDecoder(model.tokenizer)
        self._tokenizer = model.tokenizer
        self._stops = StopFinder(options.stop)
        self._blank = ""
        self._fresh = self.is_thinking = self._prompt_leaves_thoughts_open(prompt_ids)
        self.answer: list[str] = []
        self.thinking: list[str] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._stops.found

    @property
    def end_of_thoughts(self) -> list[int]:
        """The tokens that end the thoughts as Qwen3 does."""
        end = [] if self._end is None else [self._end]
        return end + self._tokenizer.encode("\n\n")

    def push(self, token: int) -> list[Event]:
        """The events of one more token."""
        if token in self._stop_ids:
            return []
        if token in (self._begin, self._end):
            events = self._text(self._decoder.finish())
            self.is_thinking, self._fresh, self._blank = token == self._begin, True, ""
            return events
        return self._text(self._decoder.push(token))

    def finish(self) -> list[Event]:
        """The events of all that was held back."""
        events = self._text(self._decoder.finish())
        held = self._stops.finish()
        return [*events, self._answer(held)] if held else events

    def _prompt_leaves_thoughts_open(self, prompt_ids: list[int]) -> bool:
        marks = [token for token in prompt_ids if token in (self._begin, self._end)]
        return bool(marks) and marks[-1] == self._begin

    def _text(self, text: str) -> list[Event]:
        if self._fresh:
            text = text.lstrip("\n")
        if not text:
            return []
        self._fresh = False
        if self.is_thinking:
            return self._thought(text)
        text = self._stops.push(text)
        return [self._answer(text)] if text else []

    def _thought(self, text: str) -> list[Event]:
        text = self._blank + text
        kept = text.rstrip("\n")
        self._blank = text[len(kept) :]
        if not kept:
            return []
        self.thinking.append(kept)
        return [ThinkingText(kept)]

    def _answer(self, text: str) -> AnswerText:
        self.answer.append(text)
        return AnswerText(text)
