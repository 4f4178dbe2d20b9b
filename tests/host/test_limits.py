from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_edge.host.limits import address_space_cap, uncapped_children
from qwen_edge.host.memory_facts import own_memory

MIB = 1 << 20


def limits() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_AS)


def child_limit() -> str:
    command = [sys.executable, "-c", "import resource as r; print(r.getrlimit(r.RLIMIT_AS)[0])"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_cap_is_relative_and_restored() -> None:
    before = limits()
    size = own_memory().virtual
    assert size is not None
    with address_space_cap(64 * MIB) as limit:
        assert limit is not None
        assert size + 64 * MIB <= limit <= size + 80 * MIB
        assert limits() == (limit, before[1])
        # More than an earlier test can have left free in this process.
        with pytest.raises(MemoryError):
            bytearray(6 << 30)
    assert limits() == before
    assert len(bytearray(6 << 30)) == 6 << 30


def test_cap_is_restored_after_an_error() -> None:
    before = limits()
    with pytest.raises(KeyError), address_space_cap(64 * MIB):
        raise KeyError
    assert limits() == before


def test_children_start_outside_the_cap() -> None:
    before = limits()
    with address_space_cap(256 * MIB) as limit:
        assert child_limit() == str(limit)
        with uncapped_children():
            assert child_limit() == str(before[0])
        assert limits()[0] == limit
    with uncapped_children():
        assert limits() == before


def test_inner_cap_never_widens_the_outer() -> None:
    before = limits()
    with address_space_cap(64 * MIB) as outer, address_space_cap(1024 * MIB) as inner:
        assert inner == outer
        with uncapped_children():
            assert limits() == before
    assert limits() == before


def test_cap_without_proc_is_no_cap(tmp_path: Path) -> None:
    before = limits()
    with address_space_cap(64 * MIB, tmp_path) as limit:
        assert limit is None
        assert limits() == before


def test_hard_limit_below_the_cap_is_respected() -> None:
    script = (
        "import resource as r; from qwen_edge.host.limits import address_space_cap as cap\n"
        "r.setrlimit(r.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "with cap(8 << 30) as limit: print(limit, r.getrlimit(r.RLIMIT_AS))\n"
        "print(r.getrlimit(r.RLIMIT_AS))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    gib = 1 << 30
    assert result.stdout == f"{gib} ({gib}, {gib})\n({gib}, {gib})\n", result.stderr
