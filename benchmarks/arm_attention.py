"""Prices the attention of a decode step on Arm cores: the part of benchmarks/arm_cost.py on the KV
cache.

A unit is 16 positions of one KV head of 128 dimensions, keys and values, for the two query heads
that share it in Qwen3-0.6B. Keys run through the loops of the linear kernels; the softmax between
keys and values is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arm_loops import Loop, as_loop, compiled_functions, cycles, loops

HEAD_DIM = 128
QUERIES = 2
GROUPS = HEAD_DIM // 32
# Dimensions that one iteration over INT8 values takes: 4 * K of accumulate_rows<Isa, 2, 2>.
VALUE_DIMS = 8
# What a unit takes in the cache, scales included.
UNIT_BYTES = {"int8": 2 * (16 * HEAD_DIM + 32), "int4": 2 * GROUPS * 288}
# Where the values' kernels of a table are compiled, and how its class is called.
VALUES = {
    "neon": ("neon.cpp", "BaselineIsa"),
    "neon_dotprod": ("neon_dotprod.cpp", "SdotIsa"),
    "neon_i8mm": ("neon_dotprod.cpp", "SdotIsa"),
}


@dataclass(frozen=True)
class AttentionCost:
    """Cycles for a unit, and the speed at which a core goes through the cache at its clock."""

    table: str
    kv: str
    core: str
    key_cycles: float
    value_cycles: float
    gigabytes_per_second: float


def with_dots(lines: list[str]) -> Iterator[tuple[Loop, bool]]:
    """The loops that multiply codes, in order; whether one contains another that does."""
    found = [(body, as_loop(body)) for body in loops(lines)]
    found = [(body, loop) for body, loop in found if loop.dots]
    for body, loop in found:
        inside = set(body[:-1])
        yield (
            loop,
            any(
                len(other) < len(body) and other[-1] in inside and other_loop.dots <= loop.dots
                for other, other_loop in found
            ),
        )


def value_loops(isa_dir: Path, compiler: str, table: str, kv: str) -> tuple[Loop, Loop | None]:
    """The loop over blocks (INT4: over groups) for two queries, and the loop inside it if any.

    A kernel has its loops for four queries, for two and for one, in this order.
    """
    file, isa = VALUES[table]
    functions = compiled_functions(compiler, isa_dir / file)
    pattern = rf"::accumulate_i{kv[3:]}<.*::{isa}>\("
    (lines,) = (body for name, body in functions.items() if re.search(pattern, name))
    found = list(with_dots(lines))
    inner = [loop for loop, contains in found if not contains]
    outer = [loop for loop, contains in found if contains]
    if len(inner) != 3 or len(outer) not in (0, 3):
        raise SystemExit("The loops over values were not found: the compiler arranged them anew.")
    return (outer[1], inner[1]) if outer else (inner[1], None)


def price_attention(
    isa_dir: Path,
    compiler: str,
    mca: str,
    clocks: dict[str, dict[str, tuple[str, float]]],
    key_cycles: dict[tuple[str, str, str], float],
) -> list[AttentionCost]:
    """Prices both types of cache.

    Args:
        isa_dir: the folder of the kernels.
        compiler: for Arm.
        mca: the program.
        clocks: for each table and core LLVM's name of it and GHz.
        key_cycles: by table, type of cache and core: 16 positions by 32 dimensions of keys.
    """
    costs = []
    for table, cores in clocks.items():
        for kv, unit in UNIT_BYTES.items():
            outer, inner = value_loops(isa_dir, compiler, table, kv)
            for core, (model, clock) in cores.items():
                keys = GROUPS * key_cycles[table, kv, core]
                values = cycles(outer, model, mca)
                if inner is None:
                    values *= GROUPS
                else:  # the outer loop's text has the inner one once
                    values += (HEAD_DIM // VALUE_DIMS - 1) * cycles(inner, model, mca)
                speed = unit / (keys + values) * clock
                costs.append(
                    AttentionCost(
                        table, kv, core, round(keys, 1), round(values, 1), round(speed, 1)
                    )
                )
    return costs
