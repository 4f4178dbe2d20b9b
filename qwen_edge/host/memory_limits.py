"""Limits on the memory of this process that are narrower than the device: ulimit, and containers.

Sources: cgroups(7), and in the kernel's documentation admin-guide/cgroup-v2.rst and
admin-guide/cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from qwen_edge.host.place import Place, parse_integer, read_integer, read_kilobyte_fields, read_text


class MemoryLimit(NamedTuple):
    """What control groups allow, in bytes; None where there is no limit.

    Attributes:
        total: the most that the process and what shares its group may hold.
        left: how much of that is left at the moment.
    """

    total: int | None
    left: int | None


class _Group(NamedTuple):
    """A control group, and what its files are called."""

    folder: Path
    limit: str
    usage: str
    # In memory.stat, of the group with all below it.
    cache: tuple[str, ...]


_FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes")
_FIRST_CACHE = ("total_active_file", "total_inactive_file")
_SECOND = ("memory.max", "memory.current")
_SECOND_CACHE = ("active_file", "inactive_file")


def memory_limit(place: Place | None = None) -> MemoryLimit:
    """Reads what the process's control groups allow it."""
    place = place or Place()
    totals, left = [], []
    for group in _groups(place):
        limit = read_integer(group.folder / group.limit)
        if limit is None or limit < 0:
            continue
        totals.append(limit)
        usage = read_integer(group.folder / group.usage) or 0
        left.append(max(0, limit - max(0, usage - _cached(group))))
    return MemoryLimit(min(totals, default=None), min(left, default=None))


def _groups(place: Place) -> Iterator[_Group]:
    """The groups that the process is in, each before the ones around it."""
    mounts = place.sysfs / "fs" / "cgroup"
    for line in (read_text(place.proc / "self" / "cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if "memory" in controllers.split(","):
            found = [(mounts / "memory", _FIRST, _FIRST_CACHE)]
        elif number == "0" and not controllers:
            found = [(mounts / end, _SECOND, _SECOND_CACHE) for end in ("", "unified")]
        else:
            continue
        # In a container the name may be the one outside of it; its own group is the mount then.
        path = PurePosixPath(name.replace("\0", "").lstrip("/"))
        inside = [] if ".." in path.parts else [path, *path.parents]
        for mount, files, cache in found:
            for folder in inside or [PurePosixPath()]:
                yield _Group(mount / folder, *files, cache)


def _cached(group: _Group) -> int:
    """Bytes of files that are held in memory and can be dropped from it."""
    cached = 0
    for line in (read_text(group.folder / "memory.stat") or "").splitlines():
        name, _, number = line.partition(" ")
        if name in group.cache:
            cached += max(0, parse_integer(number) or 0)
    return cached


def address_space_left(place: Place | None = None) -> int | None:
    """Bytes left of the soft limit on address space (``ulimit -v``); None if there is none.

    A memory cap of the program's own that is in force counts, too.
    """
    place = place or Place()
    for line in (read_text(place.proc / "self" / "limits") or "").splitlines():
        if line.startswith("Max address space"):
            soft = parse_integer((line.removeprefix("Max address space").split() or [""])[0])
            used = read_kilobyte_fields(place.proc / "self" / "status").get("VmSize")
            return None if soft is None or used is None else max(0, soft - used)
    return None
