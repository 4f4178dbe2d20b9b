"""The battery's temperature, from Termux:API or /sys."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from qwen_edge.host import battery
from qwen_edge.host.battery import battery_temperature
from qwen_edge.host.place import Place


def supply(sysfs: Path, name: str, kind: str, temp: str | None) -> None:
    folder = sysfs / "class" / "power_supply" / name
    folder.mkdir(parents=True)
    (folder / "type").write_text(f"{kind}\n")
    if temp is not None:
        (folder / "temp").write_text(f"{temp}\n")


def place(sysfs: Path, **environ: str) -> Place:
    return Place(proc=sysfs / "proc", sysfs=sysfs, environ=environ, platform="linux")


def test_without_a_battery(tmp_path: Path) -> None:
    assert battery_temperature(place(tmp_path)) is None
    supply(tmp_path, "AC", "Mains", "290")
    supply(tmp_path, "hid", "Battery", None)
    assert battery_temperature(place(tmp_path)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("312", 31.2), ("-15", -1.5), ("0", 0.0), ("99999", None), ("-2731", None), ("warm", None)],
)
def test_tenths_of_a_degree_in_sysfs(tmp_path: Path, text: str, expected: float | None) -> None:
    supply(tmp_path, "AC", "Mains", "290")
    supply(tmp_path, "battery", "Battery", text)
    assert battery_temperature(place(tmp_path)) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("""echo '{"health": "GOOD", "temperature": 33.4}'""", 33.4),
        ("echo '{}'", 30.0),
        ("echo '[1]'", 30.0),
        ("echo no JSON", 30.0),
        ("""echo '{"temperature": "warm"}'""", 30.0),
        ("exit 1", 30.0),
        # A helper without its app never answers.
        ("exec sleep 60", 30.0),
    ],
)
def test_termux_is_asked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: float
) -> None:
    program = tmp_path / "bin" / "termux-battery-status"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(battery, "TIMEOUT", 0.5)
    supply(tmp_path, "battery", "Battery", "300")
    start = time.monotonic()
    assert battery_temperature(place(tmp_path, TERMUX_VERSION="0.118")) == expected
    assert time.monotonic() - start < 30
    # Elsewhere the program is not started.
    assert battery_temperature(place(tmp_path)) == 30.0
