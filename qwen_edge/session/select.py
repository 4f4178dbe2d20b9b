"""What a device gets: a pure function from its profile to a configuration.

The table below is by RAM; what is free at the moment then decides how much of it comes true. Every
configuration keeps to one promise: predicted peak <= available - reserve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from qwen_edge.engine.interface import KV_TYPES, EngineConfig
from qwen_edge.engine.speculation import MAX_DRAFTS
from qwen_edge.errors import MemoryLimitError, UsageError
from qwen_edge.host.sizes import format_size
from qwen_edge.session.footprint import ModelFacts, predict_peak
from qwen_edge.session.profile import GIB, DeviceProfile, reserve_for, within

# Contexts are multiples of the KV cache's chunk, and none is shorter than the least useful one.
CONTEXT_STEP = 256
SHORTEST_CONTEXT = 512
# Facts and engine configuration -> peak resident bytes.
Predictor = Callable[[ModelFacts, EngineConfig], int]
# A phone sold with 4 GB reports 3.5 to 3.8 GiB: the kernel and the graphics keep the rest.
_MARKETED_SHARE = 0.85


@dataclass(frozen=True)
class RuntimeConfig:
    """A complete configuration.

    Attributes:
        tier: name of the row of the table.
        model: name of the model it is for.
        bits: of the model's weights.
        context: prompt and answer together, in tokens.
        kv_type: type of the KV cache.
        max_new_tokens: the longest answer.
        thinking: whether the model thinks before it answers.
        temperature, top_p, top_k, min_p: sampling.
        threads: of a decode step.
        prefill_threads: of a prefill pass.
        cpus: numbers of the cores that decode steps run on; empty: wherever the system puts them.
        prefill_cpus: likewise of the further threads of a prefill pass.
        lookup: ``auto`` or ``off``: whether answers are drafted from what was said before.
        keep_cache: see ``EngineConfig``.
        reserve: bytes of available memory that are left alone.
        predicted_peak: resident bytes when the context is full.
        calibrated: the fields among these that were measured on this device.
    """

    tier: str
    model: str
    bits: int
    context: int
    kv_type: str
    max_new_tokens: int
    thinking: bool
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    threads: int
    prefill_threads: int
    cpus: tuple[int, ...]
    prefill_cpus: tuple[int, ...]
    lookup: str
    keep_cache: bool
    reserve: int
    predicted_peak: int
    calibrated: tuple[str, ...] = ()


class Calibrated(NamedTuple):
    """Threads and cores that were measured to be best on this device: see ``RuntimeConfig``."""

    threads: int
    prefill_threads: int
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Wishes:
    """What the user asked for; None leaves the choice to the table.

    A wish is granted as it stands or refused with the numbers, never bent. What was measured here
    stands in for the table where the user asked for nothing.
    """

    context: int | None = None
    kv_type: str | None = None
    max_new_tokens: int | None = None
    thinking: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    threads: int | None = None
    prefill_threads: int | None = None
    cpus: tuple[int, ...] | None = None
    lookup: str | None = None
    keep_cache: bool = True
    reserve: int | None = None
    memory_cap: int | None = None
    calibrated: Calibrated | None = None


class Tier(NamedTuple):
    """One row of the table: what a device of at least this RAM is meant to run.

    Attributes:
        name: for people.
        gigabytes: RAM as it is marketed.
        largest: the largest model whose speed is bearable where so much RAM is usual.
        context: in tokens.
        kv_type: of the KV cache.
        thinking: whether its speed makes thinking bearable by default.
    """

    name: str
    gigabytes: int
    largest: str
    context: int
    kv_type: str
    thinking: bool


TIERS = (
    Tier("<2 GB", 0, "Qwen3-0.6B", 512, "int8", False),
    Tier("2 GB", 2, "Qwen3-0.6B", 1024, "int8", False),
    Tier("3 GB", 3, "Qwen3-0.6B", 2048, "int8", False),
    Tier("4 GB", 4, "Qwen3-0.6B", 4096, "int8", False),
    Tier("6 GB", 6, "Qwen3-1.7B", 4096, "f16", True),
    Tier("8 GB+", 8, "Qwen3-4B", 8192, "f16", True),
)


def tier_of(total_ram: int) -> Tier:
    """The row for a device of this much RAM (as the kernel reports it)."""
    fitting = [t for t in TIERS if total_ram >= t.gigabytes * GIB * _MARKETED_SHARE]
    return fitting[-1]


def allowed_bytes(profile: DeviceProfile, wishes: Wishes) -> int:
    """The most the process may take: available less the reserve, or the cap if that is less."""
    allowed = max(0, profile.available_ram - _reserve(profile, wishes))
    return allowed if wishes.memory_cap is None else min(allowed, wishes.memory_cap)


def select(
    profile: DeviceProfile,
    models: Sequence[ModelFacts],
    wishes: Wishes | None = None,
    kv_types: Sequence[str] = KV_TYPES,
    predict: Predictor = predict_peak,
) -> RuntimeConfig:
    """Chooses model, context, KV type, threads and sampling.

    Args:
        profile: the device.
        models: what may be used, the preferred one first.
        wishes: what the user fixed.
        kv_types: what the engine offers.
        predict: tells the peak resident bytes.

    Returns:
        A configuration whose predicted peak fits. What does not fit is shrunk: the context to half
        of the table's, then the KV type, then the context down to the shortest, then the model.

    Raises:
        MemoryLimitError: nothing fits; the message has the numbers.
        UsageError: a wish is out of the model's or the device's range.
    """
    wishes = wishes or Wishes()
    if wishes.cpus:
        profile = within(profile, wishes.cpus)
    tier = tier_of(profile.total_ram)
    allowed = allowed_bytes(profile, wishes)
    for facts in models:
        _check_wishes(facts, wishes, kv_types)
        for kv_type, context in _ladder(tier, facts, wishes, kv_types):
            engine = _engine_config(profile, wishes, context, kv_type)
            peak = predict(facts, engine)
            if peak <= allowed:
                return _configure(profile, tier, facts, wishes, engine, peak)
    raise _does_not_fit(profile, models, wishes, kv_types, predict)


def _check_wishes(facts: ModelFacts, wishes: Wishes, kv_types: Sequence[str]) -> None:
    longest = facts.config.max_positions
    if wishes.context is not None and not 1 <= wishes.context <= longest:
        raise UsageError(
            "context is {value}, and {model} takes 1 to {longest}.",
            "Choose a context in that range.",
            value=wishes.context,
            model=facts.name,
            longest=longest,
        )
    if wishes.kv_type is not None and wishes.kv_type not in kv_types:
        raise UsageError(
            "kv is {value}; allowed are {allowed}.",
            value=wishes.kv_type,
            allowed=", ".join(kv_types),
        )


def _ladder(
    tier: Tier, facts: ModelFacts, wishes: Wishes, kv_types: Sequence[str]
) -> Iterator[tuple[str, int]]:
    """KV types and contexts from the best to the smallest.

    Down to half of the context a more exact cache comes first, below that a longer context.
    """
    if wishes.kv_type is not None:
        types = [wishes.kv_type]
    else:
        wide = KV_TYPES.index(tier.kv_type)
        types = [kv for kv in kv_types if kv in KV_TYPES[wide:]] or list(kv_types[-1:])
    if wishes.context is not None:
        yield from ((kv, wishes.context) for kv in types)
        return
    longest = min(tier.context, facts.config.max_positions)
    shortest = min(SHORTEST_CONTEXT, longest)
    # A model may allow less than the step; then there is the one context only.
    contexts = [longest, *range((longest - 1) // CONTEXT_STEP * CONTEXT_STEP, 0, -CONTEXT_STEP)]
    contexts = [context for context in contexts if context >= shortest]
    half = [context for context in contexts if 2 * context >= longest]
    for kv in types:
        yield from ((kv, context) for context in half)
    yield from ((kv, context) for context in contexts[len(half) :] for kv in types)


def _engine_config(
    profile: DeviceProfile, wishes: Wishes, context: int, kv_type: str
) -> EngineConfig:
    """Decoding takes the big cores, since memory is its limit; prefill takes all.

    Unless something else was measured.
    """
    threads, prefill_threads = profile.big_cores or max(1, profile.cores), max(1, profile.cores)
    measured = wishes.calibrated if _calibrated_fields(wishes) else None
    if measured is not None:
        threads, prefill_threads = measured.threads, measured.prefill_threads
    threads = wishes.threads or threads
    allowed = (*profile.big, *profile.little) if wishes.cpus else ()
    # More threads than big cores want others, too.
    tied = profile.big if profile.little and threads <= len(profile.big) else allowed
    if measured is not None and not wishes.threads:
        tied = measured.cpus
    return EngineConfig(
        context=context,
        kv_type=kv_type,
        threads=threads,
        prefill_threads=wishes.prefill_threads or wishes.threads or prefill_threads,
        cores=tied,
        prefill_cores=allowed,
        # What is computed anew for each token is no cheaper for several.
        drafts=drafts_of(wishes.lookup) if wishes.keep_cache else 0,
        keep_cache=wishes.keep_cache,
    )


def _calibrated_fields(wishes: Wishes) -> tuple[str, ...]:
    """The fields of ``RuntimeConfig`` that what was measured decides.

    Among other cores than all of them it says nothing.
    """
    if wishes.calibrated is None or wishes.cpus:
        return ()
    decode = () if wishes.threads else ("threads", "cpus")
    return decode if wishes.threads or wishes.prefill_threads else (*decode, "prefill_threads")


def drafts_of(lookup: str | None) -> int:
    """``EngineConfig.drafts`` for a value of the setting."""
    return 0 if lookup == "off" else MAX_DRAFTS


def _configure(
    profile: DeviceProfile,
    tier: Tier,
    facts: ModelFacts,
    wishes: Wishes,
    engine: EngineConfig,
    peak: int,
) -> RuntimeConfig:
    thinking = tier.thinking if wishes.thinking is None else wishes.thinking
    thinking = thinking and facts.can_think
    temperature, top_p, top_k = recommended_sampling(facts, thinking)
    return RuntimeConfig(
        tier=tier.name,
        model=facts.name,
        bits=facts.bits,
        context=engine.context,
        kv_type=engine.kv_type,
        # Thoughts count as answer; half of the context is left for the questions even so.
        max_new_tokens=wishes.max_new_tokens or max(1, engine.context // (2 if thinking else 4)),
        thinking=thinking,
        temperature=temperature if wishes.temperature is None else wishes.temperature,
        top_p=top_p if wishes.top_p is None else wishes.top_p,
        top_k=top_k if wishes.top_k is None else wishes.top_k,
        min_p=0.0 if wishes.min_p is None else wishes.min_p,
        threads=engine.threads,
        prefill_threads=engine.prefill_threads,
        cpus=engine.cores,
        prefill_cpus=engine.prefill_cores,
        lookup="auto" if engine.drafts else "off",
        keep_cache=engine.keep_cache,
        reserve=_reserve(profile, wishes),
        predicted_peak=peak,
        calibrated=_calibrated_fields(wishes),
    )


def recommended_sampling(facts: ModelFacts, thinking: bool) -> tuple[float, float, int]:
    """Temperature, top-p and top-k that a model's authors recommend.

    Qwen3's model card has 0.6, 0.95, 20 with thinking and 0.7, 0.8, 20 without; the model's own
    defaults are the ones with thinking. Other models get their own.
    """
    if not facts.can_think:
        own = facts.generation
        return own.temperature, own.top_p, own.top_k
    return (0.6, 0.95, 20) if thinking else (0.7, 0.8, 20)


def _does_not_fit(
    profile: DeviceProfile,
    models: Sequence[ModelFacts],
    wishes: Wishes,
    kv_types: Sequence[str],
    predict: Predictor,
) -> MemoryLimitError:
    """The refusal, with the least that the smallest candidate would need."""
    if not models:
        raise ValueError("select needs at least one model")
    tier, allowed = tier_of(profile.total_ram), allowed_bytes(profile, wishes)
    least, facts = min(
        (
            (predict(facts, _engine_config(profile, wishes, context, kv)), facts)
            for facts in models
            for kv, context in _ladder(tier, facts, wishes, kv_types)
        ),
        key=lambda candidate: candidate[0],
    )
    values = {
        "model": facts.name,
        "needed": format_size(least),
        "allowed": format_size(allowed),
        "available": format_size(profile.available_ram),
        "reserve": format_size(_reserve(profile, wishes)),
    }
    hint = "Close other apps, or use a smaller model."
    shorter = replace(wishes, context=None)
    if wishes.context is not None:
        for kv, context in _ladder(tier, facts, shorter, kv_types):
            if predict(facts, _engine_config(profile, wishes, context, kv)) <= allowed:
                hint = "A --context of {context} fits."
                values["context"] = str(context)
                break
    if wishes.memory_cap == allowed:
        if "context" not in values:
            hint = "Raise --memory-cap, or use a smaller model."
        return MemoryLimitError(
            "{model} needs {needed} of memory, and the cap is {allowed}.", hint, **values
        )
    return MemoryLimitError(
        "{model} needs {needed} of memory, and it may take {allowed}: "
        "{available} are available, {reserve} of that stay in reserve.",
        hint,
        **values,
    )


def _reserve(profile: DeviceProfile, wishes: Wishes) -> int:
    return reserve_for(profile) if wishes.reserve is None else wishes.reserve
