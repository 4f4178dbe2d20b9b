"""Where packages come from is read from the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from .mirrors import Archive, archives, debian
from .namespace import UnavailableError

OLD = """
# deb http://old.example/debian bookworm main
deb [arch=arm64 signed-by=/x/y.gpg] https://one.example/debian bookworm main contrib # ours
deb-src https://one.example/debian bookworm main
deb https://other.example/tools tools main
"""
NEW = """Types: deb deb-src
# a comment
URIs: http://two.example/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By:
 /usr/share/keyrings/some.gpg

Types: deb
URIs: http://two.example/security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://sources.example/debian
Suites: bookworm
Components: main
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def release(folder: Path, text: str = 'ID=debian\nVERSION_CODENAME="bookworm"\n') -> Path:
    path = folder / "os-release"
    path.write_text(text)
    return path


def test_lines(apt: Path) -> None:
    (apt / "sources.list").write_text(OLD)
    assert archives(apt) == [
        Archive("https://one.example/debian", "bookworm", ("main", "contrib")),
        Archive("https://other.example/tools", "tools", ("main",)),
    ]


def test_entries_of_fields(apt: Path) -> None:
    (apt / "sources.list.d" / "debian.sources").write_text(NEW)
    both = ("main", "contrib")
    assert archives(apt) == [
        Archive("http://two.example/debian", "bookworm", both),
        Archive("http://two.example/debian", "bookworm-updates", both),
        Archive("http://two.example/security", "bookworm-security", ("main",)),
    ]


def test_debians_own_come_in_order(apt: Path) -> None:
    (apt / "sources.list.d" / "a.list").write_text(
        "deb http://s.example bookworm-security main\ndeb http://m.example bookworm non-free main\n"
        "deb http://o.example bookworm-tools main\n"
    )
    assert [str(archive) for archive in debian(release(apt), apt)] == [
        "deb http://m.example bookworm main",
        "deb http://s.example bookworm-security main",
    ]


def test_another_release_comes_from_the_same_mirror(apt: Path) -> None:
    (apt / "sources.list.d" / "a.list").write_text(
        "deb http://s.example bookworm-security main\ndeb http://m.example bookworm main\n"
    )
    assert [str(archive) for archive in debian(release(apt), apt, "forky")] == [
        "deb http://m.example forky main"
    ]


@pytest.mark.parametrize("text", ["ID=ubuntu\nVERSION_CODENAME=noble\n", "ID=debian\n"])
def test_another_system_is_told(apt: Path, text: str) -> None:
    with pytest.raises(UnavailableError, match="no Debian"):
        debian(release(apt, text), apt)


def test_a_debian_without_mirror_is_told(apt: Path) -> None:
    with pytest.raises(UnavailableError, match="no mirror of Debian bookworm"):
        debian(release(apt), apt)
