"""Ctrl-C: the first stops the answer in an orderly way, the second at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType


class StopRequest:
    """Notes Ctrl-C while it is entered, for the code inside to look at between tokens.

    An exception out of the blue could strike between a computation and its bookkeeping; a noted
    request never does. Only a second Ctrl-C raises KeyboardInterrupt wherever the program is.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: object = None

    def __enter__(self) -> StopRequest:
        self.requested = False
        self._before = signal.getsignal(signal.SIGINT)
        # Ignored from the start means started in the background: Ctrl-C is meant for others.
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed."""
        if self.requested:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets a short piece of work, saving say, finish whatever is pressed meanwhile."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
