"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_edge.errors import QwenEdgeError
from qwen_edge.model.replacing_file import ReplacingFile, remove_leftovers


def accept(path: Path) -> None:
    assert path.exists()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_commit_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_bytes(b"old")
    with ReplacingFile(target, 6) as file:
        file.write(b"def", 3)
        file.write(memoryview(bytearray(b"abc")), 0)
        assert target.read_bytes() == b"old"
        file.commit(accept)
    assert target.read_bytes() == b"abcdef"
    assert names(tmp_path) == ["model"]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_breaking_off_keeps_the_old_file(tmp_path: Path, problem: type[BaseException]) -> None:
    target = tmp_path / "model"
    target.write_bytes(b"old")

    def interrupted() -> None:
        with ReplacingFile(target, 6) as file:
            file.write(b"abc", 0)
            raise problem

    with pytest.raises(problem):
        interrupted()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["model"]


def test_what_fails_the_check_is_not_kept(tmp_path: Path) -> None:
    def reject(path: Path) -> None:
        assert path.read_bytes() == b"abc"
        raise QwenEdgeError("It is no good.")

    with ReplacingFile(tmp_path / "model", 3) as file:
        file.write(b"abc", 0)
        with pytest.raises(QwenEdgeError, match="no good"):
            file.commit(reject)
    assert names(tmp_path) == []


def test_space_is_checked_ahead(tmp_path: Path) -> None:
    with pytest.raises(QwenEdgeError, match=r"needs 1024 TiB of disk space and only .* are free"):
        ReplacingFile(tmp_path / "model", 1 << 50)
    assert names(tmp_path) == []


def test_targets_that_cannot_be_written(tmp_path: Path, read_only_folder: Path) -> None:
    with pytest.raises(QwenEdgeError, match="is a folder"):
        ReplacingFile(tmp_path, 1)
    with pytest.raises(QwenEdgeError, match="cannot be written: No such file or directory"):
        ReplacingFile(tmp_path / "none" / "model", 1)
    with pytest.raises(QwenEdgeError, match=r"cannot be written: (Read-only|Permission)") as caught:
        ReplacingFile(read_only_folder / "model", 1)
    assert caught.value.exit_code == 1
    with pytest.raises(QwenEdgeError, match="cannot be written: File name too long"):
        ReplacingFile(tmp_path / ("x" * 250), 1)


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    target = small_disk / "model"
    target.write_bytes(b"old")
    with ReplacingFile(target, 2 << 20) as file:
        (small_disk / "other").write_bytes(bytes(3 << 20))
        with pytest.raises(QwenEdgeError, match=r"needs 2\.0 MiB of disk space and only 0 B are"):
            file.write(bytes(2 << 20), 0)
    assert target.read_bytes() == b"old"
    assert names(small_disk) == ["model", "other"]


def test_a_limit_on_the_file_size(tmp_path: Path) -> None:
    target = tmp_path / "model"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with (
            pytest.raises(QwenEdgeError, match="more than a file may have there"),
            ReplacingFile(target, 1 << 17) as file,
        ):
            file.write(bytes(1 << 17), 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_kept(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from qwen_edge.model.replacing_file import ReplacingFile\n"
        "file = ReplacingFile(Path(sys.argv[1]), 3)\n"
        "file.write(b'abc', 0)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    target = tmp_path / "m[o]del*"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        assert len(names(tmp_path)) == 1
        (tmp_path / ".other.12345678.partial").touch()
        assert remove_leftovers(target) == []
        writer.send_signal(signal.SIGKILL)
    assert len(names(tmp_path)) == 2
    with ReplacingFile(target, 3) as file:
        assert names(tmp_path) == sorted([".other.12345678.partial", file.path.name])
        file.write(b"new", 0)
        file.commit(accept)
    assert names(tmp_path) == [".other.12345678.partial", target.name]


def test_a_leftover_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"data")
    (tmp_path / ".model.0.partial").symlink_to(precious)
    remove_leftovers(tmp_path / "model")
    assert precious.read_bytes() == b"data"


def test_an_interrupt_before_the_with_statement_leaves_no_litter(tmp_path: Path) -> None:
    file = ReplacingFile(tmp_path / "target", 10)
    assert len(list(tmp_path.iterdir())) == 1
    del file
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_the_file_is_made_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def interrupted(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real(path, flags, mode)
        if flags & os.O_CREAT:
            os.close(descriptor)
            raise KeyboardInterrupt
        return descriptor

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ReplacingFile(tmp_path / "target", 10)
    assert list(tmp_path.iterdir()) == []
