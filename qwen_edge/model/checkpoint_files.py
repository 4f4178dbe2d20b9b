"""The small files of a checkpoint folder, texts and JSON objects, and the errors about a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.container import ContainerError, parse_json
from qwen_edge.model.file_map import MappedFile

_TEXT_LIMIT = 256 << 20


def damaged(path: Path, problem: str) -> DamagedModelError:
    """The error that a file of a checkpoint cannot be used."""
    return DamagedModelError(
        "The checkpoint file {path} cannot be used: {problem}.",
        "Download the checkpoint again.",
        path=path,
        problem=problem,
    )


def unsupported(folder: Path, feature: object) -> DamagedModelError:
    """The error that a checkpoint has what no reader here knows."""
    return DamagedModelError(
        "The checkpoint {path} uses {feature}, which is not supported.",
        "Use the model's original checkpoint.",
        path=folder,
        feature=feature,
    )


def read_file(path: Path) -> bytes | None:
    """A whole small file, or None if there is none.

    Raises:
        DamagedModelError: it is too large, or cannot be read.
    """
    try:
        with MappedFile(path) as file:
            if file.size > _TEXT_LIMIT:
                raise damaged(path, "it is too large")
            return file.read(0, file.size)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise damaged(path, f"it cannot be read ({error.strerror})") from None


def read_json(path: Path) -> Mapping[str, Any] | None:
    """The JSON object in a file, or None if there is no such file; raises as ``parse_object``."""
    data = read_file(path)
    return None if data is None else parse_object(path, data)


def parse_object(path: Path, data: bytes) -> Mapping[str, Any]:
    """The JSON object of a text.

    Args:
        path: the file that it comes from.
        data: the text.

    Raises:
        DamagedModelError: it is none.
    """
    try:
        table = parse_json(data, "its text")
    except ContainerError as error:
        raise damaged(path, str(error)) from None
    if not isinstance(table, dict):
        raise damaged(path, "it is not a JSON object")
    return table
