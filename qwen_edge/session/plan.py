"""From flags to a plan: which model, opened, and how it is going to run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.errors import MemoryLimitError, UsageError
from qwen_edge.host.paths import calibration_file
from qwen_edge.host.place import Place
from qwen_edge.host.storage import is_shared_storage
from qwen_edge.model.packed import PackedModel
from qwen_edge.session.engine_choice import NATIVE, EngineChoice
from qwen_edge.session.engine_setup import choose_engine, settle
from qwen_edge.session.footprint import ModelFacts, bits_of, facts_of, predict_peak
from qwen_edge.session.lora import Lora, wanted_lora, with_lora
from qwen_edge.session.memory import MemoryCap
from qwen_edge.session.models import FoundModel, resolve
from qwen_edge.session.opened import Model, open_found
from qwen_edge.session.profile import DeviceProfile, read_profile
from qwen_edge.session.select import RuntimeConfig, Wishes, allowed_bytes, drafts_of, select
from qwen_edge.session.settings import Settings

# Address space that a thread's stack reserves: 8 MiB with glibc, 1 MiB with Android's libc.
THREAD_STACK = 8 << 20


# Likewise the part of the heap that glibc sets apart for each of a library's threads.
THREAD_HEAP = 64 << 20
# Threads that transformers loads weights with.
_LOADERS = 4


def address_only(threads: int, choice: EngineChoice) -> int:
    """Bytes of address space that an engine's threads reserve and mostly do not touch."""
    if choice.name == NATIVE:
        return threads * THREAD_STACK
    return (threads + _LOADERS) * (THREAD_STACK + THREAD_HEAP)


@dataclass(frozen=True)
class Plan:
    """All that is needed to start an engine.

    Attributes:
        found: where the model is, and whether a note about it is due.
        model: the open model; the plan's owner closes it.
        facts: what is known of it.
        profile: the device.
        settings: what the user set.
        runtime: the configuration chosen.
        engine: the engine's part of it.
        sampling: the sampler's part of it.
        budget: bytes for the memory cap, or None if it is off.
        shared_storage: whether the model lies on Android's shared storage, where it is very slow.
        choice: which engine it is.
        lora: the adapter to answer with; its memory is among the facts.
    """

    found: FoundModel
    model: Model
    facts: ModelFacts
    profile: DeviceProfile
    settings: Settings
    runtime: RuntimeConfig
    engine: EngineConfig
    sampling: SamplingParams
    budget: int | None
    shared_storage: bool
    choice: EngineChoice
    lora: Lora | None = None

    @property
    def quantization(self) -> Mapping[str, object]:
        """How and how well the weights are quantized, for people."""
        if isinstance(self.model, PackedModel):
            return self.model.quantization
        return {"bits": self.facts.bits, "method": self.choice.weights}

    def memory_cap(self) -> MemoryCap:
        """A cap for loading the model and running it."""
        threads = max(self.engine.threads, self.engine.prefill_threads)
        return MemoryCap(
            self.budget,
            mapped=self.facts.mapped_bytes,
            address_only=address_only(threads, self.choice)
            + (self.lora.mapped if self.lora else 0),
        )


def make_plan(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    config_path: Path | None = None,
    place: Place | None = None,
) -> Plan:
    """Resolves settings, finds and opens the model, and chooses the configuration.

    Args:
        flags: setting key -> value given on the command line, or None.
        environ: the environment variables.
        config_path: the configuration file, by default the user's.
        place: where the device's facts come from.

    Raises:
        UsageError: a bad setting.
        ModelNotFoundError: there is no such model or adapter.
        DamagedModelError: the model or the adapter cannot be used.
        MemoryLimitError: it does not fit.
        QwenEdgeError: a package that the engine needs is not installed.
    """
    settings = Settings.load(flags, environ, config_path)
    named = settings.values.get("model")
    choice = choose_engine(settings, place)
    found = resolve(str(named.value) if named else None, environ, engine=choice.name)
    profile = read_profile(place)
    model = open_found(found, choice.name)
    try:
        choices = settle(choice, model, settings, place, environ)
        lora = wanted_lora(settings, model.config)
        if lora is not None and choices[0].name != NATIVE:
            raise no_adapters(choices[0])
        wishes = with_calibration(settings.wishes(), profile, model, environ)
        choice, facts, runtime = _select_first(choices, profile, model, lora, wishes)
    except BaseException:
        model.close()
        raise
    cap = settings.get("memory-cap")
    return Plan(
        found=found,
        model=model,
        facts=facts,
        profile=profile,
        settings=settings,
        runtime=runtime,
        engine=engine_config(runtime),
        sampling=sampling_params(runtime, settings),
        budget=None if cap is None else allowed_bytes(profile, wishes),
        shared_storage=is_shared_storage(found.path, place),
        lora=lora,
        choice=choice,
    )


def with_calibration(
    wishes: Wishes, profile: DeviceProfile, model: Model, environ: Mapping[str, str] | None = None
) -> Wishes:
    """Adds what was measured here with a model of this shape, if anything was."""
    # Most have measured nothing, and what reads JSON takes a while to import.
    if not isinstance(model, PackedModel) or not os.path.exists(calibration_file(environ)):
        return wishes
    from qwen_edge.session.calibration import read_calibration

    stored = read_calibration(profile, model.config, bits_of(model), environ)
    return replace(wishes, calibrated=stored.result.chosen) if stored.result else wishes


def _select_first(
    choices: Sequence[EngineChoice],
    profile: DeviceProfile,
    model: Model,
    lora: Lora | None,
    wishes: Wishes,
) -> tuple[EngineChoice, ModelFacts, RuntimeConfig]:
    """The first engine that fits; raises as the last one does."""
    for choice in choices[:-1]:
        facts = with_lora(facts_of(model, choice), lora)
        with contextlib.suppress(MemoryLimitError):
            return choice, facts, select_for(choice, profile, facts, wishes)
    facts = with_lora(facts_of(model, choices[-1]), lora)
    return choices[-1], facts, select_for(choices[-1], profile, facts, wishes)


def select_for(
    choice: EngineChoice, profile: DeviceProfile, facts: ModelFacts, wishes: Wishes
) -> RuntimeConfig:
    """Chooses the configuration of one model for an engine; raises as ``select`` does."""
    if not choice.drafts:
        wishes = replace(wishes, lookup="off")
    if choice.name != NATIVE:
        wishes = replace(wishes, calibrated=None)
    return select(profile, [facts], wishes, choice.kv_types, partial(predict_peak, choice=choice))


def no_adapters(choice: EngineChoice) -> UsageError:
    """The error that an engine does not answer with adapters."""
    return UsageError(
        "The engine {engine} does not answer with adapters.",
        "Use --engine native, or merge it: `qwen-edge convert DIR --lora ADAPTER`.",
        engine=choice.name,
    )


def engine_config(runtime: RuntimeConfig) -> EngineConfig:
    """The engine's part of a configuration."""
    return EngineConfig(
        context=runtime.context,
        kv_type=runtime.kv_type,
        threads=runtime.threads,
        prefill_threads=runtime.prefill_threads,
        cores=runtime.cpus,
        prefill_cores=runtime.prefill_cpus,
        drafts=drafts_of(runtime.lookup),
        keep_cache=runtime.keep_cache,
    )


def sampling_params(runtime: RuntimeConfig, settings: Settings) -> SamplingParams:
    """The sampler's part of a configuration."""
    repetition, presence = settings.get("repetition-penalty"), settings.get("presence-penalty")
    seed = settings.get("seed")
    return SamplingParams(
        temperature=runtime.temperature,
        top_k=runtime.top_k,
        top_p=runtime.top_p,
        min_p=runtime.min_p,
        repetition_penalty=repetition if isinstance(repetition, float) else 1.0,
        presence_penalty=presence if isinstance(presence, float) else 0.0,
        seed=seed if isinstance(seed, int) else None,
    )
