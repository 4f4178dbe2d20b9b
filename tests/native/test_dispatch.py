"""Which kernels a processor gets, and what happens when others are asked for.

dispatch_test.cpp prints the choice; it runs natively and, for three generations of Arm processors,
under qemu (Debian packages g++-aarch64-linux-gnu and qemu-user-static).
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from qwen_edge.native.build import SOURCE_DIR, find_compiler

from .test_kernels import OBJECT_FLAGS, need, run, tables_of_this_processor

ARM = platform.machine() == "aarch64"
SOURCES = [
    Path(__file__).with_name("dispatch_test.cpp"),
    SOURCE_DIR / "dispatch.cpp",
    SOURCE_DIR / "status.cpp",
    *sorted((SOURCE_DIR / "isa").glob("*.cpp")),
]
ARM_TABLES = ["neon", "neon_dotprod", "neon_i8mm"]
ALL_TABLES = ["scalar", "avx2", "avx512_vnni", *ARM_TABLES]
# Instructions that no table allows, since no table asks the processor for them.
FORBIDDEN = re.compile(
    r"\t(?:udot|usdot|sudot|ummla|usmmla|bfdot|bfmmla|bfml\w+|bfcvt\w*|fmls?l\w*|sqrdml[as]h"
    r"|cas\w*|swp\w*|ld(?:add|set|clr|eor)\w*)\s"
    r"|\tf(?:add|sub|mul|mla|mls|div|max|min|cvt[nz][su])\w*\s+v\d+\.[48]h"  # fp16 arithmetic
    r"|\b[zp]\d+[./]"  # SVE registers
)


@dataclass(frozen=True)
class Choice:
    """One run of dispatch_test: `active` and `status` follow each other as the calls were made."""

    available: list[str]
    active: list[str]
    status: list[int]
    messages: list[str]


Runner = Callable[..., Choice]


def runner(*command: str) -> Runner:
    """A function that runs dispatch_test with names to select and a forced instruction set."""

    def choose(*names: str, forced: str | None = None) -> Choice:
        environment = {k: v for k, v in os.environ.items() if k != "QWEN_EDGE_ISA"}
        if forced is not None:
            environment["QWEN_EDGE_ISA"] = forced
        result = subprocess.run(
            [*command, *names], env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"exit code {result.returncode}\n{result.stderr}"
        available, before, *lines = result.stdout.splitlines()
        assert before == "[]", "nothing is chosen before it is needed"
        answers = [re.fullmatch(r"(\w*): (\d+) (.*)", line) for line in lines]
        assert len(answers) == 1 + len(names)
        assert all(answers)
        active, status, messages = zip(*(a.groups() for a in answers if a), strict=True)
        return Choice(available.split(","), list(active), [int(s) for s in status], list(messages))

    return choose


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    program = tmp_path_factory.mktemp("dispatch") / "dispatch_test"
    flags = ["-std=c++17", "-O1", "-pthread", "-I", str(SOURCE_DIR)]
    run([*find_compiler(), *flags, "-o", str(program), *map(str, SOURCES)])
    return runner(str(program))


@pytest.fixture(scope="module")
def arm_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dispatch_test for 64-bit Arm with the library's own flags, linked statically."""
    compiler = need("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    program = tmp_path_factory.mktemp("arm_dispatch") / "dispatch_test"
    flags = [*OBJECT_FLAGS, "-static", "-I", str(SOURCE_DIR)]
    run([compiler, *flags, "-o", str(program), *map(str, SOURCES)])
    return program


def test_default_is_the_fastest(native: Runner) -> None:
    choice = native()
    expected = [*tables_of_this_processor()[::-1], "scalar"]
    assert choice.available == expected
    assert choice.active == expected[:1]
    assert choice.status == [0]


def test_environment_forces(native: Runner) -> None:
    for name in native().available:
        choice = native(forced=name)
        assert (choice.active, choice.status) == ([name], [0])
    assert native(forced="").active == native().active


@pytest.mark.parametrize("forced", ["mmx", "AVX2", "scalar ", "neon,scalar", "x" * 2000])
def test_unknown_name_is_an_error(native: Runner, forced: str) -> None:
    choice = native(forced=forced)
    assert (choice.active, choice.status) == ([""], [1])
    if len(forced) < 100:
        assert f'"{forced}" (QWEN_EDGE_ISA)' in choice.messages[0]
        assert choice.messages[0].endswith("only " + ",".join(choice.available))


def test_tables_of_other_processors_are_errors(native: Runner) -> None:
    available = native().available
    absent = [name for name in ALL_TABLES if name not in available]
    assert absent
    for name in absent:
        choice = native(forced=name)
        assert (choice.active, choice.status) == ([""], [1])


def test_select_changes_the_choice_and_errors_keep_it(native: Runner) -> None:
    choice = native("scalar", "mmx", native().available[0])
    fastest = choice.available[0]
    assert choice.active == [fastest, "scalar", "scalar", fastest]
    assert choice.status == [0, 0, 1, 0]


ON_ARM = [
    ("cortex-a53", ["neon", "scalar"]),
    ("cortex-a76", ["neon_dotprod", "neon", "scalar"]),
    ("max", ["neon_i8mm", "neon_dotprod", "neon", "scalar"]),
]


@pytest.mark.skipif(ARM, reason="an Arm machine chooses natively")
@pytest.mark.parametrize(("processor", "expected"), ON_ARM)
def test_arm_processors(arm_program: Path, processor: str, expected: list[str]) -> None:
    qemu = need("qemu-aarch64-static", "qemu-user-static")
    choose = runner(qemu, "-cpu", processor, str(arm_program))
    choice = choose(*expected)
    assert choice.available == expected
    assert choice.active == [expected[0], *expected]
    assert choice.status == [0] * (1 + len(expected))
    for name in ALL_TABLES:
        forced = choose(forced=name)
        if name in expected:
            assert (forced.active, forced.status) == ([name], [0])
        else:
            assert (forced.active, forced.status) == ([""], [1])
            assert forced.messages[0].endswith("only " + ",".join(expected))


def test_arm_instructions_stay_in_their_tables(arm_program: Path) -> None:
    """An older processor never meets an instruction that it lacks, whatever is called on it."""
    objdump = need("aarch64-linux-gnu-objdump", "binutils-aarch64-linux-gnu")
    listing = run([objdump, "-d", "-C", "--no-show-raw-insn", str(arm_program)])
    function = ""
    counts = {"sdot": 0, "smmla": 0}
    strays = set()
    for line in listing.splitlines():
        header = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        if header:
            function = header[1]
            continue
        if "qe::" not in function:
            continue
        found = re.search(r"\t(sdot|smmla)\s", line)
        if found:
            counts[found[1]] += 1
            allowed = ["SmmlaIsa"] if found[1] == "smmla" else ["SdotIsa", "SmmlaIsa"]
            if not any(name in function for name in allowed):
                strays.add((found[1], function))
        elif FORBIDDEN.search(line):
            strays.add((line.strip(), function))
    assert not strays
    assert counts["sdot"] > 500
    assert counts["smmla"] > 200
