from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.torch_cache import clear_torch_cache, read_torch_cache


def cache(home: Path) -> Path:
    folder = home / "torch"
    (folder / "inductor" / "ab").mkdir(parents=True)
    (folder / "operators").mkdir()
    (folder / "operators" / "operators-1.so").write_bytes(bytes(1000))
    (folder / "inductor" / "ab" / "x.cpp").write_bytes(bytes(200))
    return folder


def environ(home: Path) -> dict[str, str]:
    return {"QWEN_EDGE_HOME": str(home)}


def test_sizes_and_clearing(tmp_path: Path) -> None:
    folder = cache(tmp_path)
    found = read_torch_cache(environ(tmp_path))
    assert (found.folder, found.size) == (folder, 1200)
    assert found.sizes == {"operators": 1000, "inductor": 200, "packages": 0}
    clear_torch_cache(found)
    assert not folder.exists()
    # What is not there needs no clearing.
    clear_torch_cache(found)
    assert read_torch_cache(environ(tmp_path)).size == 0


def test_links_are_deleted_and_not_followed(tmp_path: Path) -> None:
    folder, outside = cache(tmp_path), tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(bytes(5000))
    (folder / "inductor" / "folder").symlink_to(outside)
    (folder / "inductor" / "file").symlink_to(outside / "precious")
    (folder / "packages").symlink_to(outside)
    os.link(outside / "precious", folder / "inductor" / "hard")
    os.mkfifo(folder / "inductor" / "pipe")
    found = read_torch_cache(environ(tmp_path))
    # The hard link is a file like any other; links count as themselves.
    assert 6200 < found.size < 6500
    clear_torch_cache(found)
    assert not folder.exists()
    assert (outside / "precious").stat().st_size == 5000


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    folder = cache(tmp_path)
    (folder / "setup.py").write_text("a checkout of torch, say")
    (folder / "packages").write_text("a file where a folder should be")
    clear_torch_cache(read_torch_cache(environ(tmp_path)))
    assert [path.name for path in folder.iterdir()] == ["setup.py"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "torch").write_text("no folder at all")
    clear_torch_cache(read_torch_cache(environ(elsewhere)))
    assert (elsewhere / "torch").exists()


def test_what_cannot_be_deleted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache(tmp_path)

    def refuse(name: str, **_: object) -> None:
        raise PermissionError(13, "Permission denied", name)

    # Whoever tests as root may delete everything.
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(QwenEdgeError, match="cannot be deleted: Permission denied"):
        clear_torch_cache(read_torch_cache(environ(tmp_path)))
    assert (folder / "operators" / "operators-1.so").exists()
