"""Decode speed deep in a context, for each type of the KV cache, beside the read bandwidth.

    python -m benchmarks.long_context MODEL.qedge [--depths 0,2048,8192,32768] [--kv int8,int4]
                                      [--threads 2] [--repeats 7] [--output FILE.json]

The context is not computed but stretched: its positions hold copies of the first ones in memory of
their own, which costs a decode step what real ones do. Depths take turns, with the bandwidth
measured between them. A step reads all weights and all keys and values; the share is those bytes,
times the speed, of the bandwidth. What a depth costs more than the empty context, by the bytes of
its keys and values, is the speed at which the cache is gone through. Prints medians. Needs the
memory for the caches of all depths of one type.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from qwen_edge.engine.bandwidth import read_bandwidth
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.memory_estimate import kv_bytes_per_token
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.native.instruction_sets import isa_name

STEPS = 6
FIRST = 32  # positions that are computed
BANDWIDTH_BYTES = 256 << 20


def decode_seconds(engine: NativeEngine, sequence: int, depth: int) -> float:
    """Median seconds of a few steps from ``depth`` on; the sequence is as it was afterwards."""
    seconds = []
    for step in range(STEPS):
        start = time.perf_counter()
        engine.forward([Row(sequence, depth + step, 5, True)])
        seconds.append(time.perf_counter() - start)
    engine.truncate(depth, sequence)
    return statistics.median(seconds)


def measure(
    model: PackedModel, config: EngineConfig, depths: list[int], repeats: int
) -> list[dict[str, float]]:
    """A record for each depth, the first of them 0."""
    weights = sum(t.nbytes for t in model.tensors.values() if t.type in ("q4", "q8"))
    token = kv_bytes_per_token(model.config, config.kv_type)
    seconds: dict[int, list[float]] = {depth: [] for depth in depths}
    bandwidth: dict[int, list[float]] = {depth: [] for depth in depths}
    with NativeEngine(model, config) as engine:
        for sequence, depth in enumerate(depths):
            if depth:
                engine.forward([Row(sequence, i, i * 7919 % 251) for i in range(FIRST)])
                engine.stretch(depth, sequence)
            decode_seconds(engine, sequence, depth)
        for _ in range(repeats):
            for sequence, depth in enumerate(depths):
                bandwidth[depth].append(read_bandwidth(BANDWIDTH_BYTES, config.threads, passes=3))
                seconds[depth].append(decode_seconds(engine, sequence, depth))
    empty = seconds[0]
    records = []
    for depth in depths:
        kv_bytes = depth * token
        step = statistics.median(seconds[depth])
        shares = [
            (weights + kv_bytes) / own / read
            for own, read in zip(seconds[depth], bandwidth[depth], strict=True)
        ]
        more = [own - other for own, other in zip(seconds[depth], empty, strict=True)]
        records.append(
            {
                "depth": depth, "ms": 1e3 * step, "tokens_per_second": 1 / step,
                "kv_mb": kv_bytes / 1e6, "read_gb": (weights + kv_bytes) / step / 1e9,
                "bandwidth_gb": statistics.median(bandwidth[depth]) / 1e9,
                "share": statistics.median(shares),
                "kv_read_gb": kv_bytes / statistics.median(more) / 1e9 if depth else 0.0,
            }
        )  # fmt: skip
    return records


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--depths", default="0,2048,8192,32768")
    parser.add_argument("--kv", default="int8,int4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    depths = sorted({0, *(int(depth) for depth in arguments.depths.split(","))})
    if any(0 < depth < FIRST for depth in depths):
        parser.error(f"a depth is 0 or at least {FIRST}")
    result: dict[str, object] = {
        "isa": isa_name(), "threads": arguments.threads, "context": "stretched",
    }  # fmt: skip
    with open_model(arguments.model) as model:
        result["model"] = model.name
        for kv in arguments.kv.split(","):
            config = EngineConfig(
                context=depths[-1] + STEPS, kv_type=kv, threads=arguments.threads,
                prefill_rows=FIRST, sequences=len(depths),
            )  # fmt: skip
            records = measure(model, config, depths, arguments.repeats)
            result[kv] = records
            for r in records:
                print(
                    f"{kv:5} depth {r['depth']:6.0f}: {r['ms']:7.2f} ms a token, "
                    f"{r['read_gb']:5.1f} GB/s, {100 * r['share']:3.0f} % of "
                    f"{r['bandwidth_gb']:.1f} GB/s; the cache at {r['kv_read_gb']:.1f} GB/s",
                    flush=True,
                )
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
