from __future__ import annotations

from pathlib import Path

import pytest

from qwen_edge.host.place import Place
from qwen_edge.host.storage import free_bytes, is_shared_storage, storage_of
from tests.host.recorded import recorded

PHONE = recorded("redmi_note_9").place
PC = recorded("x86_hybrid").place


@pytest.mark.parametrize(
    ("path", "kind", "shared", "noexec"),
    [
        ("/data/data/com.termux/files/home/m.qedge", "f2fs", False, False),
        ("/storage/emulated/0/Download/m.qedge", "fuse", True, True),
        ("/storage/1A2B-3C4D/m.qedge", "fuse", True, True),
        ("/sdcard/m.qedge", "ext4", True, False),
        ("/mnt/media_rw/1A2B-3C4D/m.qedge", "ext4", True, False),
        ("/data/data/com.termux/files/home/storage/shared/m.qedge", "f2fs", True, False),
        ("/storagefoo/m.qedge", "ext4", False, False),
    ],
)
def test_storage_of_a_phone(path: str, kind: str, shared: bool, noexec: bool) -> None:
    found = storage_of(Path(path), PHONE)
    assert (found.type, found.shared, found.slow, found.noexec) == (kind, shared, shared, noexec)


@pytest.mark.parametrize(
    ("path", "kind", "slow"),
    [
        ("/home/user/m.qedge", "ext4", False),
        ("/mnt/share one/m.qedge", "nfs4", True),
        ("/mnt/key/m.qedge", "fuseblk", True),
        ("/mnt/keys/m.qedge", "ext4", False),
    ],
)
def test_storage_of_a_pc(path: str, kind: str, slow: bool) -> None:
    found = storage_of(Path(path), PC)
    assert (found.type, found.slow, found.shared) == (kind, slow, False)


def test_links_into_shared_storage_are_followed(tmp_path: Path) -> None:
    link = tmp_path / "downloads"
    link.symlink_to("/storage/emulated/0/Download")
    assert is_shared_storage(link / "m.qedge", PHONE)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert not is_shared_storage(loop / "m.qedge", PHONE)
    assert not storage_of(loop / "m.qedge", PHONE).shared


def test_free_space_of_a_path_yet_to_be_made(tmp_path: Path) -> None:
    here, deep = free_bytes(tmp_path), free_bytes(tmp_path / "a" / "b" / "c")
    assert here is not None
    assert deep is not None
    assert abs(here - deep) < 1 << 30
    file = tmp_path / "file"
    file.write_text("")
    assert free_bytes(file / "below") is None


def test_nothing_readable(tmp_path: Path) -> None:
    found = storage_of(tmp_path, Place(proc=tmp_path, environ={}))
    assert found.type is None
    assert not found.slow
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text("garbage\n1 2 - \n - ext4\n\n1 2 3 4 /tmp - x\n")
    assert storage_of(tmp_path, Place(proc=tmp_path, environ={})).type is None
