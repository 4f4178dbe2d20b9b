"""Keeps the process within its memory budget while it runs.

Two guards: a soft limit on address space, which makes allocations fail cleanly, and a watch on the
resident anonymous memory, which catches what the first cannot see (pages reserved before the limit
was set and touched after it).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from qwen_edge.errors import MemoryLimitError
from qwen_edge.host.limits import address_space_cap, uncapped_children
from qwen_edge.host.memory_facts import own_memory
from qwen_edge.host.sizes import format_size, parse_size

__all__ = ["MemoryCap", "MemoryWatch", "parse_cap", "uncapped_children"]

# Seconds between two looks at /proc/self/status; one look takes some 30 microseconds.
WATCH_INTERVAL = 0.5


def parse_cap(text: str) -> int | str | None:
    """Reads a memory cap.

    Returns:
        Bytes, ``"auto"`` (available memory less the reserve) or None for ``off``.

    Raises:
        ValueError: it is none of these, or not more than zero.
    """
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word in ("off", "none", "unlimited"):
        return None
    size = parse_size(word)
    if size <= 0:
        raise ValueError("a memory cap must be more than zero")
    return size


class MemoryWatch:
    """Looks now and then whether the process outgrew its budget.

    Args:
        budget: bytes the process may have resident, mapped weights included; None watches nothing.
        mapped: bytes of mapped files counted against the budget in full, since all of them are read
            for each token, whether or not they are resident at the moment.
        proc: the proc file system.
        interval: seconds between two looks.
    """

    def __init__(
        self,
        budget: int | None,
        mapped: int = 0,
        proc: Path = Path("/proc"),
        interval: float = WATCH_INTERVAL,
    ) -> None:
        self.budget = budget
        self._mapped = mapped
        self._proc = proc
        self._interval = interval
        self._next = 0.0

    def poll(self) -> None:
        """Called between tokens; looks at most once an interval.

        Raises:
            MemoryLimitError: more is in use than the budget allows.
        """
        if self.budget is None:
            return
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._interval
        anonymous = own_memory(self._proc).anonymous
        if anonymous is not None and anonymous + self._mapped > self.budget:
            raise MemoryLimitError(
                "Memory use reached {used}, and the cap is {cap}.",
                "Raise --memory-cap, or use a smaller --context.",
                used=format_size(anonymous + self._mapped),
                cap=format_size(self.budget),
            )


class MemoryCap:
    """The budget of a run: a soft limit on address space and a watch.

    Use as a context manager around loading the model and generating; the limit is as before
    afterwards. Start children within ``uncapped_children()``: a program that is exec'd under the
    limit may abort at once.

    Args:
        budget: bytes, or None for no cap at all.
        mapped: bytes of the model file that will be mapped under the cap.
        address_only: bytes of address space on top, for what is reserved and mostly not touched
            (the stacks of threads started under the cap).
        proc: the proc file system.

    Attributes:
        limit: the soft limit in force, or None.
        watch: poll it between tokens.
    """

    def __init__(
        self,
        budget: int | None,
        mapped: int = 0,
        address_only: int = 0,
        proc: Path = Path("/proc"),
    ) -> None:
        self.budget = budget
        self.limit: int | None = None
        self.watch = MemoryWatch(budget, mapped, proc)
        self._address_only = address_only
        self._proc = proc
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> MemoryCap:
        if self.budget is not None:
            growth = self.budget + self._address_only
            self.limit = self._stack.enter_context(address_space_cap(growth, self._proc))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        self.limit = None


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turns Python's own MemoryError, which the limit provokes, into the error a user is told.

    Raises:
        MemoryLimitError: an allocation failed.
    """
    try:
        yield
    except MemoryError:
        raise MemoryLimitError(
            "An allocation failed under the memory cap.",
            "Raise --memory-cap, or use a smaller --context.",
        ) from None
