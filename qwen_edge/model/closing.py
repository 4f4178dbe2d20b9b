"""What is closed when its ``with`` block ends."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

_Opened = TypeVar("_Opened", bound="Closing")


class Closing:
    """A context manager that is its own value and calls ``close`` at the end."""

    def close(self) -> None:
        """Gives everything back; a second call does nothing."""
        raise NotImplementedError

    def __enter__(self: _Opened) -> _Opened:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
