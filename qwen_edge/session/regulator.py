"""Carries the governor's steps out: threads are moved, answers shortened, the next token waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from qwen_edge.engine.interface import Engine, PlaceableEngine
from qwen_edge.errors import DeviceLimitError, MemoryLimitError
from qwen_edge.session.answer import AnswerOptions
from qwen_edge.session.governor import Capacity, Governor, Readings, Steps
from qwen_edge.session.governor_rules import Cause
from qwen_edge.session.plan import Plan
from qwen_edge.session.profile import reserve_for, within
from qwen_edge.session.reason import Reason
from qwen_edge.session.senses import Senses

# Seconds of waiting at a time, so that Ctrl-C is seen at once.
_SLICE = 0.1
# No answer is made shorter than this.
_SHORTEST = 64


class Regulator:
    """The governor at work on one engine.

    Args:
        plan: how the engine was set up; its mode is the setting's.
        engine: it is placed, where it can be.
        senses: give the readings.
        tell: is told each step.
        turns: whether more answers are going to follow.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        senses: Senses,
        tell: Callable[[Reason], None],
        *,
        turns: bool,
    ) -> None:
        self._plan = plan
        self._engine = engine
        self._senses = senses
        self._tell = tell
        wishes = plan.settings.wishes()
        allowed = within(plan.profile, wishes.cpus) if wishes.cpus else plan.profile
        self._little = allowed.little
        self._governor = Governor(str(plan.settings.get("governor")), self._capacity(turns))
        self._placed: Steps | None = None
        if self._governor.steps.threads != plan.runtime.threads:
            self._place()

    @property
    def steps(self) -> Steps:
        """What holds now."""
        return self._governor.steps

    def look(self) -> None:
        """Takes readings and acts on them.

        Raises:
            MemoryLimitError: the device is short of memory.
            DeviceLimitError: it is too hot, or its battery too empty.
        """
        paused = self.steps.paused
        self.take(self._senses.read((self.steps.threads, self.steps.little)))
        if paused and not self.steps.paused:
            self._senses.begin()

    def begin(self) -> None:
        """Looks before an answer: the device may have recovered since the last one."""
        self.look()

    def take(self, readings: Readings) -> None:
        """Acts on readings; raises as ``look``."""
        told = self._governor.observe(readings)
        self._place()
        for reason in told:
            self._tell(reason)
        if self.steps.stop is not None:
            sentence, hint, values = self._governor.stop_error()
            kind = MemoryLimitError if self.steps.stop is Cause.MEMORY else DeviceLimitError
            raise kind(sentence, hint, **values)

    @property
    def wait(self) -> float:
        """Seconds before the next token may be computed, if this is asked again after them."""
        return _SLICE if self.steps.paused else 0.0

    def options(self, options: AnswerOptions) -> AnswerOptions:
        """What the next answer may be."""
        share = self.steps.answers
        shorter = max(min(_SHORTEST, options.max_tokens), int(options.max_tokens * share))
        return options if share == 1 else replace(options, max_tokens=shorter)

    def _capacity(self, turns: bool) -> Capacity:
        plan, profile = self._plan, self._plan.profile
        return Capacity(
            threads=plan.runtime.threads,
            most_threads=max(plan.runtime.threads, plan.runtime.prefill_threads),
            little=len(self._little),
            placeable=isinstance(self._engine, PlaceableEngine),
            turns=turns,
            phone=profile.android or plan.settings.get("governor") == "cool",
            reserve=min(plan.runtime.reserve, reserve_for(profile)),
            mapped=plan.facts.mapped_bytes,
            budget=plan.budget,
        )

    def _place(self) -> None:
        steps, engine = self.steps, self._engine
        now = steps._replace(answers=1.0, paused=False, stop=None)
        if now == self._placed or not isinstance(engine, PlaceableEngine):
            return
        runtime = self._plan.runtime
        if steps.little:
            engine.place(steps.threads, steps.threads, self._little, self._little)
        elif steps.threads < runtime.threads:
            # What is read counts for less than what it heats.
            share = steps.threads / runtime.threads
            fewer = max(1, int(runtime.prefill_threads * share))
            engine.place(steps.threads, fewer, runtime.cpus, runtime.prefill_cpus)
        elif self._placed is not None:
            engine.place(
                runtime.threads, runtime.prefill_threads, runtime.cpus, runtime.prefill_cpus
            )
        self._placed = now
