"""Recorded devices: a folder each, with parts of its /proc and /sys, and device.json.

device.json has what files cannot tell (``platform``, ``machine``, ``allowed_cores``, ``environ``,
``properties``) and ``expected``, what the probes must make of it. A file that the device denies is
absent. A new phone is a new folder; no test changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from qwen_edge.host.place import Place

FOLDER = Path(__file__).parent / "devices"


class Recorded(NamedTuple):
    name: str
    place: Place
    expected: dict[str, Any]


def recorded(name: str) -> Recorded:
    folder = FOLDER / name
    facts = json.loads((folder / "device.json").read_text())
    place = Place(
        proc=folder / "proc",
        sysfs=folder / "sys",
        environ=facts["environ"],
        platform=facts["platform"],
        machine=facts["machine"],
        allowed_cores=lambda: facts["allowed_cores"],
        properties=lambda: facts["properties"],
        fallbacks=False,
    )
    return Recorded(name, place, facts["expected"])


def recorded_names() -> list[str]:
    return sorted(folder.parent.name for folder in FOLDER.glob("*/device.json"))
