"""Prices the inner loops of the Arm kernels in cycles, without a phone.

Cross-compiles ``isa/neon*.cpp`` to assembly, cuts the loop over weight blocks out of each tile
function and hands it to llvm-mca, which simulates the pipeline of a named core with all loads
hitting the first-level cache. What a core can consume at its clock is set beside what the memory
of the reference phone delivers: a kernel is fast enough when the memory is slower than it is.
Then come the tokens a second of four phones, beside those of the usual row-dot loop.

Needs clang++ or aarch64-linux-gnu-g++, and llvm-mca (Debian: ``apt install clang llvm
g++-aarch64-linux-gnu``). Run: ``python -m benchmarks.arm_cost``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.arm_attention import AttentionCost, price_attention
from benchmarks.arm_loops import Loop, block_loop, compiled_functions, cycles, newest
from benchmarks.arm_phones import PHONES, USABLE, speed
from benchmarks.arm_textbook import ITERATION_WEIGHTS, textbook_loop

ISA_DIR = Path(__file__).resolve().parent.parent / "qwen_edge" / "native" / "isa"
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
        functions = compiled_functions(compiler, ISA_DIR / file)
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


def find(costs: list[Cost], table: str, weights: str, core: str, rows: int) -> Cost:
    """One of the costs."""
    wanted = (table, weights, core, rows)
    (cost,) = (c for c in costs if (c.table, c.weights, c.core, c.rows) == wanted)
    return cost


def cycles_per_weight(
    costs: list[Cost], table: str, core: str, rows: int, weights: str = "int4"
) -> float:
    """Cycles for one 4-bit weight and one of so many activation rows."""
    return find(costs, table, weights, core, rows).cycles / rows / BLOCK_WEIGHTS


def phone_table(costs: list[Cost], textbook: Loop, mca: str) -> list[dict[str, object]]:
    """The phones' tokens a second with our kernels and with the row-dot loop."""
    table: list[dict[str, object]] = []
    for phone in PHONES:
        ours, codebook = (
            [cycles_per_weight(costs, phone.table, phone.core, rows, weights) for rows in (1, 8)]
            for weights in ("int4", "codebook")
        )
        theirs = cycles(textbook, CORES[phone.core][0], mca) / ITERATION_WEIGHTS
        table.append(
            {
                "phone": phone.name,
                "core": f"{len(phone.clocks)} x {phone.core}",
                "bandwidth_gbs": round(USABLE * phone.bandwidth, 1),
                "ours_cycles_per_weight": round(ours[0], 4),
                "textbook_cycles_per_weight": round(theirs, 4),
                "ours_tokens": speed(phone, *ours).text(),
                "ours_codebook_tokens": speed(phone, *codebook).text(),
                "textbook_tokens": speed(phone, theirs, theirs).text(),
            }
        )
    return table


def attention_costs(compiler: str, mca: str, costs: list[Cost]) -> list[AttentionCost]:
    """The KV cache's part of a decode step, from what the linear loops cost."""
    keys = {(c.table, c.weights, c.core): c.cycles for c in costs if c.rows == 2}
    clocks = {
        table: {core: CORES[core] for core in CORES if (table, "int8", core) in keys}
        for table in TABLES
    }
    return price_attention(ISA_DIR, compiler, mca, clocks, keys)


def core_table(costs: list[Cost], textbook: Loop, mca: str) -> list[dict[str, object]]:
    """Cycles per weight by core: ours for one and for eight rows, and the row-dot loop's."""
    table: list[dict[str, object]] = []
    for core in CORES:
        ours = "neon_i8mm" if core in I8MM_CORES else "neon_dotprod"
        table.append(
            {
                "core": core,
                "table": ours,
                "1 row": round(cycles_per_weight(costs, ours, core, 1), 4),
                "8 rows, each": round(cycles_per_weight(costs, ours, core, 8), 4),
                "row-dot": round(cycles(textbook, CORES[core][0], mca) / ITERATION_WEIGHTS, 4),
            }
        )
    return table


def codebook_table(costs: list[Cost]) -> list[dict[str, object]]:
    """What a codebook costs beside even steps, by table and core."""
    table: list[dict[str, object]] = []
    for isa in TABLES:
        several = 4 if isa == "neon" else 8
        for core in CORES:
            if (core in I8MM_CORES) != (isa == "neon_i8mm"):
                continue
            row: dict[str, object] = {"table": isa, "core": core}
            for rows in (1, several):
                even = find(costs, isa, "int4", core, rows)
                codebook = find(costs, isa, "codebook", core, rows)
                name = "1 row" if rows == 1 else "4 or 8 rows"
                row[name] = f"{codebook.cycles:.0f} over {even.cycles:.0f} cycles"
            row["GB/s a core"] = find(costs, isa, "codebook", core, 1).gigabytes_per_second
            table.append(row)
    return table


def print_rows(title: str, rows: list[dict[str, object]]) -> None:
    """Prints a table with aligned columns."""
    print(f"\n{title}")
    widths = [max(len(str(row[key])) for row in (*rows, {key: key})) for key in rows[0]]
    for row in ({key: key for key in rows[0]}, *rows):
        print("  ".join(f"{value!s:{w}}" for value, w in zip(row.values(), widths, strict=True)))


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
    costs = price(options.compiler, options.mca, sorted({1, 2, 4, 8, *options.rows}))
    report([cost for cost in costs if cost.rows in options.rows])
    textbook = textbook_loop(options.compiler)
    attention = [asdict(cost) for cost in attention_costs(options.compiler, options.mca, costs)]
    cores = core_table(costs, textbook, options.mca)
    phones = phone_table(costs, textbook, options.mca)
    codebooks = codebook_table(costs)
    print_rows("Cycles for a weight (INT4):", cores)
    print_rows(f"Four phones, {USABLE:.0%} of the memory's bandwidth usable:", phones)
    print_rows("A block through a codebook, and in even steps:", codebooks)
    print_rows("16 positions of a KV head of 128 dimensions, two queries:", attention)
    if options.json:
        record = {
            "compiler": options.compiler,
            "mca": options.mca,
            "usable_bandwidth": USABLE,
            "cores": cores,
            "phones": phones,
            "codebooks": codebooks,
            "attention": attention,
            "blocks": [asdict(cost) for cost in costs],
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
