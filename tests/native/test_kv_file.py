"""The KV cache in a file, in C++: natively and under the sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native.programs import SANITIZERS, build, run, sanitized

PARTS = ("kv_file", "kv_cache", "checksum", "status")


@pytest.mark.parametrize("sanitizer", ["", *SANITIZERS])
def test_kv_file(sanitizer: str, tmp_path: Path) -> None:
    program = build(tmp_path, "kv_file_test", PARTS, *sanitized(sanitizer), kernels=False)
    assert run(program) == "374 passed, 0 failed"
