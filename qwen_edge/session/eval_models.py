"""The models of an evaluation: their vocabularies, their engines, and whether they fit together."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_edge.engine.interface import Engine, EngineConfig
from qwen_edge.errors import MemoryLimitError, UsageError
from qwen_edge.host.sizes import format_size
from qwen_edge.model.closing import Closing
from qwen_edge.native.checksum import checksum
from qwen_edge.native.instruction_sets import isa_name
from qwen_edge.session.engine_choice import NATIVE, TRANSFORMERS
from qwen_edge.session.engines import adaptable, create_engine, load_packages
from qwen_edge.session.footprint import library_bytes, predict_peak
from qwen_edge.session.lora import apply_lora
from qwen_edge.session.memory import MemoryCap, memory_errors
from qwen_edge.session.models import resolve
from qwen_edge.session.opened import open_found, open_tokenizer
from qwen_edge.session.plan import THREAD_STACK, Plan, address_only, make_plan
from qwen_edge.session.select import allowed_bytes
from qwen_edge.session.settings import Settings

if TYPE_CHECKING:
    from qwen_edge.engine.watcher import Watcher

# Rows whose logits are computed in one call: as many as this holds, within limits.
_LOGIT_BYTES, _FEWEST_ROWS, _MOST_ROWS = 32 << 20, 8, 128


@dataclass(frozen=True)
class Precision:
    """With what accuracy a model computes.

    Attributes:
        kv_type: of the cache.
        activations: ``int8`` as in daily use, or ``f32``, which is slow.
        wanted: whether the user asked for either.
    """

    kv_type: str
    activations: str
    wanted: bool = False


def logit_rows(vocab: int) -> int:
    """How many rows of logits are held at a time."""
    return min(max(_LOGIT_BYTES // (4 * vocab), _FEWEST_ROWS), _MOST_ROWS)


class Words(Closing):
    """A model's file with its tokenizer, before anything is computed; a context manager.

    Args:
        flags: settings as on the command line; ``model`` among them, or the one set elsewhere.

    Attributes:
        path: the file, or the folder.
        model: the same, open.
        tokenizer: of the model.

    Raises:
        UsageError: a bad setting.
        ModelNotFoundError: there is no such model.
        DamagedModelError: it cannot be used.
    """

    def __init__(self, flags: Mapping[str, object]) -> None:
        settings = Settings.load(flags)
        named, engine = settings.values.get("model"), str(settings.get("engine"))
        found = resolve(str(named.value) if named else None, engine=engine)
        self.path = found.path
        self.model = open_found(found, engine)
        try:
            self.tokenizer = open_tokenizer(self.model)
        except BaseException:
            self.model.close()
            raise

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self.model.close()

    @property
    def vocab(self) -> int:
        """Length of a row of logits, which may exceed the tokenizer's vocabulary."""
        return self.model.config.vocab_size

    def identity(self) -> int:
        """64 bits of what the ids stand for: equal for models whose logits can be compared."""
        known = self.tokenizer.vocab_size
        text = self.tokenizer.decode_bytes(range(known))
        return checksum(text, checksum(struct.pack("<II", self.vocab, known)))


@dataclass(frozen=True)
class Engines:
    """Engines side by side.

    Attributes:
        plans: of the models.
        engines: likewise.
        poll: called between calls; raises where too much memory is in use.
    """

    plans: Sequence[Plan]
    engines: Sequence[Engine]
    poll: Callable[[], None]

    def about(self, index: int) -> dict[str, object]:
        """What decides a model's figures, in plain types."""
        config = self.engines[index].config
        lora, choice = self.plans[index].lora, self.plans[index].choice
        return {
            "model": self.plans[index].model.name,
            **({} if lora is None else {"adapter": f"{lora.name} x {lora.scale:g}"}),
            **({} if choice.name == NATIVE else {"engine": choice.name}),
            "file": self.plans[index].found.path.name,
            "kv": config.kv_type,
            **_computation(self.plans[index], config),
        }


def _computation(plan: Plan, config: EngineConfig) -> dict[str, object]:
    if plan.choice.name == TRANSFORMERS:
        return {"activations": plan.choice.floats, "isa": "torch"}
    scalar = config.activations != "int8"
    return {"activations": config.activations, "isa": "scalar" if scalar else isa_name()}


@contextlib.contextmanager
def load_engines(
    flags: Mapping[str, object],
    models: Sequence[Path],
    context: int,
    precision: Precision,
    *,
    packs: bool = False,
    watcher: Watcher | None = None,
) -> Iterator[Engines]:
    """Loads one model or two under one memory cap.

    Args:
        flags: settings as on the command line.
        models: the files; an adapter among the settings goes with the first.
        context: tokens of the longest sequence.
        precision: of all of them.
        packs: whether rows of logits are packed or unpacked besides.
        watcher: is told what setting an engine up takes.

    Raises:
        DamagedModelError: a model cannot be used.
        MemoryLimitError: they do not fit.
        UsageError: a bad setting, a context that a model does not take among them.
        QwenEdgeError: the engine's packages are not there.
    """
    wanted = dict(flags) | {"context": context, "lookup": "off"}
    # What the settings do not know is close enough to fp16 for the first look at memory.
    kv_type = "f16" if precision.kv_type == "f32" else precision.kv_type
    with contextlib.ExitStack() as stack:
        plans = []
        for path in models:
            # A checkpoint's folder has no choice.
            own = {"kv": None if path.is_dir() else kv_type, "model": str(path)}
            plans.append(make_plan(wanted | own))
            wanted["lora"] = "off"
            stack.callback(plans[-1].model.close)
        configs = [_engine_config(plan, precision) for plan in plans]
        _check_memory(plans, configs, packs)
        load_packages(plans[0].choice, watcher)
        cap = stack.enter_context(_memory_cap(plans))
        engines = []
        for plan, config in zip(plans, configs, strict=True):
            with memory_errors():
                engines.append(create_engine(replace(plan, engine=config), watcher))
                stack.callback(engines[-1].close)
                if plan.lora is not None:
                    adapting = adaptable(engines[-1], plan.choice)
                    apply_lora(adapting, plan.lora, plan.model.config)
        yield Engines(plans, engines, cap.watch.poll)


def _engine_config(plan: Plan, precision: Precision) -> EngineConfig:
    config = replace(plan.engine, prefill_rows=_MOST_ROWS, drafts=0)
    if plan.choice.name != TRANSFORMERS:
        return replace(config, kv_type=precision.kv_type, activations=precision.activations)
    if precision.wanted:
        raise UsageError(
            "--kv and --activations do not apply to the engine transformers.",
            "--weights chooses its precision.",
        )
    return config


def _check_memory(plans: Sequence[Plan], configs: Sequence[EngineConfig], packs: bool) -> None:
    """Refuses what does not fit; the prediction of a single plan leaves out the rows of logits."""
    base = needed = library_bytes(plans[0].choice)
    for plan, config in zip(plans, configs, strict=True):
        vocab = plan.facts.config.vocab_size
        rows = logit_rows(vocab)
        # Drafts are rows whose logits are wanted, too.
        more = replace(config, drafts=rows - 1)
        needed += predict_peak(plan.facts, more, choice=plan.choice) - base
        # Codes of 2 bytes and what is unpacked of them.
        needed += (2 + 4) * rows * vocab if packs else 0
    allowed = allowed_bytes(plans[0].profile, plans[0].settings.wishes())
    if needed <= allowed:
        return
    values: dict[str, object] = {
        "needed": format_size(needed),
        "allowed": format_size(allowed),
        "model": plans[0].model.name,
    }
    if len(plans) > 1:
        raise MemoryLimitError(
            "{model} and {other} side by side need {needed} of memory, and {allowed} may be taken.",
            "Take them one after the other: --save-reference FILE with {other}, then "
            "--reference FILE.",
            other=plans[1].model.name,
            **values,
        )
    raise MemoryLimitError(
        "Evaluating {model} needs {needed} of memory, and {allowed} may be taken.",
        "Close other apps, or use a smaller model.",
        **values,
    )


def _memory_cap(plans: Sequence[Plan]) -> MemoryCap:
    threads = sum(max(plan.engine.threads, plan.engine.prefill_threads) for plan in plans)
    return MemoryCap(
        plans[0].budget,
        mapped=sum(plan.facts.mapped_bytes for plan in plans),
        # Short-lived threads share the judging of rows.
        address_only=threads * THREAD_STACK
        + address_only(threads, plans[0].choice)
        + sum(plan.lora.mapped for plan in plans if plan.lora is not None),
    )
