"""Signals: Ctrl-C stops an answer, a closed terminal or a request to end stops the program.

The first Ctrl-C stops in an orderly way, the second at once. SIGHUP (the terminal was closed, by
swiping Termux away say) and SIGTERM become an exception, so that whatever is open is closed, saved
or removed on the way out, and nothing is said. Where nobody reads what is written, a paused pager
say, that way out would be barred: from then on a write that does not end is broken off.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType

_ENDING = (signal.SIGHUP, signal.SIGTERM)
# Seconds between two looks whether a write goes on; the second that finds the same one ends it.
_PATIENCE = 0.5


class Writing:
    """What signals know of the program's writing to its terminal or pipe.

    Attributes:
        count: of the writes begun so far.
        under_way: whether the last one goes on.
        over: whether nothing is written any more, because a write was broken off.
    """

    count = 0
    under_way = False
    over = False


class Terminated(SystemExit):
    """The program is to end, with the exit code that a shell gives a program killed likewise.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def closed_terminal() -> Terminated:
    """The exception for a terminal that can be written to no more; its signal may follow."""
    _heed_no_more()
    return Terminated(signal.SIGHUP)


@contextlib.contextmanager
def ending_tidily() -> Iterator[None]:
    """Turns SIGHUP and SIGTERM into ``Terminated`` inside; what was ignored (nohup) stays so.

    Does nothing outside the main thread, where signals cannot be had.
    """
    try:
        before = _handle(_end)
    except ValueError:
        yield
        return
    try:
        yield
    except Terminated:
        # A second signal must not turn the end into another one.
        raise
    except BaseException:
        _restore(before)
        raise
    else:
        _restore(before)


class StopRequest:
    """Notes signals while it is entered, for the code inside to look at between tokens.

    An exception out of the blue could strike between a computation and its bookkeeping; a noted
    request never does. Only a second Ctrl-C raises KeyboardInterrupt wherever the program is.
    """

    def __init__(self) -> None:
        self.requested = False
        self._ending = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        self.requested = False
        self._before = _handle(self._note, (signal.SIGINT, *_ENDING))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _restore(self._before)
        if self._ending:
            _heed_no_more()
            if not isinstance(error, Terminated):
                raise Terminated(self._ending)

    def check(self) -> None:
        """Raises what the signal calls for: KeyboardInterrupt for Ctrl-C, or ``Terminated``."""
        if self._ending:
            raise Terminated(self._ending)
        if self.requested:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            self._ending = number
            _limit_writing(number)
        elif self.requested:
            raise KeyboardInterrupt
        else:
            self.requested = True


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets a short piece of work, saving say, finish whatever is pressed meanwhile.

    A signal that ends the program does so afterwards.
    """
    ending: list[int] = []
    pressed = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def note(number: int, frame: FrameType | None) -> None:
        ending.append(number)
        _limit_writing(number)

    before = _handle(note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, pressed)
        _restore(before)
        if ending:
            signal.raise_signal(ending[0])


def _handle(handler: object, numbers: tuple[int, ...] = _ENDING) -> dict[int, object]:
    """Handles signals, those that are ignored left out; returns how they were handled before.

    Ignored from the start means started in the background, where Ctrl-C is meant for others, or
    with nohup.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    heard = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in heard:
        signal.signal(number, handler)  # type: ignore[arg-type]
    return heard  # type: ignore[return-value]


def _restore(before: dict[int, object]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]


def _limit_writing(number: int) -> None:
    """Breaks off, with the end that a signal calls for, whatever write does not end from now on."""
    seen = 0

    def look(alarm: int, frame: FrameType | None) -> None:
        nonlocal seen
        if not Writing.under_way:
            return
        if Writing.count == seen:
            Writing.over = True
            raise Terminated(number)
        seen = Writing.count

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE, _PATIENCE)


def _end(number: int, frame: FrameType | None) -> None:
    _heed_no_more()
    _limit_writing(number)
    raise Terminated(number)


def _heed_no_more() -> None:
    """A terminal that closes signals twice, once from the shell and once from the system."""
    # Not SIG_IGN, which the programs started on the way out would inherit.
    with contextlib.suppress(ValueError):
        _handle(lambda number, frame: None)
