"""A small JSON file of things measured on this machine, which anyone may have changed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_edge.host.storage import not_written
from qwen_edge.model.config import ModelConfig
from qwen_edge.model.container import ContainerError, parse_json
from qwen_edge.model.replacing_file import ReplacingFile

_LARGEST = 1 << 16


def read_measured(path: Path) -> dict[str, Any] | None:
    """The file's object.

    Returns:
        An empty one where there is no file, None where there is something else.
    """
    try:
        # Not a pipe, which would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            data = file.read(_LARGEST + 1)
        table = parse_json(data, "the file") if len(data) <= _LARGEST else None
    except FileNotFoundError:
        return {}
    except (OSError, ContainerError):
        return None
    return table if isinstance(table, dict) else None


def write_measured(path: Path, table: Mapping[str, Any]) -> None:
    """Replaces the file, and makes its folder.

    Raises:
        QwenEdgeError: it cannot be written.
    """
    data = json.dumps(table, indent=1).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(path, error) from None
    with ReplacingFile(path, len(data)) as file:
        file.write(data, 0)
        file.commit(lambda _: None)


def shape_of(config: ModelConfig, bits: int) -> str:
    """A model's shape: what decides how many bytes and operations a token takes.

    Args:
        config: the model's numbers.
        bits: of a weight, nominally.
    """
    numbers = (
        config.hidden_size, config.intermediate_size, config.layers, config.heads, config.kv_heads,
        config.head_dim, config.vocab_size, bits,
    )  # fmt: skip
    return "x".join(map(str, numbers))
