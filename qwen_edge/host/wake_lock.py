"""The wake lock: a phone whose screen is off goes to sleep, with or without work to do.

Termux has one lock, whoever takes it: taking it twice is taking it once, one release frees it, and
nobody can ask who holds it. So each process that needs it leaves a marker, a file that it keeps
locked; the last one to go releases it. The system unlocks the files of a process that is killed, so
that the next start finds a marker that nobody keeps and releases what was left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qwen_edge.host.paths import wake_lock_folder
from qwen_edge.host.place import Place
from qwen_edge.host.system import is_termux

if TYPE_CHECKING:
    import subprocess

TAKE, RELEASE = "termux-wake-lock", "termux-wake-unlock"
_SUFFIX = ".pid"
_MUTEX = "mutex"
# Seconds to wait for another process that is at it: longer than its command may take, and what a
# user at the end of the program may be kept waiting for.
_LONG, _SHORT = 8.0, 1.0
_GRACE = 2.0


class State(NamedTuple):
    """Processes that hold the lock, by number, and how many were killed while they held it."""

    holders: tuple[int, ...]
    left_behind: int


def wake_lock_state(folder: Path | None = None) -> State:
    """Who holds the lock, as far as this program is concerned."""
    living, dead = _markers(folder or wake_lock_folder())
    return State(tuple(int(path.stem) for path in living if path.stem.isdecimal()), len(dead))


def release_left_behind(folder: Path | None = None) -> None:
    """Releases, without waiting, a lock of a process that was killed, unless another one holds it.

    Where nothing was left behind, this reads one folder.
    """
    folder = folder or wake_lock_folder()
    dead: list[Path] = []
    with contextlib.suppress(OSError):
        if any(name.endswith(_SUFFIX) for name in os.listdir(folder)) and is_termux(Place()):
            dead = _markers(folder)[1]
    if not dead:
        return
    with contextlib.suppress(OSError), _mutex(folder, 0) as held:
        if held is None:
            return
        living, dead = _markers(folder)
        if dead and not living:
            _start_release(held)
        for path in dead:
            path.unlink(missing_ok=True)


class WakeLock:
    """One process's part in the lock.

    Args:
        folder: where the markers are.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or wake_lock_folder()
        self._path = self._folder / f"{os.getpid()}{_SUFFIX}"
        self._marker = -1
        self._taking: subprocess.Popen[bytes] | None = None
        self._over = False
        self._guard = threading.RLock()

    def take(self) -> bool:
        """Takes the lock and waits until that is done.

        Returns:
            Whether it was taken; where it was not, trying again is of no use.
        """
        from qwen_edge.host.android import DETACHED_LIMIT, finish, start_detached

        with self._guard:
            if self._over:
                return False
            try:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                with _mutex(self._folder, _LONG, lambda: self._over) as held:
                    self._mark()
                    taking = self._taking = start_detached(
                        TAKE, keep=[] if held is None else [held]
                    )
            except OSError:
                taking = None
            if taking is None:
                self._unmark()
                return False
        taken = finish(taking, DETACHED_LIMIT + _GRACE)
        self._taking = None
        return taken

    def release(self, *, last: bool = False) -> None:
        """Releases the lock unless another process holds it; does nothing where it was not taken.

        Args:
            last: whether the program is about to end: then the releasing is not waited for, and
                the lock cannot be taken again.
        """
        # Before the guard: whoever has it may be waiting for another process.
        self._over = self._over or last
        with self._guard:
            if self._marker < 0:
                return
            from qwen_edge.host.android import (
                DETACHED_LIMIT,
                end_group,
                ends_itself,
                finish,
            )

            taking = self._taking
            if taking is not None and taking.poll() is None:
                end_group(taking)
            releasing = None
            with contextlib.suppress(OSError), _mutex(self._folder, _SHORT) as held:
                living, dead = _markers(self._folder, self._path)
                if not living:
                    releasing = _start_release(held)
                # Only now: whoever is killed before has left a marker.
                for path in dead:
                    path.unlink(missing_ok=True)
                self._unmark()
            if self._marker >= 0:
                os.close(self._marker)
                self._marker = -1
        if releasing is not None and not (last and ends_itself()):
            finish(releasing, DETACHED_LIMIT + _GRACE)

    def _mark(self) -> None:
        if self._marker < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._marker = os.open(self._path, flags, 0o600)
            fcntl.flock(self._marker, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unmark(self) -> None:
        if self._marker >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._marker)
            self._marker = -1


def _start_release(held: int | None) -> subprocess.Popen[bytes] | None:
    from qwen_edge.host.android import start_detached

    return start_detached(RELEASE, keep=[] if held is None else [held])


def _markers(folder: Path, own: Path | None = None) -> tuple[list[Path], list[Path]]:
    """The markers of living processes other than this one, and those that nobody keeps."""
    living: list[Path] = []
    dead: list[Path] = []
    try:
        paths = [folder / name for name in sorted(os.listdir(folder)) if name.endswith(_SUFFIX)]
    except OSError:
        return living, dead
    for path in paths:
        if path == own:
            continue
        try:
            marker = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            dead.append(path)
        except OSError:
            living.append(path)
        finally:
            os.close(marker)
    return living, dead


@contextlib.contextmanager
def _mutex(
    folder: Path, seconds: float, given_up: Callable[[], bool] = lambda: False
) -> Iterator[int | None]:
    """Lets one process at a time look at the markers and start a command.

    A command that inherits the descriptor keeps the others waiting until it is done: or one's
    release could overtake another's taking.

    Yields:
        The descriptor; None where it was not to be had in time, and nobody can wait any longer.
    """
    descriptor = os.open(folder / _MUTEX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + seconds
    held = False
    try:
        while not held:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except OSError:
                if time.monotonic() >= end or given_up():
                    break
                time.sleep(0.02)
        yield descriptor if held else None
    finally:
        os.close(descriptor)
