"""The facts about a device that decide its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_edge.host.memory_facts import device_memory
from qwen_edge.host.place import Place
from qwen_edge.host.processor import read_processor
from qwen_edge.host.system import is_android

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class DeviceProfile:
    """The facts about a device that decide its configuration. Sizes in bytes."""

    total_ram: int
    available_ram: int
    swap_free: int
    cores: int
    big_cores: int
    little_cores: int
    isa: str
    android: bool


def read_profile(place: Place | None = None, isa: str = "") -> DeviceProfile:
    """Reads the profile of this device; takes about a millisecond.

    Where memory is hidden, a device of 2 GiB with half of it available is assumed.
    """
    place = place or Place()
    memory, processor = device_memory(place), read_processor(place)
    total = memory.total or 2 * (memory.available or GIB)
    available = memory.available if memory.available is not None else total // 2
    return DeviceProfile(
        total_ram=total,
        available_ram=available,
        swap_free=memory.swap_free or 0,
        cores=processor.cores,
        big_cores=processor.big_cores,
        little_cores=processor.little_cores,
        isa=isa,
        android=is_android(place),
    )


def reserve_for(profile: DeviceProfile) -> int:
    """Bytes of available memory to leave to the system.

    1/32 of the RAM, from 64 to 256 MiB. Half as much again on an Android device that has hardly any
    swap left, where the low-memory killer strikes earlier.
    """
    reserve = min(max(profile.total_ram // 32, 64 * MIB), 256 * MIB)
    if profile.android and profile.swap_free < profile.total_ram // 32:
        reserve += reserve // 2
    return reserve
