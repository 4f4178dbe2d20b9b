"""Recorded devices: a text file each in ``devices``, unpacked into a tree that the probes read.

A file consists of sections; a line ``== NAME`` starts each:

- ``== about``: for readers.
- ``== device``: ``platform``, ``machine``, ``allowed`` (core numbers, as the kernel writes lists),
  ``sold`` (gigabytes of the versions on sale, the recorded one first).
- ``== environ``: ``NAME=VALUE`` lines.
- ``== properties``: as getprop prints them.
- ``== expected``: JSON, what the probes must make of the device.
- ``== /proc/...`` or ``== /sys/...``: a file. ``for 0-5`` after the path repeats the section with
  ``{n}`` replaced by each number, in the path and in the text; sections of one path are joined.

A file that the device denies is absent. A new phone is a new file; no test changes.
"""

from __future__ import annotations

import json
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from qwen_edge.host.android_properties import parse_properties
from qwen_edge.host.place import Place, numbers_of

DEVICES = Path(__file__).parent / "devices"
# Deleted when the tests end.
_UNPACKED = tempfile.TemporaryDirectory(prefix="qwen-edge-devices-")


class Recorded(NamedTuple):
    """A recorded device; ``root`` is its unpacked tree, ``sold`` the gigabytes of its versions."""

    name: str
    root: Path
    place: Place
    sold: tuple[int, ...]
    expected: dict[str, Any]


def sections(text: str) -> list[tuple[str, str]]:
    """Headings with their bodies, in order."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("== "):
            found.append((line[3:].strip(), []))
        else:
            found[-1][1].append(line)
    return [(heading, "\n".join(lines).strip("\n") + "\n") for heading, lines in found]


def unpack(described: list[tuple[str, str]], root: Path) -> None:
    """Writes the files of a device."""
    files: dict[str, str] = {}
    for heading, body in described:
        path, _, ranges = heading.partition(" for ")
        if not path.startswith("/"):
            continue
        for number in numbers_of(ranges, 1024) if ranges else [0]:
            name = path.replace("{n}", str(number))
            before = files[name] + "\n" if name in files else ""
            files[name] = before + body.replace("{n}", str(number))
    for name, content in files.items():
        file = root / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def _scaled(body: str, share: float) -> str:
    """/proc/meminfo of the same device with another amount of RAM."""
    return re.sub("[0-9]+(?= kB)", lambda size: str(int(int(size.group()) * share)), body)


@cache
def recorded(name: str, gigabytes: int | None = None) -> Recorded:
    """Unpacks a device.

    Args:
        name: of its file.
        gigabytes: the version on sale, by default the recorded one. The others are derived from
            it: total, available and swapped memory in proportion.
    """
    described = sections((DEVICES / f"{name}.txt").read_text())
    root = Path(_UNPACKED.name) / f"{name}-{gigabytes}"
    if gigabytes is not None:
        share = gigabytes / recorded(name).sold[0]
        described = [(h, _scaled(b, share) if h == "/proc/meminfo" else b) for h, b in described]
    unpack(described, root)
    plain = dict(described)
    device = dict(line.split(": ") for line in plain["device"].splitlines())
    environ = dict(line.split("=", 1) for line in plain.get("environ", "").split())
    properties = parse_properties(plain.get("properties", ""))
    place = Place(
        proc=root / "proc",
        sysfs=root / "sys",
        environ=environ,
        platform=device["platform"],
        machine=device["machine"],
        allowed_cores=lambda: numbers_of(device["allowed"], 1024),
        properties=lambda: properties,
        fallbacks=False,
    )
    sold = tuple(int(size) for size in device.get("sold", "").split())
    return Recorded(name, root, place, sold, json.loads(plain["expected"]))


def recorded_names() -> list[str]:
    return sorted(file.stem for file in DEVICES.glob("*.txt"))
