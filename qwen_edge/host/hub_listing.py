"""What the listings of the sources say, read as if an enemy had written it."""

from __future__ import annotations

import re
from typing import Any

from qwen_edge.host.part_file import Digest, RemoteFile

# A folder's name or a file's, without anything that a file system or a shell takes for more.
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_MOST_BYTES = 1 << 62
_HEX = re.compile(r"[0-9a-f]+")


def is_safe(path: str) -> bool:
    """Whether a path from a server is made of plain names only, none of them hidden or ``..``."""
    return len(path) <= 400 and all(map(_SEGMENT.fullmatch, path.split("/")))


def _digest(kind: str, value: object, length: int) -> Digest | None:
    """A checksum from a server, if it is one."""
    text = value.lower() if isinstance(value, str) else ""
    return Digest(kind, text) if len(text) == length and _HEX.fullmatch(text) else None


def hugging_face_file(entry: Any) -> RemoteFile | None:
    """A file of Hugging Face's tree listing, its URL left empty; None for anything else."""
    if not isinstance(entry, dict) or entry.get("type") != "file":
        return None
    path, size, lfs = entry.get("path"), entry.get("size"), entry.get("lfs")
    digest = _digest("git", entry.get("oid"), 40)
    if isinstance(lfs, dict):
        # The other id is of the pointer that git keeps in its place.
        digest, size = _digest("sha256", lfs.get("oid"), 64), lfs.get("size", size)
    return _file(path, size, digest)


def model_scope_file(entry: Any) -> RemoteFile | None:
    """A file of ModelScope's listing, its URL left empty; None for anything else."""
    if not isinstance(entry, dict) or entry.get("Type") != "blob":
        return None
    digest = _digest("sha256", entry.get("Sha256"), 64)
    return _file(entry.get("Path"), entry.get("Size"), digest)


def _file(path: object, size: object, digest: Digest | None) -> RemoteFile | None:
    if not isinstance(path, str) or not isinstance(size, int) or not 0 <= size < _MOST_BYTES:
        return None
    return RemoteFile(path, "", size, digest)
