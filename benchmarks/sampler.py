"""Time of drawing one token from logits of Qwen3's vocabulary.

    python benchmarks/sampler.py [--vocabulary 151936] [--draws 2000] [--output FILE.json]

The logits are like those of a language model: normally distributed, with a few likely tokens far
above the rest. As in an answer, each draw finds them freshly written. Prints the median and the
middle half of the microseconds a draw, the call from Python included. Needs numpy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from qwen_edge.engine.interface import Logits, SamplingParams
from qwen_edge.engine.sampler import Sampler
from qwen_edge.native.instruction_sets import isa_name

CASES = {
    "greedy": SamplingParams(temperature=0),
    "top-k 20, top-p 0.95": SamplingParams(temperature=0.6, top_k=20, top_p=0.95, seed=1),
    "top-k 20, top-p 0.95, min-p 0.05": SamplingParams(
        temperature=0.6, top_k=20, top_p=0.95, min_p=0.05, seed=1
    ),
    "top-p 0.95": SamplingParams(temperature=0.6, top_k=0, top_p=0.95, seed=1),
    "all tokens": SamplingParams(temperature=1.0, top_k=0, top_p=1.0, seed=1),
}


def microseconds(params: SamplingParams, logits: list[np.ndarray], draws: int) -> list[float]:
    """Time of each draw, in turn from every row of logits."""
    size = logits[0].size
    sampler = Sampler(size, params)
    buffer = np.empty(size, np.float32)
    times = []
    for draw in range(draws + len(logits)):
        buffer[:] = logits[draw % len(logits)]
        start = time.perf_counter()
        sampler.sample(Logits(buffer.ctypes.data, size))
        times.append(1e6 * (time.perf_counter() - start))
    return times[len(logits) :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    random = np.random.default_rng(1)
    logits = []
    for _ in range(8):
        row = random.normal(0, 2.5, arguments.vocabulary)
        row[random.integers(0, row.size, 30)] += random.uniform(5, 15, 30)
        logits.append(row.astype(np.float32))
    report: dict[str, object] = {"isa": isa_name(), "vocabulary": arguments.vocabulary}
    print(f"{arguments.vocabulary} logits, {isa_name()}; microseconds a draw")
    for name, params in CASES.items():
        low, middle, high = statistics.quantiles(microseconds(params, logits, arguments.draws), n=4)
        print(f"{name:34} {middle:8.1f}  ({low:.1f} to {high:.1f})")
        report[name] = {
            "median_us": round(middle, 1),
            "quartiles_us": [round(low, 1), round(high, 1)],
            "sampling": {key: value for key, value in asdict(params).items() if value},
        }
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
