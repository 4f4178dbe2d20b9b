from __future__ import annotations

import mmap
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen_edge.errors import MemoryLimitError
from qwen_edge.host.memory_facts import own_memory
from qwen_edge.session.memory import (
    MemoryCap,
    MemoryWatch,
    memory_errors,
    parse_cap,
    uncapped_children,
)

MIB = 1 << 20
# More than an earlier test can have left free in this process.
BEYOND_THE_HEAP = 6 << 30


def test_caps_are_read() -> None:
    assert parse_cap("1GiB") == 1 << 30
    assert parse_cap(" 900MB ") == 900_000_000
    assert parse_cap("AUTO") == "auto"
    assert parse_cap("off") is None
    for bad in ("", "0", "-1", "lots", "1e400"):
        with pytest.raises(ValueError, match=r"."):
            parse_cap(bad)


def status(folder: Path, anonymous_kb: int) -> None:
    (folder / "self").mkdir(exist_ok=True)
    (folder / "self" / "status").write_text(f"VmSize: 90000 kB\nRssAnon:\t{anonymous_kb} kB\n")


def test_watch_counts_the_mapped_weights(tmp_path: Path) -> None:
    status(tmp_path, 60 * 1024)
    MemoryWatch(100 * MIB, mapped=40 * MIB, proc=tmp_path).poll()
    with pytest.raises(MemoryLimitError, match=r"101 MiB.*100 MiB") as caught:
        MemoryWatch(100 * MIB, mapped=41 * MIB, proc=tmp_path).poll()
    assert caught.value.exit_code == 4


def test_watch_looks_once_an_interval(tmp_path: Path) -> None:
    status(tmp_path, 1)
    watch = MemoryWatch(10 * MIB, proc=tmp_path, interval=0.2)
    watch.poll()
    status(tmp_path, 20 * 1024)
    watch.poll()
    time.sleep(0.25)
    with pytest.raises(MemoryLimitError):
        watch.poll()


def test_watch_is_cheap_and_may_be_off(tmp_path: Path) -> None:
    watch = MemoryWatch(1 << 40)
    watch.poll()
    start = time.perf_counter()
    for _ in range(10_000):
        watch.poll()
    assert time.perf_counter() - start < 0.5
    MemoryWatch(None).poll()
    MemoryWatch(1, proc=tmp_path).poll()


def test_watch_sees_this_process_grow() -> None:
    now = own_memory().anonymous
    assert now is not None
    watch = MemoryWatch(now + 32 * MIB, interval=0)
    watch.poll()
    # Pages of its own: the heap may have as many to spare.
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(b"x" * (64 * MIB))
        with pytest.raises(MemoryLimitError):
            watch.poll()
    watch.poll()


def test_cap_limits_and_restores() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with MemoryCap(64 * MIB) as cap:
        assert cap.limit is not None
        with pytest.raises(MemoryLimitError), memory_errors():
            bytearray(BEYOND_THE_HEAP)
        with uncapped_children():
            assert resource.getrlimit(resource.RLIMIT_AS) == before
            done = subprocess.run([sys.executable, "-c", "bytearray(1 << 28)"], check=False)
        assert done.returncode == 0
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_cap_makes_room_for_addresses_without_pages() -> None:
    with MemoryCap(64 * MIB, address_only=512 * MIB) as cap:
        size = own_memory().virtual
        assert size is not None
        assert cap.limit is not None
        assert cap.limit > size + 540 * MIB


def test_no_cap_changes_nothing() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with MemoryCap(None) as cap:
        assert cap.limit is None
        assert resource.getrlimit(resource.RLIMIT_AS) == before
        cap.watch.poll()
