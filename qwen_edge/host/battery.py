"""The battery's temperature, the only one a phone shows to an app."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

from qwen_edge.host.limits import uncapped_children
from qwen_edge.host.place import Place, read_integer, read_text
from qwen_edge.host.system import is_termux

# The helper hangs where the Termux:API app is not installed.
TIMEOUT = 4.0
_COMMAND = "termux-battery-status"
# Degrees Celsius that a battery may have; anything else is a faulty sensor.
_LOWEST, _HIGHEST = -40.0, 120.0


def battery_temperature(place: Place | None = None) -> float | None:
    """Degrees Celsius, or None where there is no battery or it is not shown.

    Asks Termux:API where that is installed, which takes up to some seconds, else /sys.
    """
    place = place or Place()
    found = _from_termux() if is_termux(place) else None
    return found if found is not None else _from_sysfs(place)


def _from_termux() -> float | None:
    program = shutil.which(_COMMAND)
    if program is None:
        return None
    try:
        with uncapped_children():
            done = subprocess.run(
                [program], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
                check=False,
            )  # fmt: skip
        value = json.loads(done.stdout)["temperature"]
    except (
        OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError, RecursionError
    ):  # fmt: skip
        return None
    return _plausible(value)


def _from_sysfs(place: Place) -> float | None:
    """Tenths of a degree in the folder of the first battery."""
    folders: list[Path] = []
    with contextlib.suppress(OSError):
        folders = sorted((place.sysfs / "class" / "power_supply").iterdir())
    for folder in folders:
        tenths = read_integer(folder / "temp")
        if tenths is not None and (read_text(folder / "type") or "").strip() == "Battery":
            return _plausible(tenths / 10)
    return None


def _plausible(value: object) -> float | None:
    # Compared before it is converted: an integer may be too large for a float.
    return float(value) if isinstance(value, int | float) and _LOWEST < value < _HIGHEST else None
