"""The facts about a device that decide its configuration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from qwen_edge.errors import UsageError
from qwen_edge.host.memory_facts import device_memory
from qwen_edge.host.memory_limits import address_space_left
from qwen_edge.host.place import Place
from qwen_edge.host.processor import cores_seen, processor_of, read_cores
from qwen_edge.host.system import is_android

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class DeviceProfile:
    """The facts about a device that decide its configuration. Sizes in bytes.

    ``big`` and ``little`` are the numbers of the cores of each kind; ``cores_seen`` is what tells
    these cores from those of another device.
    """

    total_ram: int
    available_ram: int
    swap_free: int
    cores: int
    big_cores: int
    little_cores: int
    isa: str
    android: bool
    big: tuple[int, ...] = ()
    little: tuple[int, ...] = ()
    cores_seen: str = ""


def read_profile(place: Place | None = None, isa: str = "") -> DeviceProfile:
    """Reads the profile of this device; takes about a millisecond.

    Where memory is hidden, a device of 2 GiB with half of it available is assumed.
    """
    place = place or Place()
    memory, cores = device_memory(place), read_cores(place)
    processor = processor_of(cores)
    total = memory.total or 2 * (memory.available or GIB)
    available = memory.available if memory.available is not None else total // 2
    room = address_space_left(place)
    if room is not None:
        available = min(available, room)
    return DeviceProfile(
        total_ram=total,
        available_ram=available,
        swap_free=memory.swap_free or 0,
        cores=processor.cores,
        big_cores=processor.big_cores,
        little_cores=processor.little_cores,
        isa=isa,
        android=is_android(place),
        big=processor.numbers(big=True),
        little=processor.numbers(big=False),
        cores_seen=cores_seen(cores),
    )


def within(profile: DeviceProfile, cpus: Collection[int]) -> DeviceProfile:
    """The device as if it had these cores alone; those it has not are left out.

    Raises:
        UsageError: it has none of them.
    """
    big = tuple(core for core in profile.big if core in cpus)
    little = tuple(core for core in profile.little if core in cpus)
    if not big and not little:
        raise UsageError(
            "None of the cores {cpus} may be used; {allowed} may.",
            cpus=core_list(cpus),
            allowed=core_list([*profile.big, *profile.little]) or "?",
        )
    return replace(
        profile,
        cores=len(big) + len(little),
        # Without any big one the little ones are what there is.
        big_cores=len(big or little),
        little_cores=len(little) if big else 0,
        big=big or little,
        little=little if big else (),
    )


def core_list(cpus: Collection[int]) -> str:
    """Numbers of cores as people and kernels write them, ``0-3,6`` say."""
    runs: list[list[int]] = []
    for core in sorted(cpus):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def reserve_for(profile: DeviceProfile) -> int:
    """Bytes of available memory to leave to the system.

    1/32 of the RAM, from 64 to 256 MiB. Half as much again on an Android device that has hardly any
    swap left, where the low-memory killer strikes earlier.
    """
    reserve = min(max(profile.total_ram // 32, 64 * MIB), 256 * MIB)
    if profile.android and profile.swap_free < profile.total_ram // 32:
        reserve += reserve // 2
    return reserve
