"""The thread pool, in C++: natively, under the sanitizers, and tied to one core."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native.programs import SANITIZERS, build, run, sanitized

PARTS = ("thread_pool", "bandwidth", "status")


@pytest.mark.parametrize("sanitizer", ["", *SANITIZERS])
def test_thread_pool(sanitizer: str, tmp_path: Path) -> None:
    program = build(tmp_path, "thread_pool_test", PARTS, *sanitized(sanitizer), kernels=False)
    assert run(program).endswith(" passed, 0 failed")


def test_thread_pool_tied_to_one_core(tmp_path: Path) -> None:
    program = build(tmp_path, "thread_pool_test", PARTS, kernels=False)
    assert run("taskset", "-c", "0", program).endswith(" passed, 0 failed")
