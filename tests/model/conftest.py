"""A small model file, made once."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.model.convert import convert
from tests.model.files import BLOB, write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied bf16 checkpoint; do not change it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def model_file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It converted to INT4 with a placeholder for the tokenizer; do not change it."""
    path = tmp_path_factory.mktemp("models") / "tiny.qedge"
    convert(checkpoint, path, tokenizer=BLOB)
    return path


@pytest.fixture(scope="session", params=["native", "plain"])
def ops(request: pytest.FixtureRequest) -> Any:
    """Torch operators: those over the native kernels, and those in plain torch."""
    from qwen_edge.model.operators import native_operators
    from qwen_edge.model.operators_torch import torch_operators

    return native_operators() if request.param == "native" else torch_operators()


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory, mounted on a new folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    with mounted(tmp_path / "disk", "size=4m") as folder:
        yield folder


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nobody may write; root is not bound by permissions, but by mounts."""
    folder = tmp_path / "read-only"
    if os.geteuid() == 0:
        with mounted(folder, "ro,size=1m"):
            yield folder
    else:
        folder.mkdir(mode=0o555)
        yield folder
