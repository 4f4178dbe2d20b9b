"""Cores of the processor: how many may be used, and which of them are the fast ones."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from qwen_edge.host.core_parts import PARTS
from qwen_edge.host.place import Place, numbers_of, printable, read_integer, read_text

# The slowest kind of core counts as little when it is below these shares of the fastest. A
# Cortex-A55 beside an A75 often has nine tenths of its clock; the favoured cores of a PC processor
# differ from its others by a few percent only.
_LITTLE_CAPACITY = 0.6
_LITTLE_CLOCK = 0.92
# Cores beyond this number are not probed one by one.
_MOST_CORES = 1024
# Hundred GHz; a clock beyond that is garbage.
_MOST_KHZ = 100_000_000
# The kernel's scale ends at 1024.
_MOST_CAPACITY = 1024


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

    def numbers(self, *, big: bool) -> tuple[int, ...]:
        """The numbers of the big or the little cores, ascending."""
        kind = (cluster for cluster in self.clusters if cluster.big == big)
        return tuple(sorted(core for cluster in kind for core in cluster.cores))


def _parts(text: str) -> dict[int, tuple[int, int] | None]:
    """Core number -> (implementer, part), or None, of the cores that /proc/cpuinfo lists.

    Kernels of old name all cores first and then a single part, which says nothing of the others.
    """
    parts: dict[int, tuple[int, int] | None] = {}
    number: int | None = None
    implementer: int | None = None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        name, value = name.strip(), value.strip()
        try:
            # "Processor : AArch64 ..." with a capital is a heading of old Android kernels.
            if name == "processor":
                number, implementer = int(value), None
                if 0 <= number < _MOST_CORES:
                    parts[number] = None
            elif name == "CPU implementer":
                implementer = int(value, 16) & 0xFF
            elif name == "CPU part" and number in parts and implementer is not None:
                parts[number] = (implementer, int(value, 16) & 0xFFF)
        except ValueError:
            continue
    told = sum(part is not None for part in parts.values())
    return parts if told > 1 or len(parts) == 1 else dict.fromkeys(parts)


def _allowed(place: Place, listed: Collection[int]) -> list[int]:
    """Numbers of the cores this process may use, at least one.

    Asks the scheduler, and where that refuses /proc/self/status, then which cores are online, then
    which ones /proc/cpuinfo lists.
    """
    numbers: list[int] = []
    with contextlib.suppress(OSError):
        numbers = sorted({core for core in place.allowed_cores() if core >= 0})
    if not numbers:
        status = read_text(place.proc / "self" / "status") or ""
        match = re.search(r"^Cpus_allowed_list:(.*)$", status, re.MULTILINE)
        online = read_text(place.sysfs / "devices" / "system" / "cpu" / "online") or ""
        numbers = numbers_of(match.group(1) if match else "", _MOST_CORES)
        # The first may name cores that are not there.
        there = set(numbers_of(online, _MOST_CORES)) or set(listed)
        numbers = [core for core in numbers if core in there or not there] or sorted(there)
    return numbers[:_MOST_CORES] or [0]


def read_cores(place: Place | None = None) -> tuple[Core, ...]:
    """Probes each allowed core by its explicit path, since the directory cannot be listed.

    Returns:
        At least one core, ascending by number.
    """
    place = place or Place()
    parts = _parts(read_text(place.proc / "cpuinfo") or "")
    cpus = place.sysfs / "devices" / "system" / "cpu"
    cores = []
    for number in _allowed(place, parts):
        folder = cpus / f"cpu{number}"
        cores.append(
            Core(
                number,
                parts.get(number),
                _within(read_integer(folder / "cpufreq" / "cpuinfo_max_freq"), _MOST_KHZ),
                _within(read_integer(folder / "cpu_capacity"), _MOST_CAPACITY),
            )
        )
    return tuple(cores)


def _part_name(part: tuple[int, int] | None) -> str | None:
    known = PARTS.get(part) if part else None
    return known[0] if known else None


def _within(value: int | None, most: int) -> int | None:
    return value if value is not None and 0 < value <= most else None


def _little_by_part(cores: Iterable[Core]) -> set[Core] | None:
    """The in-order cores beside out-of-order ones; None if the parts do not tell."""
    little: set[Core] = set()
    big: set[Core] = set()
    for core in cores:
        known = PARTS.get(core.part) if core.part else None
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
    """Reads the allowed cores, grouped by kind."""
    return processor_of(read_cores(place))


def processor_of(cores: Iterable[Core]) -> Processor:
    """Groups cores by kind."""
    cores = tuple(cores)
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


def cores_seen(cores: Iterable[Core]) -> str:
    """The cores on a line, such as ``0,1=41.d05@1800000 2=41.d0a@2000000``: another line means
    other cores, or others of them allowed."""
    kinds: dict[str, list[int]] = {}
    for core in cores:
        part = "?" if core.part is None else f"{core.part[0]:x}.{core.part[1]:x}"
        kinds.setdefault(f"{part}@{core.max_khz or '?'}", []).append(core.number)
    return " ".join(f"{','.join(map(str, numbers))}={kind}" for kind, numbers in kinds.items())


def processor_name(place: Place | None = None) -> str | None:
    """The name that /proc/cpuinfo gives: of the board or the chip on Arm, the processor on x86.

    The board comes first: its Raspberry Pis all say that their chip is the first one's.
    """
    place = place or Place()
    text = read_text(place.proc / "cpuinfo") or ""
    for field in ("Model", "Hardware", "model name"):
        match = re.search(rf"^{field}[ \t]*:[ \t]*(\S.*)$", text, re.MULTILINE)
        if match:
            return printable(match.group(1).strip()) or None
    return None
