"""Recorded courses of a phone's sensors, and the governor's way through them.

The columns of each CSV file: seconds; the battery's degrees Celsius, percent, and whether it is
plugged in; MemAvailable without the own weights, in MB; seconds a decode call; positions in the
cache; cores that this process kept busy. An empty cell is what no sensor tells.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from qwen_edge.session.governor import Capacity, Governor, Readings, Steps
from qwen_edge.session.pace import Pace

# Seconds between two looks, and between two questions to the battery.
LOOK, BATTERY = 2.0, 30.0
# Qwen3-0.6B: bytes of the weights, and of a position of an INT8 cache.
WEIGHTS, POSITION = 335_000_000, 58_240
# A phone with two big cores and six little ones, such as the Redmi Note 9.
PHONE = Capacity(
    threads=2, most_threads=8, little=6, placeable=True, reserve=118_000_000, mapped=WEIGHTS
)


class Row(NamedTuple):
    """One line of a trace."""

    time: float
    temperature: float | None
    level: float | None
    plugged: bool | None
    available: int | None
    seconds: float | None
    depth: int
    cores: float


class Moment(NamedTuple):
    """What the governor made of a look: when, what was to be done then, and what it told."""

    time: float
    steps: Steps
    told: tuple[str, ...]


def read(name: str) -> list[Row]:
    """Reads a trace."""
    path = Path(__file__).parent / f"{name}.csv"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return [_row(cells) for cells in csv.DictReader(lines)]


def _row(cells: dict[str, str]) -> Row:
    def number(name: str) -> float | None:
        return float(cells[name]) if cells[name] else None

    plugged, available = number("plugged"), number("available")
    return Row(
        float(cells["time"]),
        number("temperature"),
        number("level"),
        None if plugged is None else bool(plugged),
        None if available is None else int(available * 1e6),
        number("seconds"),
        int(cells["depth"]),
        float(cells["cores"]),
    )


def simulate(rows: list[Row], mode: str = "auto", capacity: Capacity = PHONE) -> Iterator[Moment]:
    """Lets a governor look at a trace every two seconds, with a battery asked every thirty.

    A pause computes nothing, and after a stop nothing goes on.
    """
    governor, pace = Governor(mode, capacity), Pace(WEIGHTS, POSITION)
    now, processor, place = rows[0].time, 0.0, 0
    battery: tuple[Row, float] | None = None
    while now <= rows[-1].time and governor.steps.stop is None:
        while place + 1 < len(rows) and rows[place + 1].time <= now:
            place += 1
        row = rows[place]
        if battery is None or now - battery[1] >= BATTERY:
            battery = (row, now)
        if row.seconds and not governor.steps.paused:
            for _ in range(int(LOOK / row.seconds)):
                pace.call(row.seconds)
            processor += LOOK * row.cores
        elif governor.steps.paused:
            pace.interrupt()
        known = battery[0]
        told = governor.observe(
            Readings(
                time=now,
                temperature=known.temperature,
                level=known.level,
                plugged=known.plugged,
                battery_time=battery[1],
                available=row.available,
                slowdown=pace.look(
                    now, processor, row.depth, (governor.steps.threads, governor.steps.little)
                ),
            )
        )
        yield Moment(now, governor.steps, tuple(map(str, told)))
        now += LOOK
