"""The thread pool, in C++: natively, under the sanitizers, and tied to one core."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.native.test_session import NATIVE, run


def build(output: Path, *flags: str, compiler: str = "g++") -> Path:
    """Compiles thread_pool_test.cpp with the pool."""
    sources = [Path(__file__).with_name("thread_pool_test.cpp")]
    sources += [NATIVE / f"{name}.cpp" for name in ("thread_pool", "bandwidth", "status")]
    command = [compiler, "-std=c++17", "-O2", "-g", "-pthread", *flags, "-I", str(NATIVE)]
    subprocess.run([*command, *map(str, sources), "-o", str(output)], check=True, timeout=600)
    return output


@pytest.mark.parametrize("sanitizer", ["", "address,undefined", "thread"])
def test_thread_pool(sanitizer: str, tmp_path: Path) -> None:
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"] if sanitizer else []
    assert run(build(tmp_path / "thread_pool_test", *flags)).endswith(" passed, 0 failed")


def test_thread_pool_tied_to_one_core(tmp_path: Path) -> None:
    program = build(tmp_path / "thread_pool_test")
    assert run("taskset", "-c", "0", program).endswith(" passed, 0 failed")
