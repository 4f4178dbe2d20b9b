"""The battery: its temperature, the only one a phone shows to an app, its level and its charger."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qwen_edge.host.place import Place, read_integer, read_text
from qwen_edge.host.system import is_termux

if TYPE_CHECKING:
    from qwen_edge.host.android import Command, Outcome

# The helper hangs where the Termux:API app is not installed.
TIMEOUT = 4.0
COMMAND = "termux-battery-status"
# Degrees Celsius that a battery may have; anything else is a faulty sensor.
_LOWEST, _HIGHEST = -40.0, 120.0


class Battery(NamedTuple):
    """One reading; None for what is not told, or cannot be.

    Attributes:
        temperature: degrees Celsius.
        level: how full it is, above 0 to 100.
        plugged: whether a charger is connected.
        source: ``termux-api`` or ``sysfs``.
    """

    temperature: float | None
    level: float | None
    plugged: bool | None
    source: str


def battery_temperature(place: Place | None = None) -> float | None:
    """Degrees Celsius, or None where there is no battery or it is not shown."""
    found = battery_status(place)
    return None if found is None else found.temperature


def battery_status(place: Place | None = None) -> Battery | None:
    """Reads the battery, or gives None where there is none or it is not shown.

    Asks Termux:API where that is installed, which takes up to some seconds, else /sys.
    """
    place = place or Place()
    found = answered(ask().outcome()) if is_termux(place) else None
    return found or read_sysfs(place)


def ask() -> Command:
    """Begins to ask Termux:API, if its command is there."""
    from qwen_edge.host.android import Command

    return Command(COMMAND, seconds=TIMEOUT)


def answered(outcome: Outcome) -> Battery | None:
    """The reading in what Termux:API said; None where that is of no use."""
    from qwen_edge.host.android import DONE

    if outcome.state != DONE:
        return None
    try:
        return _battery(json.loads(outcome.output))
    except (ValueError, RecursionError):
        return None


def _battery(status: object) -> Battery | None:
    """The reading in Termux's JSON; None where nothing of it is of use."""
    if not isinstance(status, dict):
        return None
    found = Battery(
        _within(status.get("temperature"), _LOWEST, _HIGHEST),
        _level(status.get("percentage")),
        _plugged(status.get("plugged")),
        "termux-api",
    )
    return None if found.temperature is None and found.level is None else found


def _plugged(word: object) -> bool | None:
    # PLUGGED_AC, PLUGGED_USB, PLUGGED_WIRELESS and whatever Android thinks of next.
    if not isinstance(word, str) or word == "UNPLUGGED":
        return False if word == "UNPLUGGED" else None
    return True if word.startswith("PLUGGED") else None


# Linux's words for what a battery does; it may neither charge nor discharge when it is full.
_STATUS = {"Charging": True, "Full": True, "Not charging": True, "Discharging": False}


def read_sysfs(place: Place) -> Battery | None:
    """Reads the first battery of the device itself in /sys; that of a mouse is none."""
    for folder in power_supplies(place):
        if _word(folder / "type") != "Battery" or _word(folder / "scope") == "Device":
            continue
        tenths = read_integer(folder / "temp")
        found = Battery(
            None if tenths is None else _within(tenths / 10, _LOWEST, _HIGHEST),
            _level(read_integer(folder / "capacity")),
            _STATUS.get(_word(folder / "status")),
            "sysfs",
        )
        if found.temperature is not None or found.level is not None:
            return found
    return None


def power_supplies(place: Place) -> list[Path]:
    """The folders of batteries and chargers in /sys; empty where there are none, or denied."""
    with contextlib.suppress(OSError):
        return sorted((place.sysfs / "class" / "power_supply").iterdir())
    return []


def _word(path: Path) -> str:
    return (read_text(path, 64) or "").strip()


def _level(value: object) -> float | None:
    # A device that runs on its battery has more than nothing: 0 stands for "not known".
    return _within(value, 0.0, 100.5)


def _within(value: object, low: float, high: float) -> float | None:
    # Compared before it is converted: an integer may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        return None
    return float(value)
