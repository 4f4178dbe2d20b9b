"""Cores of the processor: how many may be used, and which of them are the fast ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from qwen_edge.host.place import Place, read_integer, read_text

# (implementer, part) as /proc/cpuinfo gives them -> name, and whether it is a small in-order core.
# Source: the MIDR lists of Linux (arch/arm64/include/asm/cputype.h) and of util-linux's lscpu.
_PARTS: Mapping[tuple[int, int], tuple[str, bool]] = {
    (0x41, 0xC07): ("Cortex-A7", True),
    (0x41, 0xD01): ("Cortex-A32", True),
    (0x41, 0xD02): ("Cortex-A34", True),
    (0x41, 0xD03): ("Cortex-A53", True),
    (0x41, 0xD04): ("Cortex-A35", True),
    (0x41, 0xD05): ("Cortex-A55", True),
    (0x41, 0xD46): ("Cortex-A510", True),
    (0x41, 0xD80): ("Cortex-A520", True),
    (0x41, 0xD8F): ("Cortex-A320", True),
    (0x41, 0xD07): ("Cortex-A57", False),
    (0x41, 0xD08): ("Cortex-A72", False),
    (0x41, 0xD09): ("Cortex-A73", False),
    (0x41, 0xD0A): ("Cortex-A75", False),
    (0x41, 0xD0B): ("Cortex-A76", False),
    (0x41, 0xD0D): ("Cortex-A77", False),
    (0x41, 0xD0C): ("Neoverse-N1", False),
    (0x41, 0xD40): ("Neoverse-V1", False),
    (0x41, 0xD41): ("Cortex-A78", False),
    (0x41, 0xD44): ("Cortex-X1", False),
    (0x41, 0xD47): ("Cortex-A710", False),
    (0x41, 0xD48): ("Cortex-X2", False),
    (0x41, 0xD49): ("Neoverse-N2", False),
    (0x41, 0xD4B): ("Cortex-A78C", False),
    (0x41, 0xD4D): ("Cortex-A715", False),
    (0x41, 0xD4E): ("Cortex-X3", False),
    (0x41, 0xD4F): ("Neoverse-V2", False),
    (0x41, 0xD81): ("Cortex-A720", False),
    (0x41, 0xD82): ("Cortex-X4", False),
    (0x41, 0xD85): ("Cortex-X925", False),
    (0x41, 0xD87): ("Cortex-A725", False),
    (0x51, 0x001): ("Oryon", False),
    (0x51, 0x201): ("Kryo silver", True),
    (0x51, 0x205): ("Kryo gold", False),
    (0x51, 0x211): ("Kryo gold", False),
    (0x51, 0x800): ("Kryo 260/280 gold", False),
    (0x51, 0x801): ("Kryo 260/280 silver", True),
    (0x51, 0x802): ("Kryo 385 gold", False),
    (0x51, 0x803): ("Kryo 385 silver", True),
    (0x51, 0x804): ("Kryo 485 gold", False),
    (0x51, 0x805): ("Kryo 485 silver", True),
}
# The slowest kind of core counts as little when it is below these shares of the fastest. A
# Cortex-A55 beside an A75 often has nine tenths of its clock; the favoured cores of a PC processor
# differ from its others by a few percent only.
_LITTLE_CAPACITY = 0.6
_LITTLE_CLOCK = 0.92
# Cores beyond this number are not probed one by one.
_MOST_CORES = 1024


class Core(NamedTuple):
    """One core that this process may run on.

    Attributes:
        number: as the kernel counts them.
        part: implementer and part number, or None (x86, or denied).
        max_khz: highest clock, or None.
        capacity: the kernel's relative speed, 1024 for the fastest, or None.
    """

    number: int
    part: tuple[int, int] | None
    max_khz: int | None
    capacity: int | None


class Cluster(NamedTuple):
    """Cores of one kind.

    Attributes:
        cores: their numbers, ascending.
        big: whether decoding should use them.
        name: for people, ``Cortex-A75`` say; None if unknown.
        max_khz: highest clock, or None.
    """

    cores: tuple[int, ...]
    big: bool
    name: str | None
    max_khz: int | None


class Processor(NamedTuple):
    """The cores this process may use, fastest cluster first."""

    clusters: tuple[Cluster, ...]

    @property
    def cores(self) -> int:
        return sum(len(cluster.cores) for cluster in self.clusters)

    @property
    def big_cores(self) -> int:
        return sum(len(cluster.cores) for cluster in self.clusters if cluster.big)

    @property
    def little_cores(self) -> int:
        return self.cores - self.big_cores


def _parts(text: str) -> dict[int, tuple[int, int]]:
    """Core number -> (implementer, part) of the cores that /proc/cpuinfo lists."""
    parts: dict[int, tuple[int, int]] = {}
    number: int | None = None
    implementer: int | None = None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        name, value = name.strip(), value.strip()
        try:
            # "Processor : AArch64 ..." with a capital is a heading of old Android kernels.
            if name == "processor":
                number, implementer = int(value), None
            elif name == "CPU implementer":
                implementer = int(value, 16)
            elif name == "CPU part" and number is not None and implementer is not None:
                parts[number] = (implementer, int(value, 16))
        except ValueError:
            continue
    return parts


def read_cores(place: Place | None = None) -> tuple[Core, ...]:
    """Probes each allowed core by its explicit path, since the directory cannot be listed.

    Returns:
        At least one core, ascending by number.
    """
    place = place or Place()
    parts = _parts(read_text(place.proc / "cpuinfo") or "")
    try:
        numbers = sorted({core for core in place.allowed_cores() if core >= 0})
    except OSError:
        numbers = sorted(parts)
    cpus = place.sysfs / "devices" / "system" / "cpu"
    cores = []
    for number in numbers[:_MOST_CORES] or [0]:
        folder = cpus / f"cpu{number}"
        cores.append(
            Core(
                number,
                parts.get(number),
                _positive(read_integer(folder / "cpufreq" / "cpuinfo_max_freq")),
                _positive(read_integer(folder / "cpu_capacity")),
            )
        )
    return tuple(cores)


def _part_name(part: tuple[int, int] | None) -> str | None:
    known = _PARTS.get(part) if part else None
    return known[0] if known else None


def _positive(value: int | None) -> int | None:
    return value if value is not None and value > 0 else None


def _little_by_part(cores: Iterable[Core]) -> set[Core] | None:
    """The in-order cores beside out-of-order ones; None if the parts do not tell."""
    little: set[Core] = set()
    big: set[Core] = set()
    for core in cores:
        known = _PARTS.get(core.part) if core.part else None
        if known is None:
            return None
        (little if known[1] else big).add(core)
    return little if little and big else None


def _little_by_measure(measures: Mapping[Core, int | None], share: float) -> set[Core] | None:
    """The cores of the lowest measure if it is below ``share`` of the highest; None if unknown."""
    values = [value for value in measures.values() if value is not None]
    if len(values) != len(measures) or not values:
        return None
    lowest = min(values)
    if lowest >= share * max(values):
        return None
    return {core for core, value in measures.items() if value == lowest}


def find_little(cores: Iterable[Core]) -> set[Core]:
    """Tells the slow cores: by part numbers, else by the kernel's capacities, else by clocks.

    Part numbers come first, because clocks lie: an A55 at 1.8 GHz has a third of the speed of an
    A75 at 2.0 GHz.
    """
    cores = tuple(cores)
    found = _little_by_part(cores)
    if found is None:
        found = _little_by_measure({core: core.capacity for core in cores}, _LITTLE_CAPACITY)
    if found is None:
        found = _little_by_measure({core: core.max_khz for core in cores}, _LITTLE_CLOCK)
    return found or set()


def read_processor(place: Place | None = None) -> Processor:
    """Groups the allowed cores by kind."""
    cores = read_cores(place)
    little = find_little(cores)
    groups: dict[tuple[object, ...], list[Core]] = {}
    for core in cores:
        key = (core not in little, core.part, core.max_khz, core.capacity)
        groups.setdefault(key, []).append(core)
    clusters = [
        Cluster(
            tuple(core.number for core in group),
            group[0] not in little,
            _part_name(group[0].part),
            group[0].max_khz,
        )
        for group in groups.values()
    ]
    clusters.sort(key=lambda cluster: (not cluster.big, -(cluster.max_khz or 0), cluster.cores))
    return Processor(tuple(clusters))


def processor_name(place: Place | None = None) -> str | None:
    """The model name that /proc/cpuinfo gives: the chip on Arm, the processor on x86."""
    place = place or Place()
    text = read_text(place.proc / "cpuinfo") or ""
    for field in ("Hardware", "model name", "Model"):
        match = re.search(rf"^{field}\s*:\s*(.+)$", text, re.MULTILINE)
        if match:
            return match.group(1).strip()
    return None
