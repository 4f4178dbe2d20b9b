"""Copying a model into the folder of models: whole or not at all, and the original is safe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwen_edge.errors import DamagedModelError, ModelNotFoundError, QwenEdgeError, UsageError
from qwen_edge.model import replacing_file
from qwen_edge.session.models import demo_path
from qwen_edge.session.moving import (
    copied_to,
    copy_model,
    is_in_place,
    let_stay,
    may_be_offered,
    remove_original,
)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWEN_EDGE_HOME", str(tmp_path / "home"))
    path = tmp_path / "card" / "My model.qedge"
    path.parent.mkdir()
    path.write_bytes(demo_path().read_bytes())
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_copy_is_the_same_and_the_original_goes_on_request(source: Path) -> None:
    told: list[tuple[int, int]] = []
    target = copied_to(source)
    assert target.name == "My model.qedge"
    original = copy_model(source, target, lambda done, total, _: told.append((done, total)))
    assert target.read_bytes() == source.read_bytes() == demo_path().read_bytes()
    assert told[-1] == (source.stat().st_size, source.stat().st_size)
    assert files(target.parent) == ["My model.qedge"]
    remove_original(original)
    assert not source.exists()


def test_a_copy_that_is_there_is_taken(source: Path) -> None:
    target = copied_to(source, "other")
    copy_model(source, target)
    before = target.stat().st_mtime_ns
    copy_model(source, copied_to(source, "other"))
    assert target.stat().st_mtime_ns == before


def test_another_model_of_that_name_is_not_replaced(source: Path) -> None:
    target = copied_to(source)
    target.write_bytes(b"something else")
    with pytest.raises(UsageError, match="another model"):
        copied_to(source)
    assert target.read_bytes() == b"something else"
    assert copied_to(source, "free").name == "free.qedge"


@pytest.mark.parametrize("given", ["the link", "the file"])
def test_a_link_to_the_original_makes_room_for_the_copy(source: Path, given: str) -> None:
    target = copied_to(source)
    target.symlink_to(source)
    named = target if given == "the link" else source
    assert copied_to(named) == target
    assert not is_in_place(named, target)
    original = copy_model(named, target)
    assert original.path == source
    assert not target.is_symlink()
    remove_original(original)
    assert not source.exists()
    assert target.read_bytes() == demo_path().read_bytes()
    assert is_in_place(target, target)


def test_a_link_to_another_model_is_not_replaced(source: Path) -> None:
    target = copied_to(source)
    target.symlink_to(demo_path())
    with pytest.raises(UsageError, match="another model"):
        copied_to(source)
    assert target.readlink() == demo_path()


def test_a_linked_folder_of_models_holds_what_is_in_it(source: Path) -> None:
    target = copied_to(source)
    target.parent.rmdir()
    target.parent.symlink_to(source.parent)
    assert is_in_place(source, copied_to(source))
    assert not is_in_place(source, copied_to(source, "other"))


def test_what_is_no_model_is_not_copied(source: Path) -> None:
    target = copied_to(source)
    source.write_bytes(source.read_bytes()[:-5000])
    with pytest.raises(DamagedModelError):
        copy_model(source, target)
    with pytest.raises(ModelNotFoundError):
        copy_model(source.with_name("none.qedge"), target)
    assert files(target.parent) == []


def test_a_full_disk_is_refused_before_anything_is_written(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacing_file, "free_bytes", lambda path: 1000)
    target = copied_to(source)
    with pytest.raises(QwenEdgeError, match=r"only 1\.0 KiB are free"):
        copy_model(source, target)
    assert files(target.parent) == []
    assert source.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_breaking_off_leaves_both_sides_whole(source: Path, error: type[BaseException]) -> None:
    def broken(done: int, total: int, name: str) -> None:
        raise error

    target = copied_to(source)
    with pytest.raises(error):
        copy_model(source, target, broken)
    assert files(target.parent) == []
    assert source.read_bytes() == demo_path().read_bytes()


def test_a_copy_that_went_wrong_is_noticed(source: Path) -> None:
    target = copied_to(source)

    def spoil(done: int, total: int, name: str) -> None:
        (copy,) = target.parent.iterdir()
        with open(copy, "r+b") as file:
            file.seek(done - 100)
            file.write(b"spoilt")

    with pytest.raises(QwenEdgeError, match="is not what was read"):
        copy_model(source, target, spoil)
    assert files(target.parent) == []


def test_an_original_that_changes_is_noticed(source: Path) -> None:
    target = copied_to(source)
    with pytest.raises(QwenEdgeError, match="is not what was read"):
        copy_model(source, target, lambda done, total, name: os.utime(source, ns=(0, 0)))
    assert files(target.parent) == []
    original = copy_model(source, target)
    source.write_bytes(b"a newer one")
    with pytest.raises(QwenEdgeError, match="has changed"):
        remove_original(original)
    assert source.read_bytes() == b"a newer one"


def test_no_is_remembered_for_a_path(source: Path, tmp_path: Path) -> None:
    environ = {"QWEN_EDGE_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    other = source.with_name("other.qedge")
    assert may_be_offered(source, environ)
    let_stay(source, environ)
    assert not may_be_offered(source, environ)
    assert may_be_offered(other, environ)
    let_stay(other, environ)
    assert not may_be_offered(source, environ)
    assert not may_be_offered(other, environ)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, null]", b"[[[", b"\xff\xfe"])
def test_a_damaged_memory_asks_once_more(source: Path, tmp_path: Path, content: bytes) -> None:
    environ = {"QWEN_EDGE_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    let_stay(source, environ)
    (memory,) = (path for path in (tmp_path / "home").iterdir() if path.suffix == ".json")
    memory.write_bytes(content)
    assert may_be_offered(source, environ)
    let_stay(source, environ)
    assert not may_be_offered(source, environ)


def test_nothing_is_offered_where_it_is_no_better(source: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage" / "home"
    environ = {"QWEN_EDGE_HOME": str(storage), "HOME": str(tmp_path)}
    assert not may_be_offered(source, environ)
