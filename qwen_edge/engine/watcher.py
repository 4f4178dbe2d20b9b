"""Who is told what setting an engine up takes: a compiler may run for a minute on a phone."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Is told what setting an engine up takes."""

    def begin(self, what: str) -> None:
        """Something that may take a while begins; ``what`` may have a translation."""
        ...

    def end(self) -> None:
        """Nothing of that goes on any longer; said once or more, whatever came of it."""
        ...

    def warn(self, message: str, **values: object) -> None:
        """Something does not work and is done another way."""
        ...


class Unwatched:
    """A ``Watcher`` that lets everything pass."""

    def begin(self, what: str) -> None:
        """See ``Watcher``."""

    def end(self) -> None:
        """See ``Watcher``."""

    def warn(self, message: str, **values: object) -> None:
        """See ``Watcher``."""
