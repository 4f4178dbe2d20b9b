"""Where a pulled model goes: what is there, whether there is space, and moving it there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from qwen_edge.errors import QwenEdgeError, UsageError
from qwen_edge.host.sizes import format_size
from qwen_edge.host.storage import free_bytes, not_written
from qwen_edge.model.packed import open_model
from qwen_edge.model.replacing_file import ReplacingFile


def is_made_of(path: Path, origin: str, group: int | None = None) -> bool:
    """Whether a file is a model made of this source, in groups of this size if one is given."""
    try:
        with open_model(path) as model:
            same = group in (None, model.quantization.get("group"))
            return same and model.source == origin
    except (QwenEdgeError, OSError):
        return False


def refuse_other(path: Path, origin: str) -> None:
    """Refuses to replace a model that comes from elsewhere.

    Raises:
        UsageError: there is one.
    """
    if os.path.lexists(path) and not is_made_of(path, origin):
        raise UsageError(
            "There is another model at {path}.",
            "Give this one a --name, or replace that one with --force.",
            path=path,
        )


def check_space(folder: Path, missing: int, target: Path, made: int) -> None:
    """Makes sure that a download and the model made of it fit on the disk.

    Args:
        folder: where the download goes.
        missing: its bytes that are not there yet.
        target: the model file.
        made: its bytes.

    Raises:
        QwenEdgeError: they do not.
    """
    needs = [(folder, missing, made)]
    if _device(folder) != _device(target.parent):
        needs = [(folder, missing, 0), (target.parent, 0, made)]
    for place, downloaded, converted in needs:
        free = free_bytes(place)
        if free is not None and free < downloaded + converted:
            raise QwenEdgeError(
                "{needed} of disk space are needed in {place} ({download} for the download, "
                "{model} for the model), and only {free} are free.",
                "Free some space, or let QWEN_EDGE_HOME name a folder with more of it.",
                needed=format_size(downloaded + converted),
                place=place,
                download=format_size(downloaded),
                model=format_size(converted),
                free=format_size(free),
            )


def _device(path: Path) -> int | None:
    """The file system of a path or of its nearest existing parent."""
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return folder.stat().st_dev
    return None


def take_ready(path: Path, target: Path) -> None:
    """Checks a downloaded .qedge file by opening it, and gives it its place.

    Raises:
        DamagedModelError: it is none.
        QwenEdgeError: it cannot be put there.
    """

    def verify(file: Path) -> None:
        with open_model(file):
            pass

    verify(path)
    try:
        path.replace(target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise not_written(target, error) from None
    with ReplacingFile(target, path.stat().st_size) as copy:
        copy.write_with(lambda descriptor: _copy(path, descriptor))
        copy.commit(verify)


def _copy(path: Path, descriptor: int) -> None:
    with open(path, "rb") as source, open(descriptor, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target, 1 << 20)
