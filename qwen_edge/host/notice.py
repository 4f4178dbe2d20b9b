"""A notification of Android for work that takes long, through Termux:API; without it nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwen_edge.host.android import Command

# Seconds before the first, since nobody looks away that soon; and between two, since each starts a
# program of Android.
PATIENCE, INTERVAL = 30.0, 10.0
_SHOW, _REMOVE = "termux-notification", "termux-notification-remove"


class Notice:
    """One notification that changes; showing it never waits, and that it cannot be is not told.

    Args:
        title: its first line.
        patience: seconds before it appears at all.
        interval: seconds between two changes, at least.
    """

    def __init__(self, title: str, patience: float = PATIENCE, interval: float = INTERVAL) -> None:
        self._title = title
        self._interval = interval
        self._first = self._due = time.monotonic() + patience
        # Whoever does the same again takes over what a killed process left pinned.
        self._id = title.replace(" ", "-")
        self._changed = threading.Condition()
        self._text = ""
        self._command: Command | None = None
        self._over = self._fails = False
        self._thread = threading.Thread(target=self._work, name="notice", daemon=True)
        with contextlib.suppress(RuntimeError):
            self._thread.start()

    def update(self, text: str) -> None:
        """What goes on now."""
        with self._changed:
            fresh, self._text = not self._text, text
            if fresh:
                self._changed.notify_all()

    def end(self, text: str) -> None:
        """What came of it; shown where it took long. An empty text takes the notification away.

        So does the end of short work: it may have been left by a process that was killed.
        """
        with self._changed:
            if self._over:
                return
            self._over = True
            self._changed.notify_all()
            command = self._command
        if command is not None:
            # It must not come after the last one.
            command.stop()
        if self._thread.is_alive():
            self._thread.join(INTERVAL)
        if self._fails:
            return
        late = time.monotonic() >= self._first
        from qwen_edge.host.android import start_detached

        with contextlib.suppress(OSError, MemoryError):
            start_detached(*(self._words(text) if text and late else (_REMOVE, self._id)))

    def _words(self, text: str, *more: str) -> tuple[str, ...]:
        return (_SHOW, "--id", self._id, "--title", self._title, "--content", text, *more)

    def _work(self) -> None:
        with contextlib.suppress(MemoryError):
            self._show_all()

    def _show_all(self) -> None:
        while (text := self._next()) is not None:
            from qwen_edge.host.android import DONE, STOPPED, Command

            command = Command(*self._words(text, "--ongoing", "--alert-once"))
            with self._changed:
                self._command = command
                if self._over:
                    command.stop()
            state = command.outcome().state
            with self._changed:
                self._command = None
                self._fails = state not in (DONE, STOPPED)
                if self._fails:
                    return

    def _next(self) -> str | None:
        """Waits for the time of the next change; None at the end."""
        with self._changed:
            while not self._over:
                left = self._due - time.monotonic()
                if left <= 0 and self._text:
                    self._due = time.monotonic() + self._interval
                    text, self._text = self._text, ""
                    return text
                self._changed.wait(left if left > 0 else None)
            return None
