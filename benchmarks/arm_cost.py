"""Prices the inner loops of the Arm kernels in cycles, without a phone.

Cross-compiles ``isa/neon*.cpp`` to assembly, cuts the loop over weight blocks out of each tile
function and hands it to llvm-mca, which simulates the pipeline of a named core with all loads
hitting the first-level cache. What a core can consume at its clock is set beside what the memory
of the reference phone delivers: a kernel is fast enough when the memory is slower than it is.

Needs clang++ or aarch64-linux-gnu-g++, and llvm-mca (Debian: ``apt install clang llvm
g++-aarch64-linux-gnu``). Run: ``python benchmarks/arm_cost.py``.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ISA_DIR = Path(__file__).resolve().parent.parent / "qwen_edge" / "native" / "isa"
FLAGS = "-std=c++17 -O3 -fPIC -fno-math-errno -fno-trapping-math -DNDEBUG -S -o -"
GCC = "aarch64-linux-gnu-g++"
# Core: LLVM's name for it, GHz. Neoverse N1 is the Cortex-A76's server twin and, unlike it, has a
# model of its own (from LLVM 17 on). The A75 is priced as a Cortex-A57: table look-ups too dearly.
CORES = {
    "cortex-a55": ("cortex-a55", 1.8),
    "cortex-a75": ("cortex-a75", 2.0),
    "cortex-a76": ("neoverse-n1", 2.2),
    "cortex-a510": ("cortex-a510", 1.8),
    "cortex-a710": ("neoverse-n2", 2.5),
}
I8MM_CORES = ("cortex-a510", "cortex-a710")
# What the two channels of a Helio G85 deliver to all its cores together, GB/s.
PHONE_BANDWIDTH = 9.5
BLOCK_WEIGHTS = 16 * 32
DOTS = ("sdot", "smmla", "smlal", "smull", "smlal2")
# Table, file, the class that the tile template is instantiated with for n >= 2 (n = 1).
TABLES = {
    "neon": ("neon.cpp", "BaselineIsa", "BaselineIsa"),
    "neon_dotprod": ("neon_dotprod.cpp", "SdotIsa", "SdotIsa"),
    "neon_i8mm": ("neon_i8mm.cpp", "SmmlaIsa", "SdotIsa"),
}
WEIGHTS = {
    "int4": ("CountingCodes", 288),
    "codebook": ("CodebookCodes<128>", 288),
    "int8": ("ByteCodes", 544),
}


@dataclass(frozen=True)
class Loop:
    """The loop over 16 x 32 blocks of one tile function, for ``rows`` activation rows."""

    text: str
    instructions: int
    dots: int
    spills: int


@dataclass(frozen=True)
class Cost:
    """Cycles for one block and all rows of a pass, and what follows from the clock."""

    table: str
    weights: str
    rows: int
    core: str
    cycles: float
    cycles_per_row: float
    instructions: int
    spills: int
    gigabytes_per_second: float


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


def block_loop(lines: list[str]) -> Loop:
    """The smallest loop that multiplies codes and converts scales: one block an iteration.

    For groups of 32 the loop over a group's parts inside it runs once, so its branch, which
    llvm-mca takes as not taken, costs what it costs.
    """

    def dots(body: list[str]) -> int:
        return sum(line.split()[0] in DOTS for line in body if is_instruction(line))

    candidates = [
        body for body in loops(lines) if dots(body) and any("\tfcvtl" in line for line in body)
    ]
    if not candidates:
        raise SystemExit("No loop over blocks was found: the compiler arranged it in a new way.")
    body = min(candidates, key=len)
    text = [re.sub(r"//.*", "", line) for line in body if is_instruction(line)]
    spills = sum(bool(re.match(r"\t(ldr|str|ldp|stp|ldur|stur)\t[qd]\d.*\[sp", x)) for x in text)
    return Loop("\n".join(text), len(text), dots(body), spills)


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


def tile_loop(functions: dict[str, list[str]], isa: str, rows: int, codes: str) -> Loop | None:
    """The loop of one instantiation; several passes over quads of rows make up a block."""
    pattern = rf"::tile<.*::{isa}, {rows}, false, .*::{re.escape(codes)}\s*>\("
    found = [lines for name, lines in functions.items() if re.search(pattern, name)]
    return block_loop(found[0]) if found else None


def passes(table: str, rows: int) -> int:
    """How often a block is gone through for ``rows`` rows: Isa::kAccumulators of the kernels."""
    accumulators = 4 if table == "neon" else 8
    return 4 // min(4, accumulators // rows)


def price(compiler: str, mca: str, rows: list[int]) -> list[Cost]:
    """Prices every table, weight format and core for these numbers of activation rows."""
    costs = []
    for table, (file, many, one) in TABLES.items():
        command = [*shlex.split(compiler), *shlex.split(FLAGS), str(ISA_DIR / file)]
        assembly = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        functions = dict(demangled_functions(assembly))
        for weights, (codes, block_bytes) in WEIGHTS.items():
            for n in rows:
                loop = tile_loop(functions, one if n == 1 else many, n, codes)
                if loop is None:
                    continue
                times = passes(table, n)
                for core, (model, clock) in CORES.items():
                    if core in I8MM_CORES and table != "neon_i8mm":
                        continue
                    block = cycles(loop, model, mca) * times
                    costs.append(
                        Cost(
                            table=table,
                            weights=weights,
                            rows=n,
                            core=core,
                            cycles=round(block, 1),
                            cycles_per_row=round(block / n, 1),
                            instructions=loop.instructions * times,
                            spills=loop.spills * times,
                            gigabytes_per_second=round(block_bytes / block * clock, 1),
                        )
                    )
    return costs


def report(costs: list[Cost]) -> None:
    """Prints a line for each cost."""
    print(
        f"One block of 16 x 32 weights; a Helio G85's memory gives {PHONE_BANDWIDTH} GB/s to all "
        "its cores."
    )
    print(
        f"{'table':13} {'weights':8} {'n':>2} {'core':11} {'cycles':>7} {'/row':>6} "
        f"{'weights/cycle':>13} {'instr':>6} {'spills':>6} {'GB/s a core':>12}"
    )
    for cost in costs:
        rate = BLOCK_WEIGHTS / cost.cycles_per_row
        clock = f"@{CORES[cost.core][1]} GHz"
        print(
            f"{cost.table:13} {cost.weights:8} {cost.rows:2} {cost.core:11} {cost.cycles:7.1f} "
            f"{cost.cycles_per_row:6.1f} {rate:13.1f} {cost.instructions:6} {cost.spills:6} "
            f"{cost.gigabytes_per_second:6.1f} {clock}"
        )


def newest(program: str) -> str:
    """The highest version of an LLVM program on the path: later ones model the cores better."""
    for version in range(30, 13, -1):
        if shutil.which(f"{program}-{version}"):
            return f"{program}-{version}"
    return program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    clang = newest("clang++")
    default = f"{clang} --target=aarch64-linux-gnu" if shutil.which(clang) else GCC
    parser.add_argument("--compiler", default=default, help="default: %(default)s")
    parser.add_argument("--mca", default=newest("llvm-mca"), help="default: %(default)s")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8], choices=[1, 2, 4, 8])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    print(f"{options.compiler}, {options.mca}")
    costs = price(options.compiler, options.mca, options.rows)
    report(costs)
    if options.json:
        options.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")


if __name__ == "__main__":
    main()
