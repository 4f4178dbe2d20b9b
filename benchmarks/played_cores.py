"""Two threads on cores of which one is slower in itself, beside the two cores' speeds added up.

    python -m benchmarks.played_cores MODEL.qedge [--turns 7] [--output FILE.json]

A phone's big and little cores on a machine whose cores are equal: in a library made for this, every
kernel takes as long as it would on the core being played (benchmarks/played_cores.cpp), so that no
scheduler and no memory has a part in what is slow, and the sum of the two cores is what threads
that never wait for each other do together. The figure is what two threads do as a share of it, turn
by turn.

Decode plays a Cortex-A75 of 2.0 GHz beside one that is a number of times as slow; twice is a
Cortex-A55 of 1.8 GHz (70 and 126 cycles for 512 products, by llvm-mca: benchmarks/arm_cost.py).
Prefill, of 32 rows, plays cores four times as fast, so that it does not take all day.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from statistics import median

from benchmarks.spread import plain, spread
from benchmarks.unequal_cores import PLACES, share_of_sum
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.native_calls import engine_library
from qwen_edge.model.packed import open_model
from qwen_edge.native.build import FLAGS, SOURCE_DIR, find_compiler, sources

# How many times as slow the second core is.
RATIOS = [1.0, 1.5, 2.0, 3.0]
# Work -> ratio -> place -> tokens a second, turn by turn.
Speeds = dict[str, dict[str, dict[str, list[float]]]]

STEPS, ROWS = 4, 32
# Products of weights in a nanosecond on the first core.
DECODE_PACE, PREFILL_PACE = 14.6, 60.0
# What the host's cores do: everything else of a decode step is slowed down by as much.
_HOST_PACE = 60.0


def build_library(folder: Path) -> Path:
    """The library with kernels that play other cores."""
    output = folder / "libplayed.so"
    command = [*find_compiler(), *shlex.split(FLAGS), "-I", str(SOURCE_DIR)]
    command += ["-Wl,--wrap=_ZN2qe12active_tableEv", "-o", str(output)]
    command += [*map(str, sources()), str(Path(__file__).with_suffix(".cpp"))]
    subprocess.run(command, check=True)
    return output


def decode(engine: NativeEngine) -> float:
    """Tokens a second of steps of one row."""
    engine.truncate(0)
    engine.forward([Row(0, 0, 1, True)])
    begin = time.perf_counter()
    for i in range(STEPS):
        engine.forward([Row(0, 1 + i, 2, True)])
    return STEPS / (time.perf_counter() - begin)


def prefill(engine: NativeEngine) -> float:
    """Tokens a second of a prompt of ROWS tokens."""
    engine.truncate(0)
    begin = time.perf_counter()
    engine.forward([Row(0, i, i % 199, i == ROWS - 1) for i in range(ROWS)])
    return ROWS / (time.perf_counter() - begin)


# Work -> what measures it, and the first core's pace.
WORKS: dict[str, tuple[Callable[[NativeEngine], float], float]] = {
    "decode": (decode, DECODE_PACE),
    "prefill": (prefill, PREFILL_PACE),
}


def measure(path: Path, cores: tuple[int, int], turns: int) -> Speeds:
    """Takes turns; the process's library is one of ``build_library``."""
    pace = engine_library().qe_pace_core
    pace.argtypes, pace.restype = (ctypes.c_int32, ctypes.c_double, ctypes.c_double), None
    first, second = cores
    places = {"first": {first}, "second": {second}, "both": {first, second}}
    speeds: Speeds = {w: {f"{r:g}": {p: [] for p in PLACES} for r in RATIOS} for w in WORKS}
    with ExitStack() as stack:
        model = stack.enter_context(open_model(path))
        engines = {}
        for place, allowed in places.items():
            config = EngineConfig(context=64, threads=len(allowed), prefill_rows=ROWS)
            engines[place] = stack.enter_context(NativeEngine(model, config))
            decode(engines[place])
        for _ in range(turns):
            for ratio in RATIOS:
                for work, (rate, products) in WORKS.items():
                    others = _HOST_PACE / products
                    pace(first, products, others)
                    pace(second, products / ratio, others * ratio)
                    for place, allowed in places.items():
                        os.sched_setaffinity(0, allowed)
                        speeds[work][f"{ratio:g}"][place].append(rate(engines[place]))
    return speeds


def measure_apart(path: Path, turns: int) -> Speeds:
    """Builds the library, and measures in a process that loads it."""
    with tempfile.TemporaryDirectory() as folder:
        library, output = build_library(Path(folder)), Path(folder) / "speeds.json"
        command = [sys.executable, "-m", "benchmarks.played_cores", str(path), "--inside"]
        command += ["--turns", str(turns), "--output", str(output)]
        environment = os.environ | {"QWEN_EDGE_LIBRARY": str(library)}
        subprocess.run(command, check=True, env=environment)
        speeds: Speeds = json.loads(output.read_text(encoding="utf-8"))
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        sys.exit("this needs two cores")
    if arguments.inside:
        speeds = measure(arguments.model, (allowed[0], allowed[1]), arguments.turns)
        arguments.output.write_text(json.dumps(speeds), encoding="utf-8")
        return
    speeds = measure_apart(arguments.model, arguments.turns)
    for work, by_ratio in speeds.items():
        for ratio, values in by_ratio.items():
            alone = " + ".join(plain(median(values[place])) for place in PLACES[:2])
            print(
                f"{work:8} second core {ratio} times as slow  {alone} tokens/s alone, "
                f"{plain(median(values['both']))} together: "
                f"{spread(share_of_sum(values)).text(100)} %"
            )
    if arguments.output:
        record = {"turns": arguments.turns, "date": date.today().isoformat(), "speeds": speeds}
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
