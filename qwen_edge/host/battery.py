"""The battery: its temperature, the only one a phone shows to an app, its level and its charger."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

from qwen_edge.host.limits import uncapped_children
from qwen_edge.host.place import Place, read_integer, read_text
from qwen_edge.host.system import is_termux

# The helper hangs where the Termux:API app is not installed.
TIMEOUT = 4.0
COMMAND = "termux-battery-status"
# Bytes of an answer; it has some 200.
_MOST = 1 << 16
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


class HelperHungError(Exception):
    """Termux's command did not answer in time."""


class Child:
    """A place for one child at a time, which another thread can end for good."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def start(self, command: list[str]) -> subprocess.Popen[bytes] | None:
        """Starts a command with a group of its own; None after ``end``.

        Raises:
            OSError: it cannot be started.
        """
        with self._lock, uncapped_children():
            if not self._ended:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            return None if self._ended else self._process

    def kill(self) -> None:
        """Kills the child with all that it started."""
        with self._lock:
            self._kill()

    def end(self) -> None:
        """Likewise, and lets no other one start."""
        with self._lock:
            self._ended = True
            self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # Its own children may outlive it, so the group is killed even where it has ended.
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)


def battery_temperature(place: Place | None = None) -> float | None:
    """Degrees Celsius, or None where there is no battery or it is not shown."""
    found = battery_status(place)
    return None if found is None else found.temperature


def battery_status(place: Place | None = None) -> Battery | None:
    """Reads the battery, or gives None where there is none or it is not shown.

    Asks Termux:API where that is installed, which takes up to some seconds, else /sys.
    """
    place = place or Place()
    found = None
    with contextlib.suppress(HelperHungError):
        found = ask_termux(place)
    return found or read_sysfs(place)


def ask_termux(place: Place, child: Child | None = None) -> Battery | None:
    """Asks Termux:API; None where this is not Termux, or the answer is of no use.

    Args:
        place: the device.
        child: the process of the command can be ended there.

    Raises:
        HelperHungError: there was no answer within ``TIMEOUT`` seconds.
    """
    program = shutil.which(COMMAND) if is_termux(place) else None
    if program is None:
        return None
    try:
        return _battery(json.loads(_output([program], child or Child())))
    except (OSError, ValueError, RecursionError):
        return None


def _output(command: list[str], child: Child) -> bytes:
    """What a command writes, at most ``_MOST`` bytes; nothing of it goes on running."""
    limiter = shutil.which("timeout")
    if limiter is not None:
        # Where this very program is killed meanwhile, nobody else would end a command that hangs.
        command = [limiter, "-s", "KILL", str(int(TIMEOUT) + 1), *command]
    end = time.monotonic() + TIMEOUT
    process = child.start(command)
    if process is None or process.stdout is None:
        return b""
    try:
        with process.stdout as stream:
            return _read(stream.fileno(), end)
    finally:
        child.kill()


def _read(descriptor: int, end: float) -> bytes:
    import select

    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN | select.POLLHUP)
    content = bytearray()
    while len(content) < _MOST:
        left = end - time.monotonic()
        if left <= 0 or not waiting.poll(left * 1000):
            raise HelperHungError
        part = os.read(descriptor, _MOST - len(content))
        if not part:
            break
        content += part
    return bytes(content)


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
