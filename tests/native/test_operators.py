"""Single operations in C++: natively, under the sanitizers, and on emulated Arm cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native.programs import ARM, SANITIZERS, build, run, run_on_arm, sanitized

PARTS = (
    "operators", "operator_attention", "operator_linear", "operator_pool", "read_ahead",
    "tensor_checks", "attention", "kv_cache", "thread_pool", "status", "dispatch",
)  # fmt: skip
PASSED = " 122 passed, 0 failed"


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("operators"), "operators_test", PARTS)


@pytest.mark.parametrize("isa", ["", "scalar"])
def test_operators(native: Path, isa: str) -> None:
    assert run(native, isa=isa).endswith(PASSED)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_under_sanitizers(sanitizer: str, tmp_path: Path) -> None:
    program = build(tmp_path, "operators_test", PARTS, *sanitized(sanitizer))
    # Enough for a context that threads share.
    assert run(program, "1040").endswith(PASSED)


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("operators")
    return build(folder, "operators_test", PARTS, "-static", compiler="aarch64-linux-gnu-g++")


@pytest.mark.parametrize(("cpu", "isa"), ARM)
def test_on_arm(arm: Path, cpu: str, isa: str) -> None:
    assert run_on_arm(cpu, arm, "60") == f"{isa}:{PASSED}"
