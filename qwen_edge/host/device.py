"""Everything there is to know about the device, in one record."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from qwen_edge.host.instruction_set import likely_kernels
from qwen_edge.host.memory_facts import DeviceMemory, device_memory
from qwen_edge.host.paths import models_folder
from qwen_edge.host.place import Place
from qwen_edge.host.processor import (
    Core,
    Processor,
    processor_name,
    processor_of,
    read_cores,
)
from qwen_edge.host.storage import Storage, storage_of
from qwen_edge.host.system import System, read_system


class Device(NamedTuple):
    """The device as far as it lets itself be known.

    Attributes:
        memory: RAM and swap.
        cores: the cores this process may use, with part number and highest clock.
        processor: the same grouped into clusters.
        processor_name: chip, board or processor, for people.
        machine: processor family, ``aarch64`` say.
        kernels: name of the fastest kernels that /proc/cpuinfo lets expect, or None.
        system: the operating system.
        storage: the file system of downloaded models, or of the path that was asked for.
    """

    memory: DeviceMemory
    cores: tuple[Core, ...]
    processor: Processor
    processor_name: str | None
    machine: str
    kernels: str | None
    system: System
    storage: Storage


def read_device(place: Place | None = None, path: Path | None = None) -> Device:
    """Probes all there is; what is denied is None, and nothing raises.

    Args:
        place: where to look.
        path: of a model; it need not exist. By default the folder of downloaded models.
    """
    place = place or Place()
    system = read_system(place)
    cores = read_cores(place)
    if path is None:
        try:
            path = models_folder(place.environ)
        except (OSError, RuntimeError):  # no home, or a working folder that was deleted
            path = Path("/")
    return Device(
        memory=device_memory(place),
        cores=cores,
        processor=processor_of(cores),
        processor_name=system.chip or processor_name(place),
        machine=place.machine,
        kernels=likely_kernels(place),
        system=system,
        storage=storage_of(path, place),
    )
