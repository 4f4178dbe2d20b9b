"""Builds and runs the test programs in C++."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

NATIVE = Path(__file__).resolve().parents[2] / "qwen_edge" / "native"
SANITIZERS = ("address,undefined", "thread")
ARM = (("cortex-a53", "neon"), ("cortex-a76", "neon_dotprod"), ("max", "neon_i8mm"))
"""Emulated cores, and the kernels that each gets."""


def build(
    folder: Path,
    name: str,
    parts: Sequence[str],
    *flags: str,
    compiler: str = "g++",
    kernels: bool = True,
) -> Path:
    """Compiles ``name``.cpp with the named parts of the library and, if wanted, all kernels."""
    output = folder / name
    sources = [Path(__file__).with_name(f"{name}.cpp"), *(NATIVE / f"{p}.cpp" for p in parts)]
    sources += sorted((NATIVE / "isa").glob("*.cpp")) if kernels else []
    command = [compiler, "-std=c++17", "-O2", "-g", "-pthread", *flags, "-I", str(NATIVE)]
    command += [*map(str, sources), "-o", str(output)]
    subprocess.run(command, check=True, timeout=600)
    return output


def sanitized(sanitizer: str) -> tuple[str, ...]:
    """The flags of a sanitizer that stops at the first finding; none for an empty name."""
    return (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all") if sanitizer else ()


def run(*command: str | Path, isa: str = "") -> str:
    """Runs a test program, with the kernels named if there are any; its last line."""
    environment = os.environ | ({"QWEN_EDGE_ISA": isa} if isa else {})
    result = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.splitlines()[-1]


def run_on_arm(cpu: str, *command: str | Path) -> str:
    """The same on an emulated Arm core."""
    return run("qemu-aarch64-static", "-cpu", cpu, *command)
