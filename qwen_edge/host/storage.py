"""File systems: what holds a path, how much is free, and whether mapping a file there is slow."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.place import Place, printable, read_text

# Android's shared storage is a FUSE daemon over the real file system (sdcardfs before Android 11),
# and every page of a mapped file passes through it.
_SHARED_ROOTS = ("/storage", "/sdcard", "/mnt/media_rw", "/mnt/user", "/mnt/runtime", "/mnt/sdcard")
_SHARED_TYPES = frozenset({"sdcardfs", "esdfs"})
_FUSE = re.compile(r"fuse(blk)?(\..+)?")
_NETWORK_TYPES = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "virtiofs"})


def not_written(path: Path, error: OSError) -> QwenEdgeError:
    """The error that something cannot be written, whatever the reason."""
    return QwenEdgeError(
        "{path} cannot be written: {reason}.",
        "Choose a folder that exists and is writable.",
        path=path,
        reason=error.strerror,
    )


class Storage(NamedTuple):
    """The file system that holds a path.

    Attributes:
        type: as the kernel names it, ``f2fs`` or ``fuse`` say; None if unknown.
        free: bytes that an ordinary user may still write; None if unknown.
        shared: whether this is Android's shared storage or a memory card.
        slow: whether reading a mapped file there is slow (shared, FUSE or network).
        noexec: whether libraries there cannot be loaded.
    """

    type: str | None
    free: int | None
    shared: bool
    slow: bool
    noexec: bool


def _unescape(path: str) -> str:
    """Undoes the octal escapes of mountinfo (blank, tab, newline, backslash)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), path)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _mount_of(path: str, place: Place) -> tuple[str, str, frozenset[str]] | None:
    """Mount point, type and options of what holds an absolute path; the later mount wins."""
    best: tuple[str, str, frozenset[str]] | None = None
    for line in (read_text(place.proc / "self" / "mountinfo") or "").splitlines():
        left, separator, right = line.partition(" - ")
        fields, types = left.split(), right.split()
        if not separator or len(fields) < 6 or not types:
            continue
        point = _unescape(fields[4])
        if _within(path, point) and (best is None or len(point) >= len(best[0])):
            best = (point, types[0], frozenset(fields[5].split(",")))
    return best


def _absolute(path: Path) -> Path:
    """The path from the root on; as it is where the working folder was deleted."""
    try:
        return path.absolute()
    except OSError:
        return path


def free_bytes(path: Path) -> int | None:
    """Free disk space for an ordinary user at a path, or at its nearest existing parent."""
    whole = _absolute(path)
    for folder in (whole, *whole.parents):
        try:
            facts = os.statvfs(folder)
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            return None
        return facts.f_bavail * facts.f_frsize
    return None


def is_shared_storage(path: Path, place: Place | None = None) -> bool:
    """Whether a path, links followed, lies on Android's shared storage or a memory card."""
    place = place or Place()
    home = place.environ.get("HOME")
    candidates = {str(_absolute(path))}
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        candidates.add(str(path.resolve()))
    for candidate in candidates:
        if any(_within(candidate, root) for root in _SHARED_ROOTS):
            return True
        # termux-setup-storage fills ~/storage with links into shared storage.
        if home and _within(candidate, str(Path(home) / "storage")):
            return True
    return False


def storage_of(path: Path, place: Place | None = None) -> Storage:
    """Tells what holds a path; the path need not exist."""
    place = place or Place()
    try:
        resolved = str(path.resolve())
    except (OSError, RuntimeError, ValueError):
        resolved = str(_absolute(path))
    mount = _mount_of(resolved, place)
    kind = mount[1] if mount else None
    shared = is_shared_storage(path, place) or kind in _SHARED_TYPES
    slow = shared or (
        kind is not None and (kind in _NETWORK_TYPES or _FUSE.fullmatch(kind) is not None)
    )
    return Storage(
        type=printable(kind) if kind else None,
        free=free_bytes(path),
        shared=shared,
        slow=slow,
        noexec=mount is not None and "noexec" in mount[2],
    )
