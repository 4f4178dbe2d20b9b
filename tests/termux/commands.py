"""The commands of Termux and Termux:API as stubs on the PATH of the real program."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_STUB = Path(__file__).with_name("command_stub.sh")
# By this variable in their environment all processes are found that a stub or the program began.
_MARK = "MAKE_BELIEVE_PHONE"
WAKE_LOCK = ("termux-wake-lock", "termux-wake-unlock")


class Call(NamedTuple):
    """One call of a stub: its words, and what came through standard input."""

    words: tuple[str, ...]
    text: str


class Commands:
    """Stubs in a folder.

    Args:
        folder: for them and what they write.
        names: the commands that are installed.
        search: the rest of the PATH.
    """

    def __init__(
        self, folder: Path, names: Sequence[str] = WAKE_LOCK, search: str | None = None
    ) -> None:
        self._folder = folder
        for part in ("bin", "modes", "given", "answers"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(_STUB, folder / "stub")
        (folder / "stub").chmod(0o755)
        for name in names:
            (folder / "bin" / name).symlink_to(folder / "stub")
        path = os.environ["PATH"] if search is None else search
        self.environment = {
            "TERMUX_VERSION": "0.118.3",
            "PREFIX": "/data/data/com.termux/files/usr",
            "PATH": f"{folder / 'bin'}{os.pathsep}{path}",
            _MARK: str(folder),
        }

    def behave(self, name: str, mode: str) -> None:
        """``works``, ``fails``, ``hangs``, ``waits`` (until ``go``) or ``babbles``, endlessly."""
        (self._folder / "modes" / name).write_text(mode + "\n")

    def answer(self, name: str, text: str) -> None:
        """What a command prints."""
        (self._folder / "answers" / name).write_text(text)

    def go(self) -> None:
        """Lets the waiting ones work."""
        (self._folder / "go").touch()

    @property
    def awake(self) -> bool:
        """Whether the wake lock is held."""
        return (self._folder / "awake").exists()

    def events(self, *names: str) -> list[str]:
        """``begin NAME`` and ``end NAME`` in their order, of some commands or of all."""
        return [f"{what} {name}" for what, name, _ in self._events() if not names or name in names]

    def calls(self, name: str) -> list[Call]:
        """The calls of a command that are over."""
        found = []
        for what, called, number in self._events():
            if what == "end" and called == name:
                words = (self._folder / "given" / f"{number}.arguments").read_text().splitlines()
                text = self._folder / "given" / f"{number}.text"
                found.append(Call(tuple(words), text.read_text() if text.exists() else ""))
        return found

    def wait_for(self, event: str, times: int = 1) -> None:
        """Waits until something has happened that often."""
        self.wait_until(lambda: self.events().count(event) >= times)

    def wait_until(self, holds: Callable[[], bool], seconds: float = 30) -> None:
        """Waits for something that has to come; the time is only the end of a test's patience."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.events()
            time.sleep(0.02)

    def left(self) -> list[str]:
        """Command lines of the processes that are still there, the program's included."""
        mark = f"{_MARK}={self._folder}".encode()
        found = []
        for process in Path("/proc").iterdir():
            if not process.name.isdecimal() or int(process.name) == os.getpid():
                continue
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    found.append(b" ".join(words).decode("utf-8", "replace"))
            except OSError:
                continue
        return found

    def wait_for_silence(self) -> None:
        """Waits until nothing runs any more."""
        self.wait_until(lambda: not self.left())

    def _events(self) -> list[tuple[str, str, str]]:
        path = self._folder / "events"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(what, name, number) for what, name, number in map(str.split, lines)]
