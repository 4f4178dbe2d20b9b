"""How much disk space installed packages take."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterable
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def required(names: Iterable[str]) -> set[str]:
    """Names of the distributions that some distributions need, these included.

    What an extra asks for is left out, and so is what is not installed: it is for other platforms.
    """
    found: set[str] = set()
    waiting = [_plain(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            requirements = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        for requirement in requirements:
            marker = requirement.partition(";")[2]
            match = _NAME.match(requirement)
            if match and "extra" not in marker:
                waiting.append(_plain(match.group()))
    return found


def installed_bytes(names: Iterable[str]) -> int:
    """Bytes on disk of distributions and of all that they need.

    A package that was installed without a record of its files is taken for the folder that it is
    imported from.
    """
    return sum(map(_distribution_bytes, required(names)))


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(
        _size(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names
    )


@functools.cache
def _distribution_bytes(name: str) -> int:
    distribution = importlib.metadata.distribution(name)
    if distribution.files is None:
        return sum(map(folder_bytes, _import_folders(name)))
    return sum(_size(str(distribution.locate_file(file))) for file in distribution.files)


def _plain(name: str) -> str:
    """The form in which names of distributions are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _import_folders(name: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(name.replace("-", "_"))
    except (ImportError, ValueError):
        return []
    return [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
