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

# 64 TiB: no device of today has more, and what claims to is not believed.
_MOST_KILOBYTES = 1 << 36


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
    """Returns at most ``limit`` bytes of a file as text, or None if it cannot be read at once."""
    try:
        # A pipe that nobody writes to must not hold the program up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return None
    content = bytearray()
    try:
        while len(content) < limit:
            part = os.read(descriptor, min(limit - len(content), 1 << 16))
            if not part:
                break
            content += part
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return content.decode("utf-8", "replace")


def parse_integer(text: str) -> int | None:
    """A decimal number of at most 18 digits: what is longer is garbage, and Python refuses some."""
    digits = text.strip()
    plain = digits.removeprefix("-")
    return int(digits) if plain.isascii() and plain.isdecimal() and len(plain) <= 18 else None


def read_integer(path: Path) -> int | None:
    """Returns the decimal number a file holds, or None."""
    text = read_text(path, 64)
    return None if text is None else parse_integer(text)


def read_kilobyte_fields(path: Path) -> dict[str, int]:
    """Reads ``Name:  123 kB`` lines, as in /proc/meminfo and /proc/self/status, into bytes.

    Lines of any other form are left out; an unreadable file gives an empty dict.
    """
    fields: dict[str, int] = {}
    for line in (read_text(path) or "").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            size = parse_integer(words[0])
            if size is not None and 0 <= size <= _MOST_KILOBYTES:
                fields[name.strip()] = size * 1024
    return fields


def printable(text: str, most: int = 200) -> str:
    """What of a name may go to a terminal: no control characters, and no more than one line."""
    return "".join(character for character in text if character.isprintable())[:most]


def numbers_of(ranges: str, most: int) -> list[int]:
    """Reads the kernel's lists of cores, ``0-3,6`` say.

    Args:
        ranges: the text.
        most: numbers from here on are left out.

    Returns:
        Ascending; empty where the text is not such a list.
    """
    found: set[int] = set()
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        low, high = parse_integer(first), parse_integer(last or first)
        if low is None or high is None:
            return []
        found.update(range(max(0, low), min(high + 1, most)))
    return sorted(found)
