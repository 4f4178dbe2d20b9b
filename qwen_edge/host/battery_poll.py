"""The battery's last reading, without ever waiting for the next one."""

from __future__ import annotations

import shutil
import threading
import time
from typing import NamedTuple

from qwen_edge.host.battery import (
    COMMAND,
    Battery,
    Child,
    HelperHungError,
    ask_termux,
    power_supplies,
    read_sysfs,
)
from qwen_edge.host.place import Place
from qwen_edge.host.system import is_termux

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
        self._termux = is_termux(self._place) and shutil.which(COMMAND) is not None
        self._sysfs = bool(power_supplies(self._place))
        self._refused = self._failures = 0
        self._child = Child()
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
        self._closed = True
        self._child.end()

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
        found = None
        try:
            found = ask_termux(self._place, self._child)
        except HelperHungError:
            self._termux = False
        self._refused = 0 if found else self._refused + 1
        self._termux = self._termux and self._refused < _PATIENCE
        return found
