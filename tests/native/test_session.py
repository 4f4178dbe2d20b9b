"""The forward pass in C++: natively, under the sanitizers, and on emulated Arm cores."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "qwen_edge" / "native"
SOURCES = (
    "session",
    "transformer",
    "attention",
    "kv_cache",
    "thread_pool",
    "status",
    "dispatch",
)


def build(output: Path, *flags: str, compiler: str = "g++") -> Path:
    """Compiles session_test.cpp with what it needs of the library."""
    sources = [NATIVE / f"{name}.cpp" for name in SOURCES]
    sources += sorted((NATIVE / "isa").glob("*.cpp"))
    command = [compiler, "-std=c++17", "-O2", "-g", "-pthread", *flags, "-I", str(NATIVE)]
    command += [str(Path(__file__).with_name("session_test.cpp")), *map(str, sources)]
    subprocess.run([*command, "-o", str(output)], check=True, timeout=600)
    return output


def run(*command: str | Path, isa: str = "") -> str:
    """Runs the test program; the last line of its output."""
    environment = os.environ | ({"QWEN_EDGE_ISA": isa} if isa else {})
    result = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("session") / "session_test")


def test_with_the_best_kernels(native: Path) -> None:
    assert run(native, "300").endswith(" 204 passed, 0 failed")


def test_with_scalar_kernels(native: Path) -> None:
    assert run(native, "60", isa="scalar") == "scalar: 202 passed, 0 failed"


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_under_sanitizers(sanitizer: str, tmp_path: Path) -> None:
    program = build(
        tmp_path / "session_test", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"
    )
    assert run(program, "20").endswith(" 202 passed, 0 failed")


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("session") / "session_test_arm"
    return build(output, "-static", compiler="aarch64-linux-gnu-g++")


@pytest.mark.parametrize(
    ("cpu", "isa"),
    [("cortex-a53", "neon"), ("cortex-a76", "neon_dotprod"), ("max", "neon_i8mm")],
)
def test_on_arm(arm: Path, cpu: str, isa: str) -> None:
    assert run("qemu-aarch64-static", "-cpu", cpu, arm, "20") == f"{isa}: 202 passed, 0 failed"
