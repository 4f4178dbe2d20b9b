"""Everything there is to know about the device, in one record."""

from __future__ import annotations

from typing import NamedTuple

from qwen_edge.host.memory_facts import DeviceMemory, device_memory
from qwen_edge.host.place import Place
from qwen_edge.host.processor import Processor, processor_name, read_processor
from qwen_edge.host.system import System, read_system


class Device(NamedTuple):
    """The device as far as it lets itself be known.

    Attributes:
        memory: RAM and swap.
        processor: the cores this process may use.
        processor_name: chip or processor, for people.
        machine: processor family, ``aarch64`` say.
        system: the operating system.
    """

    memory: DeviceMemory
    processor: Processor
    processor_name: str | None
    machine: str
    system: System


def read_device(place: Place | None = None) -> Device:
    """Probes all there is; what is denied is None, and nothing raises."""
    place = place or Place()
    system = read_system(place)
    return Device(
        memory=device_memory(place),
        processor=read_processor(place),
        processor_name=system.chip or processor_name(place),
        machine=place.machine,
        system=system,
    )
