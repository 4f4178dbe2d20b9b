"""RAM of the device and memory of this process, from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from qwen_edge.host.memory_limits import memory_limit
from qwen_edge.host.place import Place, read_kilobyte_fields


class DeviceMemory(NamedTuple):
    """Memory of the whole device in bytes; None where it could not be read.

    In a container that may have less, that counts.
    """

    total: int | None
    available: int | None
    swap_total: int | None
    swap_free: int | None


class OwnMemory(NamedTuple):
    """Memory of this process in bytes; None where it could not be read.

    Attributes:
        anonymous: resident pages that nothing backs: heap, stacks, the KV cache.
        file: resident pages of mapped files, the weights among them; the kernel can drop these.
        virtual: address space in use, what RLIMIT_AS counts.
        peak: the highest resident size so far, file pages included.
    """

    anonymous: int | None
    file: int | None
    virtual: int | None
    peak: int | None


def device_memory(place: Place | None = None) -> DeviceMemory:
    """Reads RAM and swap, within what control groups allow.

    Kernels before 3.14 do not say what is available: free plus buffers plus cache less shared
    memory is taken then.
    """
    place = place or Place()
    whole, limit = _whole_device(place), memory_limit(place)
    return whole._replace(
        total=_least(whole.total, limit.total), available=_least(whole.available, limit.left)
    )


def _least(*sizes: int | None) -> int | None:
    return min((size for size in sizes if size is not None), default=None)


def _whole_device(place: Place) -> DeviceMemory:
    fields = read_kilobyte_fields(place.proc / "meminfo")
    available = fields.get("MemAvailable")
    if available is None and "MemFree" in fields:
        cache = fields.get("Buffers", 0) + fields.get("Cached", 0) - fields.get("Shmem", 0)
        available = fields["MemFree"] + max(0, cache)
    if available is not None and "MemTotal" in fields:
        available = min(available, fields["MemTotal"])
    found = DeviceMemory(
        fields.get("MemTotal"), available, fields.get("SwapTotal"), fields.get("SwapFree")
    )
    if found.total is None and place.fallbacks:
        return _without_proc()
    return found


def _without_proc() -> DeviceMemory:
    """RAM and swap where /proc/meminfo is denied or does not exist."""
    try:
        import psutil  # type: ignore[import-untyped,unused-ignore]

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        return DeviceMemory(memory.total, memory.available, swap.total, swap.free)
    except Exception:  # psutil raises its own kinds, and OSError of any sort, on Android
        pass
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
        return DeviceMemory(total, page * os.sysconf("SC_AVPHYS_PAGES"), None, None)
    except (OSError, ValueError):
        return DeviceMemory(None, None, None, None)


def own_memory(proc: Path = Path("/proc")) -> OwnMemory:
    """Reads this process's own memory; a few tens of microseconds."""
    fields = read_kilobyte_fields(proc / "self" / "status")
    return OwnMemory(
        fields.get("RssAnon"), fields.get("RssFile"), fields.get("VmSize"), fields.get("VmHWM")
    )
