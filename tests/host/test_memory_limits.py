"""Limits on this process's memory that are narrower than the device."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_edge.host.memory_facts import device_memory
from qwen_edge.host.memory_limits import MemoryLimit, address_space_left, memory_limit
from qwen_edge.host.place import Place
from qwen_edge.session.profile import read_profile
from tests.cli.program import ROOT

MIB = 1 << 20
NO_LIMIT = 9223372036854771712


def group(folder: Path, limit: object, usage: int, cached: int, second: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("max", "current") if second else ("limit_in_bytes", "usage_in_bytes")
    for name, value in zip(names, (limit, usage), strict=True):
        (folder / f"memory.{name}").write_text(f"{value}\n")
    prefix = "" if second else "total_"
    halves = (cached // 2, cached - cached // 2)
    stat = f"{prefix}inactive_file {halves[0]}\n{prefix}active_file {halves[1]}\nanon 5\n"
    (folder / "memory.stat").write_text("active_file 1\n" * (not second) + stat)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 4000000 kB\nMemAvailable: 2000000 kB\n")
    (proc / "self" / "status").write_text(f"VmSize: {300 * 1024} kB\n")
    return Place(proc=proc, sysfs=tmp_path / "sys", fallbacks=False)


def test_without_limits_there_is_none(place: Place) -> None:
    assert memory_limit(place) == MemoryLimit(None, None)
    assert device_memory(place)[:2] == (4_000_000 * 1024, 2_000_000 * 1024)


@pytest.mark.parametrize("second", [False, True], ids=["version 1", "version 2"])
def test_the_narrowest_of_nested_groups_counts(place: Place, second: bool) -> None:
    name = "0::/apps/one" if second else "12:cpu:/other\n4:memory,hugetlb:/apps/one"
    (place.proc / "self" / "cgroup").write_text(name + "\n")
    mount = place.sysfs / "fs" / "cgroup" / ("" if second else "memory")
    group(mount / "apps" / "one", "max" if second else NO_LIMIT, 100 * MIB, 0, second)
    group(mount / "apps", 700 * MIB, 500 * MIB, 335 * MIB, second)
    group(mount, 900 * MIB, 850 * MIB, 100 * MIB, second)
    assert memory_limit(place) == MemoryLimit(700 * MIB, 150 * MIB)
    assert device_memory(place)[:2] == (700 * MIB, 150 * MIB)


@pytest.mark.parametrize("name", ["/docker/0123", "/../../outside", "/"])
def test_in_a_container_the_group_is_the_mount(place: Place, name: str) -> None:
    (place.proc / "self" / "cgroup").write_text(f"4:memory:{name}\n")
    group(place.sysfs / "fs" / "cgroup" / "memory", 512 * MIB, 12 * MIB, 0, False)
    assert memory_limit(place) == MemoryLimit(512 * MIB, 500 * MIB)


def test_the_second_version_beside_the_first(place: Place) -> None:
    (place.proc / "self" / "cgroup").write_text("4:memory:/\n0::/one\n")
    group(place.sysfs / "fs" / "cgroup" / "unified" / "one", 300 * MIB, 400 * MIB, 0, True)
    assert memory_limit(place) == MemoryLimit(300 * MIB, 0)


@pytest.mark.parametrize(
    "text", ["", "4:memory", "4:memory:/a\0b", "::::", "0::" + "/x" * 1000, "\x00\xff"]
)
def test_strange_groups_are_no_limits(place: Place, text: str) -> None:
    (place.proc / "self" / "cgroup").write_text(text)
    group(place.sysfs / "fs" / "cgroup" / "memory", "none", 0, 0, False)
    assert memory_limit(place) == MemoryLimit(None, None)


@pytest.mark.parametrize(
    ("soft", "left"), [(700 * MIB, 400 * MIB), (100 * MIB, 0), ("unlimited", None), ("", None)]
)
def test_address_space(place: Place, soft: object, left: int | None) -> None:
    line = f"Max address space         {soft}            unlimited            bytes"
    text = f"Max cpu time  1 2 seconds\n{line if soft else 'Max address space'}\n"
    (place.proc / "self" / "limits").write_text(text)
    assert address_space_left(place) == left
    everything = 2_000_000 * 1024
    assert read_profile(place).available_ram == (everything if left is None else left)
    # What the whole device has available is another matter: the program limits itself.
    assert device_memory(place).available == everything


def test_what_ulimit_leaves_is_what_is_available() -> None:
    limit = 600 * MIB
    code = (
        "from qwen_edge.session.profile import read_profile\n"
        "print(read_profile().total_ram, read_profile().available_ram)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        check=True,
    )
    total, available = map(int, done.stdout.split())
    assert available < min(limit, total)
