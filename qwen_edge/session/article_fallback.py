"""The rule of the articles on Qwen3 on phones: short greedy answers on a loaded device.

Above 85 % of the processor or 80 % of the memory they answer with at most 128 new tokens,
``temperature=0.4, do_sample=False``. In transformers the latter wins: without sampling there is no
temperature, so the answers are greedy here.

The processor's load is this process's processor time over the time that all allowed cores had,
during the last answer, since Android hides the load of the whole device. The memory's is
(MemTotal - MemAvailable) / MemTotal at the moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from qwen_edge.session.answer import AnswerOptions
from qwen_edge.session.governor import Readings
from qwen_edge.session.reason import Reason
from qwen_edge.session.senses import Senses

MOST_PROCESSOR, MOST_MEMORY = 0.85, 0.80
MOST_TOKENS = 128


def strained(readings: Readings) -> Reason | None:
    """Says why the rule applies; None where it does not."""
    if readings.cpu is not None and readings.cpu > MOST_PROCESSOR:
        return Reason(
            "The processor is at {share:.0%}: greedy answers of at most {tokens} tokens.",
            {"share": readings.cpu, "tokens": MOST_TOKENS},
        )
    if readings.total and readings.available is not None:
        share = 1 - readings.available / readings.total
        if share > MOST_MEMORY:
            return Reason(
                "The memory is at {share:.0%}: greedy answers of at most {tokens} tokens.",
                {"share": share, "tokens": MOST_TOKENS},
            )
    return None


def shortened(options: AnswerOptions) -> AnswerOptions:
    """The answers of the rule."""
    return replace(
        options,
        max_tokens=min(options.max_tokens, MOST_TOKENS),
        sampling=replace(options.sampling, temperature=0.0),
    )


class ArticleFallback:
    """The rule at work, in place of the governor's steps.

    Args:
        senses: give the readings.
        tell: is told when it begins to apply, and when it ends.
    """

    wait = 0.0

    def __init__(self, senses: Senses, tell: Callable[[Reason], None]) -> None:
        self._senses = senses
        self._tell = tell
        self._processor: float | None = None
        self._applies = False

    def look(self) -> None:
        """Takes the processor's load during an answer."""
        self._processor = self._senses.read().cpu

    def begin(self) -> None:
        """Decides on the next answer, by the load of the last one."""
        reason = strained(self._senses.read()._replace(cpu=self._processor))
        if reason is not None and not self._applies:
            self._tell(reason)
        elif reason is None and self._applies:
            self._tell(Reason("Processor and memory have room again: answers as before.", {}))
        self._applies = reason is not None

    def options(self, options: AnswerOptions) -> AnswerOptions:
        """What the next answer may be."""
        return shortened(options) if self._applies else options
