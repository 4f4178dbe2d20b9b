"""The KV cache in a file, in C++: natively and under the sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.native.test_session import NATIVE, run

SOURCES = ("kv_file", "kv_cache", "checksum", "status")


@pytest.mark.parametrize("sanitizer", ["", "address,undefined", "thread"])
def test_kv_file(sanitizer: str, tmp_path: Path) -> None:
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"] if sanitizer else []
    program = tmp_path / "kv_file_test"
    sources = [Path(__file__).with_name("kv_file_test.cpp")]
    sources += [NATIVE / f"{name}.cpp" for name in SOURCES]
    command = ["g++", "-std=c++17", "-O2", "-g", "-pthread", *flags, "-I", str(NATIVE)]
    subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True, timeout=600)
    assert run(program) == "374 passed, 0 failed"
