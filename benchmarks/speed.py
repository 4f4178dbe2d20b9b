"""Prefill and decode speed of a model, beside the machine's read bandwidth in the same run.

    python -m benchmarks.speed MODEL.qedge [--threads 2] [--repeats 5] [--output FILE.json]

A repeat measures the bandwidth, a prefill of 512 tokens and 32 decode steps, so that a drifting
machine shows it in all three. Prints medians and ranges; decoding reads every weight once a
token, and the last line says which share of the bandwidth that is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from qwen_edge.engine.bandwidth import read_bandwidth
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import open_model
from qwen_edge.native.instruction_sets import isa_name

PREFILL = 512
DECODE = 32
BUFFER_BYTES = 1 << 29


def prefill_rate(engine: NativeEngine) -> float:
    """Tokens per second of a prompt of PREFILL tokens."""
    engine.truncate(0)
    chunk = engine.config.prefill_rows
    start = time.perf_counter()
    for begin in range(0, PREFILL, chunk):
        engine.forward([Row(0, i, i % 199, i == PREFILL - 1) for i in range(begin, begin + chunk)])
    return PREFILL / (time.perf_counter() - start)


def decode_rate(engine: NativeEngine) -> float:
    """Tokens per second of DECODE steps of one row each, from an empty cache."""
    engine.truncate(0)
    engine.forward([Row(0, 0, 1, True)])
    start = time.perf_counter()
    for i in range(DECODE):
        engine.forward([Row(0, 1 + i, 2, True)])
    return DECODE / (time.perf_counter() - start)


def speeds(engine: NativeEngine, prefill: int, decode: int) -> dict[str, float]:
    """Tokens a second of one call of ``prefill`` rows, and of the decode steps behind it."""
    engine.truncate(0)
    times = [time.perf_counter()]
    engine.forward([Row(0, i, i % 199, i == prefill - 1) for i in range(prefill)])
    times.append(time.perf_counter())
    for i in range(decode):
        engine.forward([Row(0, prefill + i, 2, True)])
    times.append(time.perf_counter())
    return {"decode": decode / (times[2] - times[1]), "prefill": prefill / (times[1] - times[0])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    config = EngineConfig(context=PREFILL, threads=arguments.threads, prefill_rows=128)
    rates: dict[str, list[float]] = {"bandwidth": [], "prefill": [], "decode": [], "share": []}
    with open_model(arguments.model) as model, NativeEngine(model, config) as engine:
        weights = sum(t.nbytes for t in model.tensors.values() if t.type in ("q4", "q8"))
        decode_rate(engine)
        for _ in range(arguments.repeats):
            before = read_bandwidth(BUFFER_BYTES, arguments.threads, passes=3)
            decode = decode_rate(engine)
            after = read_bandwidth(BUFFER_BYTES, arguments.threads, passes=3)
            bandwidth = (before + after) / 2
            rates["bandwidth"].append(bandwidth / 1e9)
            rates["decode"].append(decode)
            rates["share"].append(100 * decode * weights / bandwidth)
            rates["prefill"].append(prefill_rate(engine))
    units = {"bandwidth": "GB/s", "prefill": "tokens/s", "decode": "tokens/s", "share": "%"}
    print(
        f"{model.name}: {weights / 1e6:.0f} MB of weights, {isa_name()}, {config.threads} threads"
    )
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name:9} {middle:8.1f} {units[name]}  ({min(values):.1f} to {max(values):.1f})")
    if arguments.output:
        result = {"model": model.name, "isa": isa_name(), "threads": config.threads, "rates": rates}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
