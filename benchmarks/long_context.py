"""Decode speed deep in a context, for each type of the KV cache, beside the read bandwidth.

    python -m benchmarks.long_context MODEL.qedge [--depths 0,2048,8192,32768] [--kv int8,int4]
                                      [--threads 2] [--repeats 5] [--output FILE.json]

Fills the context by prefill, then at each depth takes turns between the bandwidth and a few decode
steps. A step reads all weights and all keys and values; the share is those bytes, times the speed,
of the bandwidth. Prints medians. Needs numpy and the memory for the longest cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.speed import BUFFER_BYTES, read_bandwidth
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.memory_estimate import kv_bytes_per_token
from qwen_edge.engine.native import NativeEngine, isa_name
from qwen_edge.model.packed import PackedModel, open_model

STEPS = 6
ROWS = 128


def fill(engine: NativeEngine, begin: int, end: int) -> float:
    """Prefills positions [begin, end); returns tokens a second, 0 for none."""
    start = time.perf_counter()
    for at in range(begin, end, ROWS):
        engine.forward([Row(0, i, i * 7919 % 997) for i in range(at, min(at + ROWS, end))])
    return (end - begin) / (time.perf_counter() - start) if end > begin else 0.0


def measure(model: PackedModel, config: EngineConfig, depths: list[int], repeats: int) -> list[
    dict[str, float]
]:  # fmt: skip
    """A record for each depth: medians of milliseconds a token, bandwidth and share of it."""
    weights = sum(t.nbytes for t in model.tensors.values() if t.type in ("q4", "q8"))
    buffer = np.ones(BUFFER_BYTES // 8, np.int64)
    records, filled = [], 0
    with ThreadPoolExecutor(config.threads) as pool, NativeEngine(model, config) as engine:
        for depth in depths:
            prefill = fill(engine, filled, depth)
            filled = depth
            kv_bytes = depth * kv_bytes_per_token(model.config, config.kv_type)
            seconds, bandwidth = [], []
            for _ in range(repeats):
                bandwidth.append(read_bandwidth(buffer, pool, config.threads))
                for step in range(STEPS):
                    start = time.perf_counter()
                    engine.forward([Row(0, depth + step, 5, True)])
                    seconds.append(time.perf_counter() - start)
                engine.truncate(depth)
            step_time, read = statistics.median(seconds), statistics.median(bandwidth)
            records.append(
                {
                    "depth": depth, "ms": 1e3 * step_time, "tokens_per_second": 1 / step_time,
                    "bandwidth_gb": read / 1e9, "kv_mb": kv_bytes / 1e6,
                    "share": (weights + kv_bytes) / step_time / read,
                    "prefill_tokens_per_second": prefill,
                }
            )  # fmt: skip
    return records


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--depths", default="0,2048,8192,32768")
    parser.add_argument("--kv", default="f16,int8,int4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    depths = sorted(int(depth) for depth in arguments.depths.split(","))
    result: dict[str, object] = {"isa": isa_name(), "threads": arguments.threads}
    with open_model(arguments.model) as model:
        result["model"] = model.name
        for kv in arguments.kv.split(","):
            config = EngineConfig(
                context=depths[-1] + STEPS, kv_type=kv, threads=arguments.threads,
                prefill_rows=ROWS,
            )  # fmt: skip
            records = measure(model, config, depths, arguments.repeats)
            result[kv] = records
            for r in records:
                print(
                    f"{kv:5} depth {r['depth']:6.0f}: {r['tokens_per_second']:6.1f} tokens/s, "
                    f"{100 * r['share']:3.0f} % of {r['bandwidth_gb']:.1f} GB/s; prefill up to "
                    f"there {r['prefill_tokens_per_second']:.0f} tokens/s",
                    flush=True,
                )
            if arguments.output:  # the longest caches take minutes to fill: keep what there is
                text = json.dumps(result, indent=1) + "\n"
                arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
