"""Speaking through Termux:API, sentence by sentence, in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque

from qwen_edge.host.android import ABSENT, DONE, FAILED, HANGS, LIMIT, STOPPED, Command

_SPEAK = "termux-tts-speak"
# It answers at once where speaking works at all.
_PROBE = "termux-tts-engines"
_TRIES = 2
# Seconds that a sentence may take, and for each of its characters: slow speech in Chinese.
_LIMIT, _PER_CHARACTER = 10.0, 0.5


class Speaker:
    """Speaks what it is told in turn; saying something never waits.

    A sentence goes to Android as a whole: what is being said when it is hushed may still be heard
    to its end.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._command: Command | None = None
        self._busy = self._closed = False
        self._hushed = 0
        self._problem = ""
        self._thread = threading.Thread(target=self._work, name="speaker", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._problem = FAILED

    @property
    def problem(self) -> str:
        """Why nothing is spoken: ``absent``, ``hangs`` or ``failed``; empty where all is well."""
        return self._problem

    def say(self, sentence: str) -> None:
        """Speaks a sentence when those before it are spoken."""
        with self._changed:
            if not self._problem and not self._closed:
                self._waiting.append(sentence)
                self._changed.notify_all()

    def wait(self) -> None:
        """Waits until all is spoken."""
        with self._changed:
            while (self._waiting or self._busy) and not self._problem:
                self._changed.wait()

    def hush(self) -> bool:
        """Stops speaking at once; whether there was something to stop."""
        with self._changed:
            spoke = bool(self._waiting or self._busy)
            self._waiting.clear()
            self._hushed += 1
            command = self._command
        if command is not None:
            command.stop()
        return spoke

    def close(self) -> None:
        """Stops speaking for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.hush()
        if self._thread.is_alive():
            # It may be about to start a command.
            self._thread.join(LIMIT)

    def _work(self) -> None:
        state = DONE
        for _ in range(_TRIES):
            state = self._run(_PROBE, "", LIMIT, self._hushed)
            if state != HANGS:
                break
        # An older Termux:API may lack it.
        self._judge(DONE if state == ABSENT else state)
        while (task := self._next()) is not None:
            sentence, hushed = task
            limit = _LIMIT + _PER_CHARACTER * len(sentence)
            self._judge(self._run(_SPEAK, sentence + "\n", limit, hushed))

    def _next(self) -> tuple[str, int] | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            while not self._waiting:
                if self._closed or self._problem:
                    return None
                self._changed.wait()
            self._busy = True
            return self._waiting.popleft(), self._hushed

    def _run(self, name: str, text: str, limit: float, hushed: int) -> str:
        """Runs a command to its end, unless there was a hush since it was decided on."""
        try:
            command = Command(name, text=text, seconds=limit)
            with self._changed:
                self._command = command
                late = self._hushed != hushed or self._closed
            if late:
                command.stop()
            return command.outcome().state
        except (OSError, MemoryError):
            return FAILED
        finally:
            with self._changed:
                self._command = None

    def _judge(self, state: str) -> None:
        if state in (DONE, STOPPED):
            return
        with self._changed:
            self._problem = state
            self._waiting.clear()
            self._changed.notify_all()
