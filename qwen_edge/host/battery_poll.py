"""The battery's last reading, without ever waiting for the next one."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from qwen_edge.host.battery import COMMAND, Battery, answered, ask, power_supplies, read_sysfs
from qwen_edge.host.place import Place
from qwen_edge.host.system import is_termux

if TYPE_CHECKING:
    from qwen_edge.host.android import Command

# Seconds from one question to the next.
INTERVAL = 30.0
# Seconds for which a reading counts.
STALE = 4 * INTERVAL
# Answers of no use before a source is given up.
_PATIENCE = 3
_STACK = 1 << 19


class Dated(NamedTuple):
    """A reading, and when it was taken on the monotonic clock."""

    battery: Battery
    taken: float


class BatteryPoller:
    """Asks for the battery in a thread of its own, only when somebody wants to know.

    A source that hangs is not asked again, nor one that has nothing to tell; where none is left,
    or there is no battery, all this costs nothing more.

    Args:
        place: the device.
    """

    def __init__(self, place: Place | None = None) -> None:
        self._place = place or Place()
        self._termux = is_termux(self._place)
        self._sysfs = bool(power_supplies(self._place))
        self._refused = self._failures = 0
        # Between the thread that asks and the one that closes.
        self._lock = threading.Lock()
        self._command: Command | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self._next = 0.0
        self._last: Dated | None = None

    @property
    def absent(self) -> bool:
        """Whether nothing is going to be known any more."""
        return self._closed or not (self._termux or self._sysfs)

    def latest(self) -> Dated | None:
        """The last reading, if it is not too old; begins to ask anew where that is due."""
        now = time.monotonic()
        idle = self._thread is None or not self._thread.is_alive()
        if not self.absent and idle and now >= self._next:
            self._next = now + INTERVAL
            self._begin()
        last = self._last
        return last if last is not None and now - last.taken <= STALE else None

    def close(self) -> None:
        """Ends a question under way, with all processes of it; no other one is asked."""
        with self._lock:
            self._closed = True
            if self._command is not None:
                self._command.stop()

    def _begin(self) -> None:
        # A stack of the usual size would take 8 MiB of the address space under a memory cap.
        before = threading.stack_size(_STACK)
        try:
            self._thread = threading.Thread(target=self._ask, name=COMMAND, daemon=True)
            self._thread.start()
        except (RuntimeError, MemoryError):
            self._closed = True
        finally:
            threading.stack_size(before)

    def _ask(self) -> None:
        try:
            found = self._ask_termux() if self._termux else None
            if found is None and self._sysfs:
                found = read_sysfs(self._place)
        except MemoryError:
            found = None
        if found is not None:
            self._failures = 0
            self._last = Dated(found, time.monotonic())
            return
        self._failures += 1
        if self._failures >= _PATIENCE:
            self._sysfs = False

    def _ask_termux(self) -> Battery | None:
        # Only now, and in this thread: it takes 15 ms, which a phone that has none can do without.
        from qwen_edge.host.android import ABSENT, HANGS

        with self._lock:
            if self._closed:
                return None
            self._command = ask()
        outcome = self._command.outcome()
        found = answered(outcome)
        self._refused = 0 if found else self._refused + 1
        self._termux = outcome.state not in (ABSENT, HANGS) and self._refused < _PATIENCE
        return found
