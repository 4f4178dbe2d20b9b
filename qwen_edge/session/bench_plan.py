"""What a benchmark measures in the time and memory that there is, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.memory_estimate import CHUNK_POSITIONS, kv_bytes_per_token
from qwen_edge.host.sizes import format_size
from qwen_edge.session.bench_result import Part, Remark
from qwen_edge.session.footprint import predict_peak
from qwen_edge.session.plan import Plan
from qwen_edge.session.select import allowed_bytes

PREFILLS = (32, 128, 512, 2048)
DEPTHS = (0, 2048, 8192)
BATCHES = (1, 2, 4, 8)
# Samples of each measure: fewer say little about the noise, more hardly more.
FEWEST, MOST = 3, 7
MOST_STEPS = 64
# Positions that the sequences of a batch hold before the measured steps.
BATCH_DEPTH = 32
# Positions that are computed before a depth is made of copies.
STRETCHED_FROM = 16
_ROOM = MOST_STEPS + 16
# The most valuable first: what the time does not suffice for is left out from the end.
_ORDER = (
    ("decode", 0), ("first-token-warm", None), ("prefill", 128), ("decode", 2048),
    ("prefill", 32), ("decode", 8192), ("batch", 1), ("batch", 8), ("prefill", 512),
    ("batch", 4), ("batch", 2), ("prefill", 2048),
)  # fmt: skip
# A prefill's attention adds to the cost of its later tokens.
_PREFILL_GROWTH = 1 / 4096
_SAFETY = 1.15


class Speed(NamedTuple):
    """A first impression of a model: tokens a second, and what surrounds a decode sample."""

    prefill: float
    decode: float
    bandwidth_seconds: float


@dataclass(frozen=True)
class Scope:
    """What memory and context allow.

    Attributes:
        engine: how the engine is set up for all of it.
        parts: what can be measured, the most valuable first.
        remarks: what cannot, and why.
        buffer_bytes: of the bandwidth measurement.
    """

    engine: EngineConfig
    parts: tuple[Part, ...]
    remarks: tuple[Remark, ...]
    buffer_bytes: int


def make_scope(plan: Plan, buffer_bytes: int) -> Scope:
    """Chooses what fits into the context and the memory.

    A context that the user set is kept to; otherwise the model's own limit holds, and memory
    decides. A part is held against the memory by the peak that is predicted for it.
    """
    allowed = allowed_bytes(plan.profile, plan.settings.wishes())
    named = "context" in plan.settings.values
    longest = plan.runtime.context if named else plan.facts.config.max_positions
    parts, remarks, deepest = [], [], min(plan.engine.context, longest)
    for key, size in _ORDER:
        part = Part(key, size)
        needed = positions(part)
        if needed > longest:
            remarks.append(
                Remark(
                    "{part} is left out: it takes a context of {needed} tokens, and this one has "
                    "{context}.",
                    {"part": part, "needed": needed, "context": longest},
                )
            )
            continue
        peak = _peak(plan, part) + buffer_bytes
        if peak > allowed and part != Part("decode", 0):
            remarks.append(
                Remark(
                    "{part} is left out: it would take {needed} of memory, and {allowed} may be "
                    "taken.",
                    {"part": part, "needed": format_size(peak), "allowed": format_size(allowed)},
                )
            )
            continue
        deepest = max(deepest, needed)
        parts.append(part)
    engine = replace(plain(plan.engine), context=deepest, sequences=max(BATCHES))
    return Scope(engine, tuple(parts), tuple(remarks), buffer_bytes)


def plain(engine: EngineConfig) -> EngineConfig:
    """The engine without drafts: how many of them come true depends on the text."""
    return replace(engine, drafts=0)


def positions(part: Part) -> int:
    """The longest sequence that measuring a part makes."""
    if part.key == "prefill":
        return part.size or 0
    if part.key == "batch":
        return BATCH_DEPTH + _ROOM
    return (part.size or 0) + _ROOM


def _peak(plan: Plan, part: Part) -> int:
    """Predicted resident bytes while a part is measured."""
    facts, engine, filled = plan.facts, plain(plan.engine), positions(part)
    peak = predict_peak(facts, replace(engine, context=filled), filled, plan.choice)
    if part.key == "batch":
        # Pages between the positions in use count as well.
        extra = CHUNK_POSITIONS * kv_bytes_per_token(facts.config, engine.kv_type)
        peak += ((part.size or 1) - 1) * (extra + 4 * facts.config.vocab_size)
    return peak


def decode_steps(speed: Speed, seconds: float) -> int:
    """Steps of a decode sample that takes about so many seconds."""
    return int(min(max(seconds * speed.decode, 8), MOST_STEPS))


def cost(
    part: Part,
    speed: Speed,
    steps: int,
    prompt: int,
    depth_share: float,
    *,
    stretches: bool = True,
    keep_cache: bool = True,
) -> float:
    """Estimated seconds of one sample.

    Args:
        part: what is measured.
        speed: the first impression.
        steps: of a decode sample.
        prompt: tokens of the prompt before a first token.
        depth_share: bytes of keys and values a position, as a share of those of the weights.
        stretches: whether the engine reaches a depth without computing it.
        keep_cache: whether a step computes its own token only.
    """
    size, step = part.size or 0, 1 / speed.decode
    reading = size / speed.prefill * (1 + size * _PREFILL_GROWTH)
    if part.key == "prefill":
        seconds = reading
    elif part.key == "first-token-warm":
        seconds = prompt / speed.prefill + step
    elif part.key == "batch":
        more = (size - 1) * min(1 / speed.prefill, step)
        seconds = BATCH_DEPTH / speed.prefill + (steps // 2 + 1) * (step + more)
    else:
        read = 1 + size * depth_share
        # Making a depth writes its bytes once, at a fraction of the speed of reading.
        seconds = (steps + 2) * step * read + 4 * step * (read - 1) + 2 * speed.bandwidth_seconds
        seconds += min(size, STRETCHED_FROM) / speed.prefill if stretches else reading
        seconds += 0 if keep_cache else (steps + 2) * reading
    return seconds * _SAFETY


def plan_repeats(costs: Sequence[float], seconds: float, *, obliged: bool = True) -> list[int]:
    """How often each part is measured so that all together take no longer than ``seconds``.

    Args:
        costs: seconds of one sample of each part, the most valuable first.
        seconds: for all of them.
        obliged: whether the first part has a sample in any case.

    Returns:
        For each part ``FEWEST`` to ``MOST`` samples; one where three would take too long; or none.
    """
    left = seconds
    repeats: list[int] = []
    for one in costs:
        # A single sample must not eat what the parts behind it need.
        count = (
            FEWEST if FEWEST * one <= left else int(one <= left / 2 or (obliged and not repeats))
        )
        repeats.append(count)
        left -= count * one
    for _ in range(FEWEST, MOST):
        for i, one in enumerate(costs):
            if repeats[i] >= FEWEST and one <= left:
                repeats[i] += 1
                left -= one
    return repeats
