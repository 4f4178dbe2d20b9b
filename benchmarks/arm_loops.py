"""Cuts loops out of compiled Arm code and prices them with llvm-mca."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FLAGS = "-std=c++17 -O3 -fPIC -fno-math-errno -fno-trapping-math -DNDEBUG -S -o -"
DOTS = ("sdot", "smmla", "smlal", "smull", "smlal2")


@dataclass(frozen=True)
class Loop:
    """The loop over 16 x 32 blocks of one tile function, for ``rows`` activation rows."""

    text: str
    instructions: int
    dots: int
    spills: int


def compiled_functions(compiler: str, source: Path, *flags: str) -> dict[str, list[str]]:
    """Compiles a file for Arm; returns the assembly of each function by its readable name."""
    command = [*shlex.split(compiler), *shlex.split(FLAGS), *flags, str(source)]
    assembly = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(demangled_functions(assembly))


def demangled_functions(assembly: str) -> Iterator[tuple[str, list[str]]]:
    """Yields each function's readable name and its lines."""
    names = subprocess.run(
        ["c++filt"], input=assembly, capture_output=True, text=True, check=True
    ).stdout
    name, body = "", list[str]()
    for raw, readable in zip(assembly.splitlines(), names.splitlines(), strict=True):
        if re.match(r"_Z[\w.$]+:", raw):
            name, body = readable.rstrip(":"), []
        elif raw.startswith("\t.size"):
            if name:
                yield name, body
            name = ""
        elif name:
            body.append(raw)


def loops(lines: list[str]) -> Iterator[list[str]]:
    """Yields the stretches between a label and a later branch back to it."""
    labels = {}
    for index, line in enumerate(lines):
        label = re.match(r"(\.\w+):", line)
        if label:
            labels[label[1]] = index
        branch = re.match(r"\t(?:b\.?\w*|cbn?z|tbn?z)\s.*?(\.L\w+)", line)
        if branch and branch[1] in labels:
            yield lines[labels[branch[1]] + 1 : index + 1]


def is_instruction(line: str) -> bool:
    return bool(re.match(r"\t[a-z]", line))


def as_loop(body: list[str]) -> Loop:
    """Counts what is in a stretch of assembly."""
    text = [re.sub(r"//.*", "", line) for line in body if is_instruction(line)]
    dots = sum(line.split()[0] in DOTS for line in text)
    spills = sum(bool(re.match(r"\t(ldr|str|ldp|stp|ldur|stur)\t[qd]\d.*\[sp", x)) for x in text)
    return Loop("\n".join(text), len(text), dots, spills)


def block_loop(lines: list[str], conversion: str = "fcvtl") -> Loop:
    """The smallest loop that multiplies codes and converts scales: one block an iteration.

    For groups of 32 the loop over a group's parts inside it runs once, so its branch, which
    llvm-mca takes as not taken, costs what it costs. ``conversion`` is the instruction that turns
    scales into fp32.
    """

    candidates = [
        body
        for body in loops(lines)
        if as_loop(body).dots and any(f"\t{conversion}\t" in x for x in body)
    ]
    if not candidates:
        raise SystemExit("No loop over blocks was found: the compiler arranged it in a new way.")
    return as_loop(min(candidates, key=len))


def cycles(loop: Loop, core: str, mca: str) -> float:
    """Cycles an iteration on a core; i8mm instructions are allowed on cores that lack them."""
    command = [mca, "-mtriple=aarch64-linux-gnu", f"-mcpu={core}", "-mattr=+dotprod,+i8mm"]
    result = subprocess.run(
        [*command, "-iterations=100"], input=loop.text, capture_output=True, text=True, check=False
    )
    total = re.search(r"Total Cycles:\s+(\d+)", result.stdout)
    if total is None:
        raise SystemExit(f"llvm-mca failed: {result.stderr.strip()[:500]}")
    return int(total[1]) / 100


def newest(program: str) -> str:
    """The highest version of an LLVM program on the path: later ones model the cores better."""
    for version in range(30, 13, -1):
        if shutil.which(f"{program}-{version}"):
            return f"{program}-{version}"
    return program
