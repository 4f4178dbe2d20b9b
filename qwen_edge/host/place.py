"""Where the probes look: the real machine, or a recorded tree of another one.

Every probe takes a ``Place``. On Android much of /proc and /sys is denied to an app, and differs by
vendor and version; a probe answers ``None`` for what it cannot learn and never raises.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def _allowed_cores() -> Collection[int]:
    """Cores that the scheduler may give this process; Android narrows them in the background."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


@dataclass(frozen=True)
class Place:
    """The sources of facts about a machine.

    Attributes:
        proc: the proc file system.
        sysfs: the sys file system.
        environ: the environment variables.
        platform: ``sys.platform`` there.
        machine: the processor family as ``uname -m`` names it.
        allowed_cores: gives the core numbers this process may run on.
        properties: gives the Android system properties; None asks getprop.
        fallbacks: whether psutil and sysconf of the running machine may stand in for missing files.
    """

    proc: Path = Path("/proc")
    sysfs: Path = Path("/sys")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    platform: str = sys.platform
    machine: str = field(default_factory=lambda: os.uname().machine)
    allowed_cores: Callable[[], Collection[int]] = _allowed_cores
    properties: Callable[[], Mapping[str, str]] | None = None
    fallbacks: bool = True


def read_text(path: Path, limit: int = 1 << 20) -> str | None:
    """Returns at most ``limit`` bytes of a file as text, or None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return None


def read_integer(path: Path) -> int | None:
    """Returns the decimal number a file holds, or None."""
    text = read_text(path, 64)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        return None


def read_kilobyte_fields(path: Path) -> dict[str, int]:
    """Reads ``Name:  123 kB`` lines, as in /proc/meminfo and /proc/self/status, into bytes.

    Lines of any other form are left out; an unreadable file gives an empty dict.
    """
    fields: dict[str, int] = {}
    for line in (read_text(path) or "").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isdecimal():
            fields[name.strip()] = int(words[0]) * 1024
    return fields
