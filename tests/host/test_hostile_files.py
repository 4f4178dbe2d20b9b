"""Probes of devices whose files, variables and properties hold anything at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_edge.host.battery import battery_temperature
from qwen_edge.host.device import read_device
from qwen_edge.host.memory_facts import own_memory
from qwen_edge.host.place import Place, numbers_of
from qwen_edge.host.storage import storage_of
from qwen_edge.session.profile import read_profile

CPU = "sys/devices/system/cpu"
FILES = (
    "proc/cpuinfo", "proc/meminfo", "proc/version", "proc/self/status", "proc/self/mountinfo",
    "proc/sys/kernel/osrelease", f"{CPU}/online", f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq",
    f"{CPU}/cpu1/cpu_capacity", "sys/class/power_supply/battery/temp",
    "sys/class/power_supply/battery/type",
)  # fmt: skip
# Lines of the real files with values that are not.
FIELDS = (
    "processor", "CPU implementer", "CPU part", "Features", "flags", "model name", "Model",
    "Hardware", "MemTotal", "MemAvailable", "MemFree", "SwapFree", "RssAnon", "VmSize",
    "Cpus_allowed_list", "TracerPid",
)  # fmt: skip
VALUES = (
    "", "0", "1", "7", "-1", "0x41", "0xd05", "0x" + "f" * 5000, "asimd asimddp", "0-3",
    "0-99999999999", "9" * 17, "9" * 30, "9" * 5000, "\u0663", "1_0", "nan", "\x00", "\x1b[2J",
)  # fmt: skip
LINES = st.builds(
    "{}{}{}{}\n".format,
    st.sampled_from(FIELDS),
    st.sampled_from([": ", "\t: ", ":", " "]),
    st.sampled_from(VALUES),
    st.sampled_from(["", " kB", " kB kB"]),
)
MOUNTS = st.sampled_from(
    ["25 1 0:30 / / rw - fuse f rw\n", "25 1 0:30 / /\\777 rw - \x1b[2J f\n", " - \n", "0-3\n"]
)
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.lists(LINES | MOUNTS, min_size=1, max_size=20).map(lambda lines: "".join(lines).encode()),
    st.sampled_from(VALUES).map(str.encode),
    st.integers().map(lambda number: b"%d" % number),
)
KINDS = st.sampled_from(
    ["absent", "denied", "folder", "loop", "dangling", "endless", "pipe", "failing"]
)
TEXTS = st.text(max_size=20)


def place_file(file: Path, kind: str | bytes) -> None:
    """Makes a file with this content, or something in its place that is hard to read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(kind, bytes):
        file.write_bytes(kind)
    elif kind == "denied":
        file.touch(mode=0)
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "absent":
        targets = {"loop": file.name, "dangling": "none", "endless": "/dev/zero"}
        # Reading one's own memory at address 0 is an error in the middle of a read.
        file.symlink_to(targets.get(kind, "/proc/self/mem"))


def denied() -> list[int]:
    raise PermissionError


@given(
    files=st.fixed_dictionaries(dict.fromkeys(FILES, KINDS | CONTENTS)),
    cores=st.none() | st.lists(st.integers(-3, 1 << 70), max_size=5),
    environ=st.dictionaries(st.sampled_from(["HOME", "PREFIX", "QWEN_EDGE_HOME"]), TEXTS),
    properties=st.dictionaries(
        st.sampled_from(["ro.build.version.sdk", "ro.product.model", "ro.config.low_ram"]),
        TEXTS | st.just("9" * 5000),
    ),
    platform=st.sampled_from(["android", "linux"]),
    path=st.none() | TEXTS,
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_raises_whatever_the_files_hold(
    files: dict[str, str | bytes],
    cores: list[int] | None,
    environ: dict[str, str],
    properties: dict[str, str],
    platform: str,
    path: str | None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, kind in files.items():
            place_file(root / name, kind)
        place = Place(
            proc=root / "proc",
            sysfs=root / "sys",
            environ=environ,
            platform=platform,
            machine="aarch64",
            allowed_cores=denied if cores is None else lambda: cores,
            properties=lambda: properties,
            fallbacks=False,
        )
        device = read_device(place, None if path is None else Path(path))
        profile = read_profile(place)
        own_memory(place.proc)
        battery_temperature(place)
    # A report of it can be written and shown.
    json.dumps(device)
    shown = [device.processor_name, device.system.device, device.system.kernel, device.storage.type]
    assert all(name is None or name.isprintable() for name in shown)
    assert 1 <= len(device.cores) == profile.cores <= 1024
    assert profile.cores == profile.big_cores + profile.little_cores
    assert 0 <= profile.available_ram < 1 << 60
    assert 0 < profile.total_ram < 1 << 60
    for core in device.cores:
        assert core.max_khz is None or 0 < core.max_khz <= 10**8


@pytest.mark.parametrize("value", VALUES)
def test_every_field_with_every_value(value: str, tmp_path: Path) -> None:
    memory = "".join(f"{field}: {value} kB\n" for field in FIELDS)
    cores = "".join(f"processor: {n}\nCPU implementer: 0x41\nCPU part: {value}\n" for n in (0, 1))
    for name, content in (("meminfo", memory), ("cpuinfo", cores), ("self/status", memory)):
        place_file(tmp_path / "proc" / name, content.encode())
    place = Place(
        tmp_path / "proc", tmp_path / "sys", {}, machine="aarch64", allowed_cores=lambda: [0, 1],
        fallbacks=False,
    )  # fmt: skip
    device, profile = read_device(place), read_profile(place)
    json.dumps(device)
    assert [core.number for core in device.cores] == [0, 1]
    assert all(core.part is None or core.part[1] < 1 << 12 for core in device.cores)
    assert 0 <= profile.available_ram < 1 << 60
    assert 0 <= profile.swap_free < 1 << 60
    assert all(size is None or 0 <= size < 1 << 60 for size in own_memory(place.proc))


@given(st.text(alphabet="0123456789-, \n", max_size=40))
def test_lists_of_numbers_are_ascending_and_bounded(text: str) -> None:
    found = numbers_of(text, 64)
    assert found == sorted(set(found))
    assert all(0 <= number < 64 for number in found)


def test_lists_of_numbers_are_read_as_the_kernel_writes_them() -> None:
    assert numbers_of("0-2,5,7-8\n", 1024) == [0, 1, 2, 5, 7, 8]
    assert numbers_of("", 1024) == numbers_of("0-1,x", 1024) == []


def test_working_folder_that_is_gone(tmp_path: Path) -> None:
    here, gone = Path.cwd(), tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    try:
        gone.rmdir()
        assert storage_of(Path("model.qedge")).shared is False
        environ = {"QWEN_EDGE_HOME": "relative"}
        assert read_device(Place(environ=environ)).storage.shared is False
    finally:
        os.chdir(here)
