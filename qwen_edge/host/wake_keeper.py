"""When the wake lock is held: from some seconds of work on, and until it has been quiet a while."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from qwen_edge.host.wake_lock import WakeLock

# Seconds of work after which the lock is taken: taking it starts a program of Android that keeps a
# cheap phone's core busy for a second, and no screen goes dark that soon.
PATIENCE = 5.0
# Seconds without work after which it is released: the turns of a chat follow one another faster.
IDLE = 60.0


class WakeKeeper:
    """Takes and releases the wake lock in a thread of its own; nothing ever waits for it.

    Args:
        lock: the lock.
        patience: seconds of work after which it is taken.
        idle: seconds without work after which it is released.
    """

    def __init__(self, lock: WakeLock, patience: float = PATIENCE, idle: float = IDLE) -> None:
        self._lock = lock
        self._patience, self._idle = patience, idle
        self._changed = threading.Condition()
        self._works = 0
        self._since = time.monotonic()
        self._held = self._closed = False
        thread = threading.Thread(target=self._keep, name="wake-lock", daemon=True)
        # Without a thread, as where memory is short, it goes without the lock.
        with contextlib.suppress(RuntimeError):
            thread.start()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Within, the phone is to stay awake."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def close(self) -> None:
        """Releases the lock if it is held; a second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._lock.release(last=True)

    def _count(self, change: int) -> None:
        with self._changed:
            before, self._works = self._works, self._works + change
            if not before or not self._works:
                self._since = time.monotonic()
                self._changed.notify_all()

    def _keep(self) -> None:
        # Should the lock have been taken after all, it is released in the end.
        with contextlib.suppress(MemoryError):
            while (wanted := self._next()) is not None:
                if not wanted:
                    self._lock.release()
                elif not self._lock.take():
                    return
                self._held = wanted

    def _next(self) -> bool | None:
        """Waits for the time to take (True) or to release (False); None at the end."""
        with self._changed:
            while not self._closed:
                wanted = self._works > 0
                left = None
                if wanted != self._held:
                    delay = self._patience if wanted else self._idle
                    left = self._since + delay - time.monotonic()
                    if left <= 0:
                        return wanted
                self._changed.wait(left)
            return None
