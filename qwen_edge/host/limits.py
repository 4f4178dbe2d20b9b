"""The soft limit on address space, and how to start children outside it.

The limit is relative to what the process has already: Android's allocator reserves about 8 GiB of
address space at start, so an absolute limit of a gigabyte could never be set there, and a program
that is exec'd under a low limit aborts at once. The hard limit is never touched.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from qwen_edge.host.memory_facts import own_memory

# The soft limit as it was before the outermost cap; a limit belongs to the whole process.
_before_cap: list[int] = []
_lock = threading.RLock()


def _set_soft(soft: int) -> bool:
    """Sets the soft limit, within the hard one; False where the system refuses."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard):
        soft = hard
    try:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    except (OSError, ValueError):
        return False
    return True


@contextlib.contextmanager
def address_space_cap(budget: int, proc: Path = Path("/proc")) -> Iterator[int | None]:
    """Lets the address space grow by at most ``budget`` bytes from here on.

    Beyond it, allocations fail (MemoryError, or a memory status of the native library) instead of
    the process being killed. A lower limit that is in force already stays.

    Args:
        budget: bytes on top of the present VmSize.
        proc: the proc file system.

    Yields:
        The soft limit in force, or None where it could not be set.
    """
    import resource

    size = own_memory(proc).virtual
    with _lock:
        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        limit = None if size is None else size + max(0, budget)
        if limit is not None and soft != resource.RLIM_INFINITY:
            limit = min(limit, soft)
        applied = limit is not None and _set_soft(limit)
        if applied:
            _before_cap.append(soft)
    try:
        yield limit if applied else None
    finally:
        if applied:
            with _lock:
                _before_cap.pop()
                _set_soft(soft)


@contextlib.contextmanager
def uncapped_children() -> Iterator[None]:
    """Raises the soft limit to what it was before any cap, for the time a child is started.

    Children inherit the limit at the moment of fork, so keep only the start inside this block
    (``subprocess.Popen``) where the wait is long. Does nothing when no cap is in force.
    """
    if not _before_cap:
        yield
        return
    import resource

    with _lock:
        capped = resource.getrlimit(resource.RLIMIT_AS)[0]
        _set_soft(_before_cap[0])
        try:
            yield
        finally:
            _set_soft(capped)
