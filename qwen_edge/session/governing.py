"""Where the governor is hooked in: between tokens, and before an answer.

Most of it is imported once a model has worked for a while: short answers do without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from qwen_edge.session.reason import Reason

if TYPE_CHECKING:
    from qwen_edge.engine.interface import Engine
    from qwen_edge.engine.speculation import CallCosts
    from qwen_edge.session.answer import AnswerOptions
    from qwen_edge.session.article_fallback import ArticleFallback
    from qwen_edge.session.plan import Plan
    from qwen_edge.session.regulator import Regulator
    from qwen_edge.session.senses import Senses

# Seconds between two looks; one takes some 0.2 ms.
INTERVAL = 2.0
# Steps that are remembered for the statistics.
_MOST_STEPS = 100


class Step(NamedTuple):
    """Something that the governor did: when, in seconds since the model was loaded, and what."""

    seconds: float
    reason: Reason


class Governing:
    """Watches over a model at work, and acts.

    Args:
        plan: of the model; its settings say how.
        engine: what computes.
        costs: what is known of the duration of its calls.
        tell: is told each step.
        turns: whether the program is going to ask for more than one answer.

    Attributes:
        steps: what was done so far, the latest last.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        costs: CallCosts,
        tell: Callable[[Reason], None],
        *,
        turns: bool,
    ) -> None:
        self.steps: list[Step] = []
        self._plan = plan
        self._engine = engine
        self._costs = costs
        self._listener = tell
        self._turns = turns
        self._loaded = time.monotonic()
        self._next = 0.0
        self._senses: Senses | None = None
        self._keeper: Regulator | ArticleFallback | None = None
        if plan.settings.get("governor") == "cool" and plan.settings.get("fallback") == "off":
            self._begin()

    @property
    def seconds(self) -> float:
        """Since the model was loaded."""
        return time.monotonic() - self._loaded

    def options(self, options: AnswerOptions) -> AnswerOptions:
        """What the next answer may be; call it before each. Raises as ``poll``."""
        if self._plan.settings.get("fallback") != "off":
            self._begin()
        if self._keeper is None or self._senses is None:
            return options
        self._keeper.begin()
        self._senses.begin()
        return self._keeper.options(options)

    def poll(self) -> float:
        """Called between tokens.

        Returns:
            Seconds to wait before it is called again; 0 to go on.

        Raises:
            MemoryLimitError: the device is short of memory.
            DeviceLimitError: it is too hot, or its battery too empty.
        """
        now = time.monotonic()
        if self._senses is not None:
            self._senses.see_call()
        if now < self._next:
            return self._keeper.wait if self._keeper is not None else 0.0
        first, self._next = not self._next, now + INTERVAL
        if first:
            return 0.0
        self._begin()
        assert self._keeper is not None
        self._keeper.look()
        return self._keeper.wait

    def close(self) -> None:
        """Ends what is under way."""
        if self._senses is not None:
            self._senses.close()

    def _begin(self) -> None:
        if self._keeper is not None:
            return
        from qwen_edge.session.senses import Senses

        self._senses = Senses(self._engine, self._costs, self._plan.facts, self._plan.profile.cores)
        if self._plan.settings.get("fallback") == "article":
            from qwen_edge.session.article_fallback import ArticleFallback

            self._keeper = ArticleFallback(self._senses, self._tell)
        else:
            from qwen_edge.session.regulator import Regulator

            self._keeper = Regulator(
                self._plan, self._engine, self._senses, self._tell, turns=self._turns
            )

    def _tell(self, reason: Reason) -> None:
        self.steps.append(Step(self.seconds, reason))
        del self.steps[:-_MOST_STEPS]
        self._listener(reason)
