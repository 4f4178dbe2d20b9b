"""A short chat of thirty turns: whether it slows down, and whether memory leaks."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable
from dataclasses import replace

from qwen_edge.engine.interface import SamplingParams
from qwen_edge.host.memory_facts import own_memory
from qwen_edge.session.answer import AnswerOptions, ChatModel
from qwen_edge.session.bench_engine import Record
from qwen_edge.session.bench_plan import Speed
from qwen_edge.session.bench_result import median
from qwen_edge.session.conversation import Conversation
from qwen_edge.session.loaded import LoadedModel

TURNS = 30
# Three equal conversations: the first and the last can be compared turn by turn, and between them
# the cache is empty, so that what memory has grown by is not the cache.
_CONVERSATIONS = 3
_TURNS_EACH = TURNS // _CONVERSATIONS
_WARM_UP_TURNS = 2
# Bytes that the allocators may take on in a conversation until they have settled.
_SETTLING = 32 << 10
_LEAST_TOKENS, _MOST_TOKENS = 4, 32
# Tokens of a question with the template around it.
_QUESTION_TOKENS = 16
_QUESTIONS = ("Hello!", "And then?", "Why is that so?", "Tell me more.", "What do you think?")


def tokens_per_turn(speed: Speed, seconds: float) -> int:
    """Tokens of an answer so that the chat takes about so long; 0 if it cannot be that short."""
    per_turn = seconds / (TURNS + _WARM_UP_TURNS) - _QUESTION_TOKENS / speed.prefill
    tokens = int(per_turn * speed.decode)
    return min(tokens, _MOST_TOKENS) if tokens >= _LEAST_TOKENS else 0


def expected_seconds(speed: Speed, tokens: int) -> float:
    """About how long the chat takes with answers of so many tokens."""
    return (TURNS + _WARM_UP_TURNS) * (_QUESTION_TOKENS / speed.prefill + tokens / speed.decode)


def measure_stability(
    loaded: LoadedModel, tokens: int, record: Record, poll: Callable[[], None]
) -> None:
    """Chats; records the speed of each turn, the drift, the growth of memory and the leak.

    Args:
        loaded: the model; its cache is empty afterwards.
        tokens: of each answer, all of which are that long.
        record: called with key, size and value.
        poll: called between tokens; may raise.
    """
    model = replace(loaded.chat, stop_ids=frozenset(), poll=poll)
    options = AnswerOptions(SamplingParams(temperature=0), max_tokens=tokens, thinking=False)
    # What is loaded and allocated with the first turns only is no growth.
    _converse(model, options, _WARM_UP_TURNS)
    speeds: list[float] = []
    memory = [_memory(loaded)]
    start = time.monotonic()
    for _ in range(_CONVERSATIONS):
        speeds += _converse(model, options, _TURNS_EACH)
        memory.append(_memory(loaded))
    for speed in speeds:
        record("turn-speed", None, speed)
    seconds = time.monotonic() - start
    # Turn by turn, since a longer conversation is slower by nature.
    pairs = zip(speeds[:_TURNS_EACH], speeds[-_TURNS_EACH:], strict=True)
    ratios = [late / early for early, late in pairs if early > 0]
    if ratios:
        record("speed-drift", None, 100 * (median(ratios) - 1))
    grown = [after - before for before, after in itertools.pairwise(memory)]
    if memory[0]:
        record("memory-growth", None, memory[-1] - memory[0])
        # What is taken once is no leak: a leak shows in each conversation.
        each = min(grown) if min(grown) >= _SETTLING else 0
        record("leak", None, each * _CONVERSATIONS / seconds * 3600)


def _converse(model: ChatModel, options: AnswerOptions, turns: int) -> list[float]:
    """Has a conversation; the tokens a second of each turn."""
    conversation = Conversation(model)
    speeds = []
    for turn in range(turns):
        question = _QUESTIONS[turn % len(_QUESTIONS)]
        answer, _ = conversation.ask(question, options)
        for _ in answer:
            pass
        # Random weights may say nothing that is text.
        conversation.keep(question, answer.text or "...")
        speeds.append(answer.stats.decode_tokens_per_second)
    return speeds


def _memory(loaded: LoadedModel) -> int:
    """Anonymous bytes with an empty cache; 0 where they are not shown."""
    loaded.engine.truncate(0)
    gc.collect()
    return own_memory().anonymous or 0
