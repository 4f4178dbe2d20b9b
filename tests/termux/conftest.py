"""A home folder, and a phone with Termux's own commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.termux.commands import Commands


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path / "phone")
    yield commands
    commands.go()
    commands.wait_for_silence()
