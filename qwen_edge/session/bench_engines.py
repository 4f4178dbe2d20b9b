"""All engines of this device side by side: the same weights, one run, taking turns."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.engine.bandwidth import read_bandwidth
from qwen_edge.errors import MemoryLimitError, QwenEdgeError
from qwen_edge.host.paths import data_folder
from qwen_edge.model.packed import PackedModel
from qwen_edge.session.bench import Bench, Watcher
from qwen_edge.session.bench_checkpoint import temporary_checkpoint
from qwen_edge.session.bench_contenders import (
    CONTENDERS,
    OWN_SETTINGS,
    Contender,
    compiles,
    not_compiled,
    obstacle,
    package_bytes,
)
from qwen_edge.session.bench_engine import WARM_UP_STEPS
from qwen_edge.session.bench_facts import buffer_bytes, describe
from qwen_edge.session.bench_plan import FEWEST, MOST_STEPS, plan_repeats
from qwen_edge.session.bench_result import Part, Remark, median
from qwen_edge.session.engine_choice import TRANSFORMERS
from qwen_edge.session.engine_process import EngineFailed, EngineProcess
from qwen_edge.session.engine_speeds import WAYS, Way, write_speeds
from qwen_edge.session.plan import Plan, make_plan

# Seconds for everything.
BUDGETS = (240.0, 90.0)
# Until these shares of the budget are used up, engines are started, and started once more.
_FIRST_STARTS, _MORE_STARTS = 0.6, 0.4
_MOST_STARTS = 4
_LEAST_START_SECONDS = 10.0
PREFILLS = (512, 128, 32)
# Positions of what the model takes beside the prompt of a prefill.
_CONTEXT = PREFILLS[0] + MOST_STEPS + WARM_UP_STEPS
_IMPRESSION_PREFILL, _IMPRESSION_STEPS, _FEWEST_STEPS = 32, 4, 8
_DECODE_SECONDS, _QUICK_DECODE_SECONDS = 1.0, 0.5
# A measurement may take so many times as long as expected before it is given up.
_PATIENCE, _LEAST_PATIENCE = 10.0, 30.0
_SAFETY = 1.15


@dataclass
class _Entry:
    """An engine in the run.

    Attributes:
        contender: which it is.
        flags: all of its settings.
        process: where it runs, if it does.
        start_seconds: what its last start took, to the first token.
        prefill, decode: tokens a second as first seen.
    """

    contender: Contender
    flags: Mapping[str, object]
    process: EngineProcess | None = None
    start_seconds: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0

    @property
    def name(self) -> str:
        return self.contender.name

    def stop(self) -> None:
        if self.process is not None:
            self.process.close()
        self.process = None


class EnginesBench(Bench):
    """Sets the engines side by side; what cannot run here is left out with a remark.

    Each engine is a process of its own. They are started one after the other, then all of them
    take their turns, again and again, so that a drifting machine drifts under all of them; those
    that wait do nothing. Where they do not fit into memory together, each is started for its turn.

    Args:
        flags, budget, watcher, quick, started: see ``Bench``.
        contenders: the engines; the first is what the others are held against.
        start: starts an engine's process, given what to call while one waits for it.
    """

    kind = "engines"
    budgets = BUDGETS

    def __init__(
        self,
        flags: Mapping[str, object],
        budget: float,
        watcher: Watcher,
        *,
        quick: bool = False,
        started: float | None = None,
        contenders: Sequence[Contender] = CONTENDERS,
        start: Callable[[Callable[[], None]], EngineProcess] = EngineProcess,
    ) -> None:
        super().__init__(flags, budget, watcher, quick=quick, started=started)
        self._contenders = contenders
        self._start_process = start
        self._entries: list[_Entry] = []
        self._together = True
        self._buffer_bytes, self._threads = buffer_bytes(), 1

    def run(self) -> None:
        """See ``Bench.run``."""
        self._watcher.planned = self._budget
        flags = {key: value for key, value in self._flags.items() if key not in OWN_SETTINGS}
        plan = make_plan({**flags, "engine": "native", "lora": "off", "lookup": "off"})
        with contextlib.ExitStack() as stack:
            stack.callback(plan.model.close)
            model, settings, device = describe(plan)
            self._facts = (model, {**settings, "engine": "all"}, device)
            self._threads = plan.engine.threads
            self._temperature()
            stack.callback(self._stop_all)
            self._enter(plan, stack)
            self._starts()
            self._turns(self._prefill_size(plan), plan.runtime.context - WARM_UP_STEPS)
            self._keep(plan)
        self._temperature()

    def _enter(self, plan: Plan, stack: contextlib.ExitStack) -> None:
        """Decides who takes part, and makes the checkpoint for those that need one."""
        checkpoint: Path | None = None
        reason: Remark | None = None
        for contender in self._contenders:
            own: Remark | None = obstacle(contender)
            if own is None and contender.choice.name == TRANSFORMERS:
                if checkpoint is None and reason is None:
                    self._watcher.begin(Part("ready", None, contender.name))
                    checkpoint, reason = self._checkpoint(plan, stack)
                own = reason
            if own is not None:
                self._left_out(contender, own)
                continue
            path = checkpoint if contender.choice.name == TRANSFORMERS else plan.found.path
            self._entries.append(_Entry(contender, _flags(plan, contender, path)))
            self._samples[Part("packages", None, contender.name)] = [package_bytes(contender)]

    def _checkpoint(
        self, plan: Plan, stack: contextlib.ExitStack
    ) -> tuple[Path | None, Remark | None]:
        """The weights as transformers takes them, or why there are none."""
        assert isinstance(plan.model, PackedModel)

        def progress(done: int, total: int, name: str) -> None:
            self._watcher.poll()

        try:
            making = temporary_checkpoint(plan.model, data_folder(), progress)
            return stack.enter_context(making), None
        except QwenEdgeError as error:
            return None, Remark(error.sentence, error.values)

    def _starts(self) -> None:
        """Starts every engine, and again: the first time may be that of a compilation."""
        for turn in range(_MOST_STARTS):
            share = _MORE_STARTS if turn else _FIRST_STARTS
            for entry in list(self._entries):
                late = self._budget - self._left() > share * self._budget
                due = not turn or not late or (turn == 1 and compiles(entry.contender))
                if not due or (turn > 1 and self._quick):
                    continue
                with self._leaving_out(entry):
                    self._start_entry(entry)
                    if not turn:
                        self._first_impression(entry)
                    elif turn == 1:
                        self._set_apart(entry)
                self._rest(entry)

    def _set_apart(self, entry: _Entry) -> None:
        """The very first start read from the disk, or compiled: it is a figure of its own."""
        _, first = (
            self._samples[Part(key, None, entry.name)].pop(0)
            for key in ("ready", "first-token-cold")
        )
        self._sample_of(entry, "first-token-ever", None, first)

    def _start_entry(self, entry: _Entry) -> None:
        """Starts an engine anew, alone if memory does not suffice beside the others."""
        try:
            self._open(entry)
        except EngineFailed as failure:
            others = any(one.process for one in self._entries if one is not entry)
            if not (failure.memory and others):
                raise
            self._together = False
            self._stop_all()
            self._open(entry)

    def _open(self, entry: _Entry) -> None:
        self._watcher.begin(Part("ready", None, entry.name))
        entry.stop()
        left = self._left() - (1 - _FIRST_STARTS) * self._budget
        until = time.monotonic() + max(left, _LEAST_START_SECONDS)
        entry.process = process = self._start_process(self._watcher.poll)
        opened = process.ask("open", until, flags=entry.flags)
        ready = time.monotonic() - process.started
        process.ask("first_token", until)
        first = time.monotonic() - process.started
        warnings = [Remark(template, values) for template, values in opened["warnings"]]
        if not_compiled(entry.contender, opened["compiled"]):
            values = {"reason": warnings[-1] if warnings else Remark("?")}
            raise EngineFailed(Remark("the model cannot be compiled here: {reason}", values))
        self._told(entry, warnings)
        entry.start_seconds = first
        self._sample_of(entry, "ready", None, ready)
        self._sample_of(entry, "first-token-cold", None, first)

    def _told(self, entry: _Entry, warnings: Sequence[Remark]) -> None:
        """Hands on what did not work, once."""
        for warning in warnings:
            values = {"engine": Remark(entry.name), "reason": warning}
            remark = Remark("{engine}: {reason}", values)
            if remark not in self._remarks:
                self._remarks.append(remark)

    def _first_impression(self, entry: _Entry) -> None:
        steps, tokens = _IMPRESSION_STEPS, _IMPRESSION_PREFILL
        entry.decode = steps / self._ask(entry, "decode", 0.0, steps=steps)
        entry.prefill = tokens / self._ask(entry, "prefill", 0.0, tokens=tokens)

    def _prefill_size(self, plan: Plan) -> int:
        """The longest prompt that all engines can read a few times in half of what is left."""
        fitting = [size for size in PREFILLS if size <= plan.runtime.context]
        for size in fitting:
            once = sum(size / entry.prefill for entry in self._entries)
            if FEWEST * once <= self._left() / 2:
                return size
        return fitting[-1] if fitting else 0

    def _turns(self, prefill: int, most_steps: int) -> None:
        """Every engine in turn: a sample of decoding and one of a prompt, as often as time allows.

        If time is too short for all, prompts are left out first, the last engine's before others.
        """
        seconds = _QUICK_DECODE_SECONDS if self._quick else _DECODE_SECONDS
        steps = {
            entry.name: int(min(max(seconds * entry.decode, _FEWEST_STEPS), MOST_STEPS, most_steps))
            for entry in self._entries
        }
        expected: dict[Part, float] = {}
        for entry in self._entries:
            start = 0.0 if self._together else entry.start_seconds
            cost = (steps[entry.name] + WARM_UP_STEPS) / entry.decode + start
            expected[Part("decode", 0, entry.name)] = cost * _SAFETY
        if prefill:
            for entry in self._entries:
                part = Part("prefill", prefill, entry.name)
                expected[part] = prefill / entry.prefill * _SAFETY
        repeats = dict(zip(expected, plan_repeats([*expected.values()], self._left()), strict=True))
        total = sum(one * repeats[part] for part, one in expected.items())
        self._watcher.planned = self._budget - self._left() + total
        for turn in range(max(repeats.values(), default=0)):
            for entry in list(self._entries):
                due = [
                    part for part, count in repeats.items()
                    if part.engine == entry.name and count > turn
                    and (turn == 0 or self._left() > expected[part])
                ]  # fmt: skip
                if due:
                    with self._leaving_out(entry):
                        self._turn(entry, due, steps[entry.name], expected)
                    self._rest(entry)
        names = {entry.name for entry in self._entries}
        for part, count in repeats.items():
            if not count and part.engine in names:
                self._omitted(part, expected[part])

    def _keep(self, plan: Plan) -> None:
        """Lets ``--engine auto`` know how fast the engines are that take model files."""
        names = {way: name for name, way in WAYS.items()}
        speeds: dict[str, float] = {}
        for contender in self._contenders:
            choice = contender.choice
            name = names.get(Way(choice.name, choice.compile))
            samples = self._samples.get(Part("decode", 0, contender.name))
            if name is not None and samples:
                speeds.setdefault(name, median(samples))
        # Without the cache another one may be the fastest.
        if plan.engine.keep_cache:
            write_speeds(plan.facts.config, plan.facts.bits, speeds)

    def _turn(
        self, entry: _Entry, due: Sequence[Part], steps: int, expected: dict[Part, float]
    ) -> None:
        if entry.process is None:
            self._start_entry(entry)
        for part in due:
            self._watcher.begin(part)
            self._bandwidth()
            if part.key == "decode":
                taken = self._ask(entry, "decode", expected[part], steps=steps)
                self._sample_of(entry, "decode", 0, steps / taken)
            else:
                tokens = part.size or 0
                taken = self._ask(entry, "prefill", expected[part], tokens=tokens)
                self._sample_of(entry, "prefill", tokens, tokens / taken)
                expected[part] = taken

    def _bandwidth(self) -> None:
        with contextlib.suppress(MemoryLimitError):
            self._record("bandwidth", None, read_bandwidth(self._buffer_bytes, self._threads))

    def _ask(self, entry: _Entry, name: str, expected: float, **arguments: object) -> float:
        assert entry.process is not None
        patience = max(_PATIENCE * expected, _LEAST_PATIENCE)
        value = entry.process.ask(name, time.monotonic() + patience, **arguments)
        return float(value)

    def _sample_of(self, entry: _Entry, key: str, size: int | None, value: float) -> None:
        self._samples.setdefault(Part(key, size, entry.name), []).append(value)

    def _rest(self, entry: _Entry) -> None:
        """Notes the engine's peak; it stays where it is if there is room for all."""
        if entry.process is None:
            return
        with self._leaving_out(entry):
            peak = entry.process.ask("peak", time.monotonic() + _LEAST_PATIENCE)
            if peak is not None:
                held = self._samples.setdefault(Part("process-peak", None, entry.name), [0.0])
                held[0] = max(held[0], float(peak))
        if not self._together:
            entry.stop()

    @contextlib.contextmanager
    def _leaving_out(self, entry: _Entry) -> Iterator[None]:
        """Takes an engine that fails out of the run, with all that was measured of it."""
        try:
            yield
        except EngineFailed as failure:
            entry.stop()
            self._entries.remove(entry)
            for part in [part for part in self._samples if part.engine == entry.name]:
                del self._samples[part]
            self._left_out(entry.contender, failure.reason)

    def _left_out(self, contender: Contender, reason: Remark) -> None:
        self._remarks.append(
            Remark(
                "{engine} is left out: {reason}",
                {"engine": Remark(contender.name), "reason": reason},
            )
        )

    def _stop_all(self) -> None:
        for entry in self._entries:
            entry.stop()


def _flags(plan: Plan, contender: Contender, path: Path | None) -> dict[str, object]:
    """All settings of an engine: the user's, those that the plan chose, and its own."""
    flags = {
        key: "off" if known.value is None else known.value
        for key, known in plan.settings.values.items()
        if key not in OWN_SETTINGS
    }
    flags |= {
        "model": str(path),
        "threads": plan.engine.threads,
        "prefill-threads": plan.engine.prefill_threads,
        "prompt-cache-size": "off",
    }
    # That of an ordinary run: what was compiled for one then serves the other.
    context = plan.runtime.context
    if contender.choice.name == TRANSFORMERS:
        # It keeps keys and values as floats, and takes memory for them as they come.
        flags.pop("kv", None)
        context = min(context, _CONTEXT)
    else:
        flags["kv"] = plan.runtime.kv_type
    return flags | {"context": context} | dict(contender.flags)
