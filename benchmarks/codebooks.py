"""What the default 4-bit codebook costs: decode and prefill with iq4_nl over those with int4.

    python -m benchmarks.codebooks [--threads 2] [--turns 9] [--isa NAME ...] [--output FILE.json]

Two models of Qwen3-0.6B's shape, alike but for what their codes stand for, are made in a temporary
folder (0.7 GB) and measured in turn with each of this processor's instruction sets: a turn is a
prefill of 128 tokens and 16 decode steps of each, the order turned around every time. Ratios are
turn by turn. The read bandwidth is measured before each instruction set.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.speed import BUFFER_BYTES, speeds
from benchmarks.spread import paired_ratio, spread
from qwen_edge.engine.bandwidth import read_bandwidth
from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import open_model
from qwen_edge.model.synthetic import make_synthetic
from qwen_edge.native.instruction_sets import available_isas
from qwen_edge.native.library import check, load

CODEBOOKS = ("int4", "iq4_nl")
PREFILL, DECODE = 128, 16
Rates = dict[str, dict[str, list[float]]]


def measure(paths: dict[str, Path], threads: int, turns: int) -> Rates:
    """All samples of the instruction set in use, by codebook and kind."""
    config = EngineConfig(context=PREFILL + DECODE, threads=threads, prefill_rows=PREFILL)
    rates: Rates = {name: {"decode": [], "prefill": []} for name in paths}
    with contextlib.ExitStack() as stack:
        engines = {}
        for name, path in paths.items():
            model = stack.enter_context(open_model(path))
            engines[name] = stack.enter_context(NativeEngine(model, config))
            speeds(engines[name], PREFILL, DECODE)
        for turn in range(turns):
            for name in list(paths)[:: 1 if turn % 2 else -1]:
                for kind, rate in speeds(engines[name], PREFILL, DECODE).items():
                    rates[name][kind].append(round(rate, 3))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    fast = [name for name in available_isas() if name != "scalar"]
    parser.add_argument("--isa", nargs="+", default=fast, help="default: %(default)s")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "threads": arguments.threads,
        "turns": arguments.turns,
        "bandwidth_gb_s": {},
        "rates": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.qedge" for name in CODEBOOKS}
        for name, path in paths.items():
            make_synthetic("qwen3-0.6b", path, codebook=name)
        for isa in arguments.isa:
            check(load().qe_isa_select(isa.encode()))
            bandwidth = read_bandwidth(BUFFER_BYTES, arguments.threads, passes=3) / 1e9
            rates = measure(paths, arguments.threads, arguments.turns)
            result["bandwidth_gb_s"][isa] = round(bandwidth, 2)
            result["rates"][isa] = rates
            print(f"{isa}, {arguments.threads} threads, read bandwidth {bandwidth:.1f} GB/s")
            for kind in ("decode", "prefill"):
                int4, iq4_nl = (rates[name][kind] for name in CODEBOOKS)
                shown = [f"{n} {spread(rates[n][kind]).text()}" for n in CODEBOOKS]
                print(f"  {kind:8} {shown[0]}, {shown[1]} tokens/s,", end=" ")
                print(f"ratio {paired_ratio(iq4_nl, int4).text()}", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
