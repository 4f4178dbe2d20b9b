"""What the machine can do at most, and its facts for the report."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from pathlib import Path
from statistics import mean

from qwen_edge.engine.bandwidth import read_bandwidth

SOURCE = Path(__file__).with_name("peak.cpp")
BUFFER_BYTES = 1 << 29
COMPILER = os.environ.get("CXX", "g++")
# Those that the kernels choose by.
FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "asimddp", "i8mm")


class Machine:
    """Measures what the machine can do at most.

    Args:
        folder: where the compiled measurement of the peak goes.
    """

    def __init__(self, folder: Path) -> None:
        library = folder / "peak.so"
        command = [COMPILER, "-O2", "-std=c++17", "-pthread", "-shared", "-fPIC"]
        subprocess.run([*command, "-o", str(library), str(SOURCE)], check=True)
        self._peak = ctypes.CDLL(str(library)).peak
        self._peak.restype = ctypes.c_double

    def bandwidth(self, threads: int) -> float:
        """Bytes a second that the threads together read from memory."""
        return read_bandwidth(BUFFER_BYTES, threads)

    def peak(self, threads: int) -> float:
        """INT8 multiply-adds a second (VPDPBUSD, or its AVX2 stand-in) of the threads."""
        return float(self._peak(threads))


def _cpuinfo() -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    return facts


def machine_facts() -> dict[str, object]:
    """What the figures depend on: processor, cores, memory, compiler, kernel. No names of hosts."""
    cpu = _cpuinfo()
    present = cpu.get("flags", cpu.get("Features", "")).split()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    version = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True)
    return {
        "processor": cpu.get("model name", platform.machine()),
        "family_model": f"{cpu.get('cpu family', '?')}/{cpu.get('model', '?')}",
        "flags": [flag for flag in FLAGS if flag in present],
        "cores": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in present,
        "memory_gib": round(pages / 2**30, 1),
        "compiler": version.stdout.splitlines()[0],
        "kernel": platform.release(),
    }


def around(before: float, after: float) -> float:
    """The bandwidth to hold a measurement against: the mean of those on either side."""
    return mean((before, after))
