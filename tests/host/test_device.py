from __future__ import annotations

import mmap
import os
import random
import re
from pathlib import Path

import pytest

from qwen_edge.host.device import read_device
from qwen_edge.host.instruction_set import likely_kernels
from qwen_edge.host.memory_facts import device_memory, own_memory
from qwen_edge.host.place import Place, read_integer, read_kilobyte_fields, read_text
from qwen_edge.host.processor import Core, find_little, read_cores
from qwen_edge.native.instruction_sets import available_isas
from qwen_edge.session.profile import read_profile
from qwen_edge.session.select import tier_of
from tests.host.recorded import recorded, recorded_names


@pytest.mark.parametrize("name", recorded_names())
def test_recorded_device_is_understood(name: str) -> None:
    device = recorded(name)
    found = read_device(device.place)
    facts = {
        "total": found.memory.total,
        "available": found.memory.available,
        "swap_free": found.memory.swap_free,
        "cores": found.processor.cores,
        "big_cores": found.processor.big_cores,
        "little_cores": found.processor.little_cores,
        "clusters": [[c.name, c.big, list(c.cores)] for c in found.processor.clusters],
        "kernels": found.kernels,
        "threads": [found.processor.big_cores, found.processor.cores],
        "android": found.system.android,
        "termux": found.system.termux,
        "proot": found.system.proot,
        "android_version": found.system.android_version,
        "api_level": found.system.api_level,
        "device": found.system.device,
        "processor_name": found.processor_name,
        "tier": tier_of(read_profile(device.place).total_ram).name,
        "file_system": found.storage.type,
    }
    assert facts == device.expected


@pytest.mark.parametrize("name", recorded_names())
def test_recorded_tree_gives_a_profile_of_whole_numbers(name: str) -> None:
    profile = read_profile(recorded(name).place, isa="neon")
    assert profile.cores == profile.big_cores + profile.little_cores >= 1
    assert profile.total_ram >= profile.available_ram > 0
    assert profile.swap_free >= 0
    assert profile.isa == "neon"


@pytest.mark.parametrize("name", recorded_names())
def test_single_missing_or_garbled_file_never_raises(name: str, tmp_path: Path) -> None:
    device = recorded(name)
    files = [path for path in device.root.rglob("*") if path.is_file()]
    noise = random.Random(1)
    # Cores of one kind are alike.
    for victim in (path for path in files if not re.search("cpu[1-9]", str(path))):
        for content in (None, b"", noise.randbytes(300), b"processor: x\nMemTotal: -1 kB\n: :\n"):
            root = tmp_path / "copy"
            for path in files:
                copy = root / path.relative_to(device.root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                data = path.read_bytes() if path != victim else content
                copy.unlink(missing_ok=True)
                if data is not None:
                    copy.write_bytes(data)
            place = Place(
                proc=root / "proc",
                sysfs=root / "sys",
                environ=device.place.environ,
                platform=device.place.platform,
                allowed_cores=device.place.allowed_cores,
                properties=dict,
                fallbacks=False,
            )
            assert read_device(place).processor.cores == device.expected["cores"]


def denied() -> list[int]:
    raise PermissionError


def allowed_without_affinity(name: str) -> list[int]:
    device = recorded(name).place
    place = Place(proc=device.proc, sysfs=device.sysfs, allowed_cores=denied, fallbacks=False)
    return [core.number for core in read_cores(place)]


def test_affinity_that_fails_falls_back_to_listed_cores() -> None:
    assert allowed_without_affinity("redmi_note_9") == list(range(8))
    assert allowed_without_affinity("snapdragon_653") == list(range(8))
    # /proc/self/status allows cores that are offline, too.
    assert allowed_without_affinity("exynos_990_offline") == [0, 1, 2, 4, 5]
    assert allowed_without_affinity("everything_denied") == [0]


def test_features_that_one_core_lacks_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor: 0\nFeatures: fp asimd asimddp\n\nprocessor: 1\nFeatures: fp asimd\n"
    )
    place = Place(proc=tmp_path, machine="aarch64")
    assert likely_kernels(place) == "neon"
    assert likely_kernels(Place(proc=tmp_path, machine="armv7l")) == "scalar"
    assert likely_kernels(Place(proc=tmp_path / "none", machine="aarch64")) is None


def test_this_machine_runs_the_kernels_that_its_features_let_expect() -> None:
    expected = likely_kernels()
    assert expected is None or expected in available_isas()


def test_cpuset_narrows_the_cores() -> None:
    phone = recorded("redmi_note_9").place
    place = Place(proc=phone.proc, sysfs=phone.sysfs, allowed_cores=lambda: [0, 1, 7])
    cores = read_cores(place)
    assert [core.number for core in cores] == [0, 1, 7]
    assert [core.number for core in cores if core not in find_little(cores)] == [7]


def cores(*measures: tuple[int | None, int | None]) -> list[Core]:
    return [Core(i, None, khz, capacity) for i, (khz, capacity) in enumerate(measures)]


def test_little_cores_by_clock_spare_the_middle_cluster() -> None:
    found = cores((1_800_000, None), (1_800_000, None), (2_400_000, None), (2_840_000, None))
    assert {core.number for core in find_little(found)} == {0, 1}


def test_favoured_cores_of_a_pc_do_not_make_the_others_little() -> None:
    assert find_little(cores((5_000_000, None), (5_000_000, None), (5_200_000, None))) == set()


def test_capacity_overrules_the_clock() -> None:
    found = cores((1_900_000, 300), (2_000_000, 1024))
    assert {core.number for core in find_little(found)} == {0}
    assert find_little(cores((1_000_000, 1024), (2_000_000, 1024))) != set()


def test_cores_without_measures_are_all_big() -> None:
    assert find_little(cores((None, None), (None, None))) == set()
    assert find_little(cores((1_000_000, None), (None, None))) == set()


def test_this_machine_is_read() -> None:
    found = read_device()
    assert found.processor.cores == len(os.sched_getaffinity(0))
    assert found.memory.total is not None
    assert found.memory.available is not None
    assert 0 < found.memory.available <= found.memory.total


def test_memory_without_proc_comes_from_the_system(tmp_path: Path) -> None:
    found = device_memory(Place(proc=tmp_path))
    real = device_memory()
    assert found.total is not None
    assert real.total is not None
    assert abs(found.total - real.total) <= real.total // 50
    assert device_memory(Place(proc=tmp_path, fallbacks=False)).total is None


def test_own_memory_of_this_process() -> None:
    before = own_memory()
    # Pages of its own: the heap may have as many to spare.
    with mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(b"x" * (16 << 20))
        after = own_memory()
    assert before.anonymous is not None
    assert after.anonymous is not None
    assert after.anonymous - before.anonymous > 12 << 20
    assert after.virtual is not None
    assert after.peak is not None
    assert min(after.virtual, after.peak) > after.anonymous
    assert own_memory(Path("/nonexistent")) == (None, None, None, None)


def test_reading_helpers(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("12\n")
    assert read_integer(file) == 12
    file.write_text("twelve")
    assert read_integer(file) is None
    assert read_integer(tmp_path) is None
    file.write_bytes(b"A: 1 kB\nB: 2\nC: 3 kB extra\nD: -4 kB\n\xff\xfe: 5 kB\n")
    assert read_kilobyte_fields(file) == {"A": 1024, "\ufffd\ufffd": 5120}
    assert read_text(file, 4) == "A: 1"
