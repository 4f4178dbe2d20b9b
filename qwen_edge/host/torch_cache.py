"""What was compiled for torch and kept: how much it is, and how it goes. Needs no torch."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.paths import torch_folder

# Only these are this program's: the folder itself may be one that the user named.
PARTS = ("operators", "inductor", "packages")


@dataclass(frozen=True)
class TorchCache:
    """The cache of compiled code.

    Attributes:
        folder: where it is; it need not exist.
        sizes: bytes of each of its parts.
    """

    folder: Path
    sizes: Mapping[str, int]

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(self.sizes.values())


def read_torch_cache(environ: Mapping[str, str] | None = None) -> TorchCache:
    """Looks how much there is; what cannot be read counts nothing."""
    folder = torch_folder(environ)
    return TorchCache(folder, {part: _size(folder / part) for part in PARTS})


def clear_torch_cache(cache: TorchCache) -> None:
    """Deletes it. Links are deleted, and what they point to stays.

    Raises:
        QwenEdgeError: some of it cannot be deleted.
    """
    problem: OSError | None = None
    for part in PARTS:
        path = cache.folder / part
        try:
            if _is_folder(path):
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except NotADirectoryError:
            # So is the folder above it.
            continue
        except OSError as error:
            problem = error
    with contextlib.suppress(OSError):
        cache.folder.rmdir()
    if problem is not None:
        raise QwenEdgeError(
            "{path} cannot be deleted: {reason}.",
            path=problem.filename or cache.folder,
            reason=problem.strerror or problem,
        )


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _size(path: Path) -> int:
    """Bytes of the files below a folder; links count as themselves."""
    found = [path]
    if _is_folder(path):
        found = [Path(root, name) for root, _, names in os.walk(path) for name in names]
    size = 0
    for each in found:
        with contextlib.suppress(OSError):
            size += each.lstat().st_size
    return size
