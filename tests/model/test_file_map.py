"""Mapping files."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_edge.model.file_map import DONT_NEED, SEQUENTIAL, WILL_NEED, MappedFile


def test_bytes_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "файл \udcff"
    content = os.urandom(100_001)
    path.write_bytes(content)
    with MappedFile(path) as file:
        assert file.size == len(content)
        assert ctypes.string_at(file.address, file.size) == content
        assert file.read(70_000, 30_001) == content[70_000:]
        for advice in (WILL_NEED, SEQUENTIAL, DONT_NEED):
            file.advise(advice)
            file.advise(advice, 5000, 20_000)
        assert file.read(0, file.size) == content
        for offset, size in ((0, 100_002), (100_001, 1), (-1, 2), (5, -1)):
            with pytest.raises(ValueError, match="not inside"):
                file.read(offset, size)
    with pytest.raises(ValueError, match="not mapped"):
        file.read(0, 1)
    file.close()


def test_the_file_may_be_removed_while_mapped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with MappedFile(path) as file:
        path.unlink()
        assert file.read(0, 3) == b"abc"


def test_what_cannot_be_mapped(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MappedFile(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        MappedFile(tmp_path / "a\0b")
    with pytest.raises(IsADirectoryError):
        MappedFile(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        MappedFile(Path("/dev/zero"))
    (tmp_path / "empty").touch()
    with MappedFile(tmp_path / "empty") as file:
        assert (file.size, file.read(0, 0)) == (0, b"")
        file.advise(WILL_NEED)
        with pytest.raises(ValueError, match="not mapped"):
            _ = file.address


def test_no_address_space_is_a_memory_error(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    script = """
import resource, sys
from pathlib import Path
from qwen_edge.errors import MemoryLimitError
from qwen_edge.model.file_map import MappedFile
from qwen_edge.native.library import load
load()
resource.setrlimit(resource.RLIMIT_AS, (1 << 32, resource.RLIM_INFINITY))
try: MappedFile(Path(sys.argv[1]))
except MemoryLimitError as error: print(error.exit_code, error)
"""
    command = [sys.executable, "-c", script, str(path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout == f"4 There is no address space to map {path}.\n", run.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_released_pages_leave_the_resident_set(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(16 << 20))

    def resident() -> int:
        fields = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        return int(fields["RssFile"].split()[0]) << 10

    with MappedFile(path) as file:
        before = resident()
        assert file.read(0, file.size).count(0) == file.size
        assert resident() > before + (12 << 20)
        file.advise(DONT_NEED)
        assert resident() < before + (2 << 20)
