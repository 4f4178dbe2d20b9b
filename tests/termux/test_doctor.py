"""What ``doctor`` tells of Termux."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.program import run
from tests.termux.commands import WAKE_LOCK, Commands

PROBE = "termux-battery-status"
ALL = (*WAKE_LOCK, PROBE, "termux-tts-speak", "termux-speech-to-text", "termux-clipboard-set")


def doctor(home: Path, phone: Commands, *options: str) -> str:
    done = run(home, "doctor", "-m", "demo", *options, changes=phone.environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("mode", "state", "told"),
    [
        ("works", "done", "answers; speaking; listening; clipboard"),
        ("fails", "failed", "fails"),
        ("babbles", "failed", "fails"),
        ("hangs", "hangs", "does not answer"),
    ],
)
def test_termux_api(home: Path, tmp_path: Path, mode: str, state: str, told: str) -> None:
    phone = Commands(tmp_path / "phone", ALL)
    phone.behave(PROBE, mode)
    text = doctor(home, phone)
    assert f"Termux:API  {told}" in text
    assert ("Install the app Termux:API" in text) == (mode == "hangs")
    report = json.loads(doctor(home, phone, "--report", "-"))
    assert report["termux"] == {
        "api": state,
        "abilities": ["speaking", "listening", "clipboard"],
        "wake_lock_holders": 0,
        "wake_locks_left_behind": 0,
    }
    assert not phone.left()


def test_without_termux_api(home: Path, phone: Commands) -> None:
    text = doctor(home, phone)
    assert "Termux:API  not installed" in text
    assert "Wake lock   not held" in text
    table = json.loads(doctor(home, phone, "--json"))["termux"]
    assert table == {
        "api": "absent",
        "abilities": [],
        "wake_lock": {"holders": [], "left_behind": 0},
    }


def test_nothing_of_it_elsewhere(home: Path) -> None:
    done = run(home, "doctor", "-m", "demo", "--json")
    assert json.loads(done.stdout)["termux"] is None
    assert "Termux:API" not in run(home, "doctor", "-m", "demo").stdout


def test_a_lock_that_was_left_behind_is_told_of_and_released(home: Path, phone: Commands) -> None:
    (home / "wake-lock").mkdir(parents=True)
    (home / "wake-lock" / "12345.pid").touch()
    assert "Wake lock   left behind by a program that was killed" in doctor(home, phone)
    phone.wait_for(f"end {WAKE_LOCK[1]}")
    assert "Wake lock   not held" in doctor(home, phone)
    assert phone.events() == [f"begin {WAKE_LOCK[1]}", f"end {WAKE_LOCK[1]}"]
