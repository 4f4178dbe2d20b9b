"""What must still be done when a signal ends the process; only SIGKILL leaves no time for it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# SIGHUP comes when the terminal is closed.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_last_words: list[Callable[[], None]] = []


@contextlib.contextmanager
def also_when_killed(last: Callable[[], None]) -> Iterator[None]:
    """Calls ``last`` if SIGTERM or SIGHUP ends the process meanwhile; it dies of the signal still.

    The signal is seen when a call into the native library is over, as Ctrl-C is. One that is
    ignored (``nohup``) or has a handler stays so, and in a thread other than the main one nothing
    is changed.
    """
    taken = []
    _last_words.append(last)
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
        _last_words.remove(last)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for last in reversed(_last_words):
        with contextlib.suppress(Exception):
            last()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
