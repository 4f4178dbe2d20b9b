"""The file that an unexpected failure is described in."""

from __future__ import annotations

import os
from pathlib import Path

from qwen_edge import __version__
from qwen_edge.host.paths import data_folder
from qwen_edge.host.place import read_text


def _log_path() -> Path:
    return data_folder() / "last-error.log"


def read_log() -> str | None:
    """What ``write_log`` wrote last; None if there is nothing."""
    return read_text(_log_path())


def write_log(error: BaseException) -> Path:
    """Writes a traceback, readable by the user only; the last one replaces the one before.

    The command line is left out: it may hold a private prompt.

    Raises:
        OSError: the folder cannot be written to.
    """
    import platform
    import time
    import traceback

    path = _log_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = [
        f"qwen-edge {__version__}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n",
        f"Python {platform.python_version()}, {platform.platform()}\n",
        *traceback.format_exception(error),
    ]
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
        file.writelines(lines)
    return path
