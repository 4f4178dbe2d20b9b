"""What setting an engine up takes, at the terminal: a line with the time passed, and what fails."""

from __future__ import annotations

import sys
import threading
import time

from qwen_edge.cli.terminal import Progress, clock, is_terminal, warn

# Seconds before the line appears, and from one to the next.
_PATIENCE, _INTERVAL = 0.5, 0.25


class SetupView:
    """A ``Watcher`` of engines: shows what goes on, and tells once of what does not work."""

    def __init__(self) -> None:
        self._line: _TickingLine | None = None
        self._told: set[str] = set()

    def begin(self, what: str) -> None:
        """See ``engine.watcher.Watcher``."""
        self.end()
        if is_terminal(sys.stderr):
            self._line = _TickingLine(what)

    def end(self) -> None:
        """See ``engine.watcher.Watcher``."""
        line, self._line = self._line, None
        if line is not None:
            line.clear()

    def warn(self, message: str, **values: object) -> None:
        """See ``engine.watcher.Watcher``."""
        self.end()
        if message not in self._told:
            self._told.add(message)
            warn(message, **values)


class _TickingLine:
    """A line with the time passed, kept up from a thread: the compiler tells nothing meanwhile."""

    def __init__(self, label: str) -> None:
        self._bar = Progress(label, None, clock, _PATIENCE, style="dim")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._thread.start()

    def clear(self) -> None:
        """Takes the line off the screen for good."""
        self._done.set()
        self._thread.join()
        self._bar.clear()

    def _tick(self) -> None:
        start = time.monotonic()
        while not self._done.wait(_INTERVAL):
            self._bar.update(int(time.monotonic() - start))
