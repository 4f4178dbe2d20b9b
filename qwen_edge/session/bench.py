"""A benchmark of one model on this device, within a budget of time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import qwen_edge
from qwen_edge.errors import MemoryLimitError
from qwen_edge.host.battery import battery_temperature
from qwen_edge.session.answer import AnswerOptions
from qwen_edge.session.bench_engine import EngineBench
from qwen_edge.session.bench_facts import buffer_bytes, describe
from qwen_edge.session.bench_plan import (
    FEWEST,
    Scope,
    Speed,
    cost,
    decode_steps,
    make_scope,
    plan_repeats,
)
from qwen_edge.session.bench_process import QUESTION, ColdStart, start_cold
from qwen_edge.session.bench_result import Part, Remark, Report, measures_of
from qwen_edge.session.bench_stability import (
    expected_seconds,
    measure_stability,
    tokens_per_turn,
)
from qwen_edge.session.conversation import USER, Message, encode_messages
from qwen_edge.session.loaded import LoadedModel
from qwen_edge.session.plan import Plan, make_plan

if TYPE_CHECKING:
    from qwen_edge.engine.watcher import Watcher as SetupWatcher

# Seconds for everything; three minutes and forty seconds are promised.
BUDGETS = (150.0, 30.0)
# Shares of the budget: processes started afresh, and the chat of what is left after them.
_COLD_SHARE, _CHAT_SHARE, _QUICK_CHAT_SHARE = 0.12, 0.3, 0.2
_MOST_COLD, _LOADS = 5, 5
# Seconds of one decode sample: long enough to average over, short enough for several.
_DECODE_SECONDS = 1.5
_QUICK_DECODE_SECONDS = 0.5


class Watcher(Protocol):
    """Is told what goes on.

    Attributes:
        planned: seconds that all will take, as far as is known.
    """

    planned: float

    @property
    def setup(self) -> SetupWatcher:
        """Is told what setting an engine up takes."""
        ...

    def begin(self, part: Part) -> None:
        """A part begins."""
        ...

    def poll(self) -> None:
        """Called often; may raise, KeyboardInterrupt say."""
        ...


class Bench:
    """One run; ``run`` may be broken off, and ``report`` tells what there is at any time.

    Args:
        flags: settings as on the command line; the model among them, or None.
        budget: seconds for everything.
        watcher: is told what goes on.
        quick: shorter samples.
        started: when the clock began, in ``time.monotonic``.
    """

    kind = "bench"
    # Unless another is asked for; the second is for a quick run.
    budgets = BUDGETS

    def __init__(
        self,
        flags: Mapping[str, object],
        budget: float,
        watcher: Watcher,
        *,
        quick: bool = False,
        started: float | None = None,
    ) -> None:
        self._flags = dict(flags)
        self._budget = budget
        self._quick = quick
        self._watcher = watcher
        self._start = time.monotonic() if started is None else started
        self._samples: dict[Part, list[float]] = {}
        self._remarks: list[Remark] = []
        self._guess = 0.0
        self._facts: tuple[Mapping[str, object], ...] = ({}, {}, {})

    def run(self) -> None:
        """Measures everything that fits.

        Raises:
            UsageError: a bad setting.
            ModelNotFoundError: there is no such model.
            DamagedModelError: the model cannot be used.
            MemoryLimitError: it does not fit at all.
        """
        self._watcher.planned = self._budget
        plan = make_plan(self._flags)
        with contextlib.closing(plan.model):
            self._facts = describe(plan)
            self._temperature()
            self._cold(plan)
        self._loads()
        scope = self._scope()
        loaded = self._load(scope)
        with loaded:
            self._measure(loaded, scope)
        self._temperature()

    def report(self, *, complete: bool) -> Report:
        """What was found so far."""
        model, settings, device = self._facts
        return Report(
            kind=self.kind,
            version=qwen_edge.__version__,
            created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            model=model,
            settings={**settings, "budget": self._budget, "quick": self._quick},
            device=device,
            measures=measures_of(self._samples),
            remarks=tuple(self._remarks),
            complete=complete,
        )

    def _record(self, key: str, size: int | None, value: float) -> None:
        self._samples.setdefault(Part(key, size), []).append(value)

    def _left(self) -> float:
        return self._budget - (time.monotonic() - self._start)

    def _temperature(self) -> None:
        found = battery_temperature()
        if found is not None:
            self._record("temperature", None, found)

    def _cold(self, plan: Plan) -> None:
        """Fresh processes; the first, which may find the file on the disk only, does not count."""
        part = Part("first-token-cold", None)
        self._watcher.begin(part)
        room = self._left() * _COLD_SHARE
        begun = time.monotonic()
        first = self._start_cold(plan)
        each = time.monotonic() - begun
        count = min(int(room / each) - 1, _MOST_COLD)
        counted = [first] if count < 1 else [self._start_cold(plan) for _ in range(count)]
        self._guess = counted[-1].prefill_rate
        for one in counted:
            self._record(part.key, None, one.seconds)
            if one.peak is not None:
                self._record("peak-memory", None, one.peak)

    def _start_cold(self, plan: Plan) -> ColdStart:
        try:
            return start_cold(plan.found.path, self._flags)
        finally:
            # Ctrl-C at a terminal reaches the other process, too: then that is why it failed.
            self._watcher.poll()

    def _loads(self) -> None:
        """Opening the model for use, as ``run`` does; again without the first."""
        self._watcher.begin(Part("load", None))
        for i in range(_LOADS + 1):
            start = time.monotonic()
            with LoadedModel(make_plan(self._flags), watcher=self._watcher.setup):
                seconds = time.monotonic() - start
            if i:
                self._record("load", None, seconds)
            self._watcher.poll()

    def _scope(self) -> Scope:
        plan = make_plan(self._flags)
        with contextlib.closing(plan.model):
            scope = make_scope(plan, buffer_bytes())
        self._remarks += scope.remarks
        return scope

    def _load(self, scope: Scope) -> LoadedModel:
        plan = make_plan(self._flags)
        plan = replace(plan, engine=scope.engine)
        return LoadedModel(plan, watcher=self._watcher.setup)

    def _measure(self, loaded: LoadedModel, scope: Scope) -> None:
        def poll() -> None:
            self._watcher.poll()
            loaded.chat.poll()

        options = AnswerOptions(thinking=False)
        prompt = encode_messages(loaded.chat, [Message(USER, QUESTION)], options.thinking)
        bench = EngineBench(
            loaded.engine,
            loaded.plan,
            cores=loaded.plan.profile.cores,
            buffer_bytes=scope.buffer_bytes,
            prompt=prompt,
            record=self._record,
            poll=poll,
        )
        self._watcher.begin(Part("decode", 0))
        speed = bench.first_impression(self._guess)
        seconds = max(self._left(), 0.0)
        tokens = tokens_per_turn(
            speed, seconds * (_QUICK_CHAT_SHARE if self._quick else _CHAT_SHARE)
        )
        chat = expected_seconds(speed, tokens) if tokens else 0.0
        self._rounds(bench, scope, speed, seconds - chat, chat)
        if tokens:
            self._watcher.begin(Part("turn-speed", None))
            measure_stability(loaded, tokens, self._record, poll)
        else:
            self._omitted(Part("turn-speed", None), expected_seconds(speed, 4))

    def _rounds(
        self, bench: EngineBench, scope: Scope, speed: Speed, seconds: float, reserved: float
    ) -> None:
        """Samples of all parts in turn, so that a drifting machine drifts under all of them."""
        steps = decode_steps(speed, _QUICK_DECODE_SECONDS if self._quick else _DECODE_SECONDS)
        share = bench.position_bytes / bench.weight_bytes
        costs = {
            part: cost(
                part, speed, steps, len(bench.prompt), share,
                stretches=bench.stretches, keep_cache=scope.engine.keep_cache,
            )
            for part in scope.parts
        }  # fmt: skip
        start = time.monotonic()
        repeats = plan_repeats(list(costs.values()), seconds)
        expected = sum(one * count for one, count in zip(costs.values(), repeats, strict=True))
        self._watcher.planned = self._budget - self._left() + expected + reserved
        self._sample(bench, costs, repeats, steps, reserved)
        # What the first impression made too costly may fit after all.
        ratio = (time.monotonic() - start) / expected
        rest = {part: one * ratio for part, one in costs.items() if self._count(part) < FEWEST}
        repeats = plan_repeats(list(rest.values()), self._left() - reserved, obliged=False)
        self._sample(bench, rest, repeats, steps, reserved)
        for part, one in rest.items():
            if not self._count(part):
                self._omitted(part, one)

    def _sample(
        self,
        bench: EngineBench,
        costs: Mapping[Part, float],
        repeats: Sequence[int],
        steps: int,
        reserved: float,
    ) -> None:
        """Round after round, each with one sample of every part that is not done yet."""
        expected, wanted = dict(costs), dict(zip(costs, repeats, strict=True))
        for turn in range(max(repeats, default=0)):
            for part in [part for part, count in wanted.items() if count > turn]:
                if turn and self._left() - reserved < expected[part]:
                    # Slower than the first impression: fewer repeats, but all parts.
                    continue
                self._watcher.begin(part)
                start = time.monotonic()
                try:
                    bench.sample(part, steps)
                except MemoryLimitError:
                    wanted[part] = 0
                    self._remarks.append(
                        Remark("{part} was broken off: memory ran out.", {"part": part})
                    )
                expected[part] = time.monotonic() - start

    def _count(self, part: Part) -> int:
        """Samples of a part; as many as are wanted of one that was tried in vain."""
        broken = any(remark.values.get("part") == part for remark in self._remarks)
        return FEWEST if broken else len(self._samples.get(part, ()))

    def _omitted(self, part: Part, seconds: float) -> None:
        self._remarks.append(
            Remark(
                "{part} is left out for lack of time (about {seconds:.1f} s each); --budget allows "
                "more.",
                {"part": part, "seconds": seconds},
            )
        )
