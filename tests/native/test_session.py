"""The forward pass in C++: natively, under the sanitizers, and on emulated Arm cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native.programs import ARM, SANITIZERS, build, run, run_on_arm, sanitized

PARTS = (
    "session", "transformer", "attention", "kv_cache", "thread_pool", "status", "dispatch",
)  # fmt: skip


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("session"), "session_test", PARTS)


def test_with_the_best_kernels(native: Path) -> None:
    assert run(native, "300").endswith(" 204 passed, 0 failed")


def test_with_scalar_kernels(native: Path) -> None:
    assert run(native, "60", isa="scalar") == "scalar: 202 passed, 0 failed"


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_under_sanitizers(sanitizer: str, tmp_path: Path) -> None:
    program = build(tmp_path, "session_test", PARTS, *sanitized(sanitizer))
    assert run(program, "20").endswith(" 202 passed, 0 failed")


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    return build(folder, "session_test", PARTS, "-static", compiler="aarch64-linux-gnu-g++")


@pytest.mark.parametrize(("cpu", "isa"), ARM)
def test_on_arm(arm: Path, cpu: str, isa: str) -> None:
    assert run_on_arm(cpu, arm, "20") == f"{isa}: 202 passed, 0 failed"
