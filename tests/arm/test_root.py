"""The cache of roots: what is half-built or changed is never taken for whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from .mirrors import Archive
from .namespace import UnavailableError
from .root import Store, fingerprint, key

ARCHIVES = [Archive("http://example/debian", "bookworm", ("main",))]


def make(folder: Path, _: Sequence[Archive]) -> None:
    """A small tree in place of a Debian."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "sh").write_text("a shell")
    (folder / "bin" / "bash").symlink_to("sh")


class Counting:
    """A builder that counts, and breaks off in the middle when told so."""

    def __init__(self) -> None:
        self.built = 0
        self.breaks = False

    def __call__(self, folder: Path, archives: Sequence[Archive]) -> None:
        self.built += 1
        make(folder, archives)
        if self.breaks:
            raise RuntimeError("the network went away")


def test_a_root_is_built_once(tmp_path: Path) -> None:
    builder = Counting()
    for _ in range(3):
        store = Store(ARCHIVES, tmp_path / "roots", builder)
        with store.mastered():
            assert (store.ready() / "bin" / "sh").read_text() == "a shell"
    assert builder.built == 1


def change_content(root: Path) -> None:
    (root / "bin" / "sh").write_text("a shelf")


def change_mode(root: Path) -> None:
    (root / "bin" / "sh").chmod(0o4755)


def add_file(root: Path) -> None:
    (root / "new").touch()


def remove_file(root: Path) -> None:
    (root / "bin" / "sh").unlink()


def change_link(root: Path) -> None:
    (root / "bin" / "bash").unlink()
    (root / "bin" / "bash").symlink_to("hs")


CHANGES = [change_content, change_mode, add_file, remove_file, change_link]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_root_is_built_anew(tmp_path: Path, change: Callable[[Path], None]) -> None:
    builder = Counting()
    store = Store(ARCHIVES, tmp_path / "roots", builder)
    with store.mastered():
        before = fingerprint(store.ready())
        (store.folder / "in-use").mkdir()
        change(store.ready())
        assert fingerprint(store.ready()) == before
        assert (store.folder / "in-use").exists()
    assert builder.built == 2


def test_a_half_built_root_is_not_taken_for_whole(tmp_path: Path) -> None:
    builder = Counting()
    builder.breaks = True
    store = Store(ARCHIVES, tmp_path / "roots", builder)
    with pytest.raises(RuntimeError), store.mastered():
        store.ready()
    assert [path.name for path in store.folder.iterdir()] == ["lock"]
    builder.breaks = False
    with store.mastered():
        assert fingerprint(store.ready())
    assert builder.built == 2


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    builder = Counting()
    store = Store(ARCHIVES, tmp_path / "roots", builder)
    with store.mastered():
        root = store.ready()
    kept = sorted(store.folder.iterdir())
    make(store.folder / "making", [])
    make(store.folder / "root-of-another-recipe", [])
    (store.folder / "root-of-another-recipe.json").write_text("{}")
    # Renamed, and not yet noted as whole.
    root.with_suffix(".json").rename(store.folder / "facts.partial")
    with store.mastered():
        assert [path.name for path in store.folder.iterdir()] == ["lock"]
        store.ready()
    assert sorted(store.folder.iterdir()) == kept
    assert builder.built == 2


def test_copies_are_gone_afterwards_and_leave_the_root_alone(tmp_path: Path) -> None:
    store = Store(ARCHIVES, tmp_path / "roots", make)
    with store.mastered():
        copy = store.copy("phone")
        change_content(copy)
        assert (store.ready() / "bin" / "sh").read_text() == "a shell"
    assert not copy.exists()


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "roots").symlink_to(tmp_path)
    store = Store(ARCHIVES, tmp_path / "roots", make)
    with pytest.raises(UnavailableError, match="somebody else"), store.mastered():
        pass


def test_the_name_tells_what_went_in() -> None:
    other = [Archive("http://example/debian", "trixie", ("main",))]
    assert key(ARCHIVES) == key(list(ARCHIVES))
    assert key(ARCHIVES) != key(other)


def test_owners_count(tmp_path: Path) -> None:
    make(tmp_path / "root", [])
    before = fingerprint(tmp_path / "root")
    if os.getuid() != 0:
        pytest.skip("only root changes owners")
    os.chown(tmp_path / "root" / "bin" / "sh", 1, 1)
    assert fingerprint(tmp_path / "root") != before
