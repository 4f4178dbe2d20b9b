"""Keeping a phone awake while a command works; elsewhere nothing, and nothing is imported."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from qwen_edge.errors import QwenEdgeError

Working = Callable[[], AbstractContextManager[None]]


def maybe_termux() -> bool:
    """Whether it is worth asking if this is Termux."""
    return "TERMUX_VERSION" in os.environ or "PREFIX" in os.environ


@contextlib.contextmanager
def awake(setting: object = None) -> Iterator[Working]:
    """Keeps the phone awake within, while there is work; lets it sleep again whatever happens.

    Args:
        setting: ``auto`` or ``off``; None looks into the environment and the configuration file.

    Yields:
        A function that makes a context manager for work.
    """
    if not maybe_termux() or setting == "off" or not _wanted(setting):
        yield contextlib.nullcontext
        return
    from qwen_edge.cli.interrupts import uninterrupted
    from qwen_edge.host.wake_keeper import WakeKeeper
    from qwen_edge.host.wake_lock import WakeLock

    keeper = WakeKeeper(WakeLock())
    try:
        yield keeper.working
    finally:
        with uninterrupted():
            keeper.close()


@contextlib.contextmanager
def staying_awake() -> Iterator[None]:
    """Keeps the phone awake within, for a command that works from its beginning to its end."""
    with awake() as working, working():
        yield


def _wanted(setting: object) -> bool:
    from qwen_edge.host.system import is_termux

    if not is_termux():
        return False
    if setting is None:
        from qwen_edge.session.settings import Settings

        # A setting that is wrong is told of by the commands that it is for.
        with contextlib.suppress(QwenEdgeError):
            return Settings.load().get("wake-lock") == "auto"
    return True


def release_left_behind() -> None:
    """Releases the wake lock of a process that was killed, if there is one, without waiting."""
    if maybe_termux():
        from qwen_edge.host.wake_lock import release_left_behind

        release_left_behind()
