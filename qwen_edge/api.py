"""The Python API: ``load`` a model, then ``chat`` with it or ``stream`` its answers.

import qwen_edge

with qwen_edge.load("demo") as llm:
    print(llm.chat("What is a KV cache?").text)
    for piece in llm.stream("Tell me a story."):
        if isinstance(piece, str):
            print(piece, end="", flush=True)
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict, Unpack

from qwen_edge.engine.generate import Step
from qwen_edge.engine.stats import GenerationStats
from qwen_edge.errors import UsageError
from qwen_edge.model.closing import Closing
from qwen_edge.session.answer import Answer, AnswerOptions, AnswerText
from qwen_edge.session.loaded import LoadedModel, load_model
from qwen_edge.session.setting_table import parse_value, setting
from qwen_edge.text.chat_template import encode_chat

if TYPE_CHECKING:
    from pathlib import Path

Messages = str | Sequence[Mapping[str, object]]
"""One prompt, or messages with ``role`` (system, user, assistant) and ``content``."""


class Options(TypedDict, total=False):
    """How one answer is made; what is left out follows from the settings given to ``load``.

    ``thinking``: think before answering. ``thinking_budget``: the most tokens to think for.
    ``max_tokens``: the longest answer, thoughts included. ``stop``: strings that end the answer.
    ``logprobs``: how many of the likeliest tokens come with each step. ``temperature``, ``top_k``,
    ``top_p``, ``min_p``, ``repetition_penalty``, ``presence_penalty``, ``seed``: the sampling, in
    the ranges that ``qwen-edge config keys`` lists.
    """

    thinking: bool
    thinking_budget: int
    max_tokens: int
    stop: str | Sequence[str]
    logprobs: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    seed: int


_SAMPLING = frozenset(
    {
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "seed",
    }
)


@dataclass(frozen=True)
class ChatAnswer:
    """A finished answer.

    Attributes:
        text: the answer, without thoughts.
        thinking: the thoughts, empty if there were none.
        prompt_ids: token ids of the prompt.
        ids: token ids of thoughts and answer, the stop token included.
        steps: an entry for each of ``ids``: id, natural log probability before any sampling change
            (None unless ``logprobs`` was asked for), and the likeliest ids with theirs.
        finish_reason: ``stop`` or ``length``.
        stats: counts and timings.
    """

    text: str
    thinking: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    steps: tuple[Step, ...]
    finish_reason: str
    stats: GenerationStats


class LLM(Closing):
    """A loaded model; made by ``load``. Use it as a context manager, or call ``close``.

    One answer at a time: the KV cache belongs to the answer in the making. It is kept afterwards,
    so a conversation that goes on computes its new messages only.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._busy = threading.Lock()
        self._closed = False

    @property
    def name(self) -> str:
        """The model's name."""
        return self._loaded.plan.model.name

    @property
    def context(self) -> int:
        """The longest prompt and answer together, in tokens."""
        return self._loaded.engine.config.context

    def chat(self, messages: Messages, **options: Unpack[Options]) -> ChatAnswer:
        """Answers and returns the whole answer.

        Args:
            messages: a prompt, or the messages of a conversation.
            **options: see ``Options``.

        Raises:
            UsageError: an option is out of range, the prompt does not fit into the context, the
                model is closed, or another answer is in the making.
            MemoryLimitError: memory ran out.
        """
        with self._taken():
            answer = self._answer(messages, options)
            for _ in answer:
                pass
            stats = answer.stats
            return ChatAnswer(
                text=answer.text,
                thinking=answer.thinking,
                prompt_ids=tuple(answer.prompt_ids),
                ids=tuple(answer.ids),
                steps=tuple(answer.steps),
                finish_reason=stats.finish_reason,
                stats=stats,
            )

    def stream(
        self, messages: Messages, **options: Unpack[Options]
    ) -> Iterator[str | GenerationStats]:
        """Answers piece by piece: yields text as it comes, and ``GenerationStats`` at the end.

        Thoughts are left out; ``chat`` returns them. Nothing happens before the first piece is
        asked for, and the model is busy until the iteration has ended or was closed.

        Args:
            messages: a prompt, or the messages of a conversation.
            **options: see ``Options``.

        Raises:
            UsageError: as for ``chat``, at the first piece.
            MemoryLimitError: memory ran out.
        """
        with self._taken():
            answer = self._answer(messages, options)
            for event in answer:
                if isinstance(event, AnswerText):
                    yield event.text
            yield answer.stats

    def close(self) -> None:
        """Frees the model; a second call does nothing.

        Raises:
            UsageError: an answer is in the making.
        """
        if not self._closed:
            with self._taken():
                self._closed = True
                self._loaded.close()

    @contextlib.contextmanager
    def _taken(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise UsageError(
                "This model is busy with another answer.",
                "Wait for it to end, or load the model a second time.",
            )
        try:
            if self._closed:
                raise UsageError("This model is closed.", "Load it again.")
            yield
        except (KeyboardInterrupt, SystemExit):
            # It may have struck between a computation and its bookkeeping.
            self._loaded.engine.truncate(0)
            raise
        finally:
            self._busy.release()

    def _answer(self, messages: Messages, given: Options) -> Answer:
        options = _answer_options(self._loaded, given)
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        _check(messages)
        chat = self._loaded.chat
        ids = encode_chat(chat.tokenizer, chat.template, messages, enable_thinking=options.thinking)
        return Answer(chat, ids, options)


def load(model: str | Path | None = None, **settings: object) -> LLM:
    """Loads a model.

    Args:
        model: its name (``demo`` is part of the package) or the path of its file; by default the
            one that ``qwen-edge run`` would take.
        **settings: what ``qwen-edge config keys`` lists, with underscores: ``context=2048``,
            ``kv="int8"``, ``threads=2``, ``memory_cap="900MB"``. Environment and configuration file
            count as on the command line, except that the memory cap is off unless it is given here:
            it would hold for the whole process.

    Raises:
        UsageError: a setting that does not exist or is out of range.
        ModelNotFoundError: there is no such model.
        DamagedModelError: its file cannot be used.
        MemoryLimitError: it does not fit into memory.
    """
    flags = {"memory-cap": "off", **{setting(key).key: value for key, value in settings.items()}}
    return LLM(load_model({**flags, "model": None if model is None else str(model)}))


def _check(messages: Sequence[Mapping[str, object]]) -> None:
    for message in messages:
        whole = isinstance(message, Mapping) and isinstance(message.get("role"), str)
        if not whole or not message.keys() & {"content", "tool_calls"}:
            raise UsageError("A message must be an object with role and content.")


def _answer_options(loaded: LoadedModel, given: Options) -> AnswerOptions:
    """The defaults of a model with the options of one call in their place."""
    checked: dict[str, object] = dict(given)
    unknown = sorted(checked.keys() - Options.__annotations__.keys())
    if unknown:
        raise UsageError("There is no option {name}.", name=unknown[0])
    for key in checked.keys() & {*_SAMPLING, "max_tokens"}:
        checked[key] = parse_value(setting(key), str(checked[key]), "option")
    for key, low in (("thinking_budget", 1), ("logprobs", 0)):
        value = checked.get(key, low)
        if not isinstance(value, int) or value < low:
            raise UsageError("The option {name} cannot be {value}.", name=key, value=repr(value))
    thinking = checked.pop("thinking", None)
    options = loaded.answer_options(None if thinking is None else bool(thinking))
    sampling = {key: checked.pop(key) for key in checked.keys() & _SAMPLING}
    if isinstance(checked.get("stop"), str):
        checked["stop"] = (checked["stop"],)
    elif "stop" in checked:
        checked["stop"] = tuple(checked["stop"])  # type: ignore[arg-type]
    return replace(
        options,
        sampling=replace(options.sampling, **sampling),  # type: ignore[arg-type]
        **checked,  # type: ignore[arg-type]
    )
