"""What an adapter costs: decode and prefill beside one on all seven projections, over without.

    python -m benchmarks.lora MODEL.qedge [--threads 2] [--turns 40] [--output FILE.json]

Random adapters of each rank are made, loaded by an engine each, and measured in turn with an engine
that has none: a turn is a prefill of 128 tokens and 8 decode steps of each engine, short enough for
a machine that changes its speed to have about one speed in it, the order turned around every time.
Ratios are turn by turn. The read bandwidth is measured before, in the middle and behind. Needs
numpy.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import BUFFER_BYTES, speeds
from benchmarks.spread import paired_ratio, spread
from qwen_edge.engine.adapter import adapter_bytes
from qwen_edge.engine.bandwidth import read_bandwidth
from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.adapter import PROJECTIONS, WEIGHTS, open_adapter
from qwen_edge.model.adapter_settings import SETTINGS
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.packed import ModelConfig, PackedModel, open_model
from qwen_edge.native.instruction_sets import isa_name

RANKS = (8, 16, 64)
PREFILL, DECODE = 128, 8
WITHOUT = "none"


def write_random(folder: Path, config: ModelConfig, rank: int) -> Path:
    """A random adapter of a rank on all projections, as PEFT saves it in bf16."""
    random = np.random.default_rng(rank)
    header: dict[str, Any] = {}
    parts, end = [], 0
    shapes = tensor_shapes(config)
    for layer in range(config.layers):
        for projection in PROJECTIONS:
            name = f"model.layers.{layer}.{projection}"
            out, into = shapes[f"{name}.weight"]
            for letter, shape in (("A", (rank, into)), ("B", (out, rank))):
                values = random.standard_normal(shape, np.float32) * np.float32(0.01)
                data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
                span = [end, end + len(data)]
                key = f"base_model.model.{name}.lora_{letter}.weight"
                header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": span}
                parts.append(data)
                end += len(data)
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    return folder


def engines(
    model: PackedModel, threads: int, folder: Path, stack: contextlib.ExitStack
) -> Iterator[tuple[str, NativeEngine, dict[str, float]]]:
    """An engine without an adapter, and one for each rank; what loading it took."""
    config = EngineConfig(context=PREFILL + DECODE, threads=threads, prefill_rows=PREFILL)
    yield WITHOUT, stack.enter_context(NativeEngine(model, config)), {}
    for rank in RANKS:
        engine = stack.enter_context(NativeEngine(model, config))
        path = write_random(folder / str(rank), model.config, rank)
        start = time.perf_counter()
        with open_adapter(path, model.config) as adapter:
            engine.set_adapter(adapter)
            facts = {
                "load_seconds": round(time.perf_counter() - start, 4),
                "bytes": adapter_bytes(adapter, config.prefill_rows),
            }
        yield str(rank), engine, facts


def measure(model: PackedModel, threads: int, turns: int) -> dict[str, Any]:
    """All samples of a model."""
    with (
        contextlib.ExitStack() as stack,
        tempfile.TemporaryDirectory() as folder,
    ):
        made = list(engines(model, threads, Path(folder), stack))
        rates: dict[str, dict[str, list[float]]] = {
            name: {"decode": [], "prefill": []} for name, _, _ in made
        }
        bandwidths = []
        for _, engine, _ in made:
            speeds(engine, PREFILL, DECODE)
        for turn in range(turns):
            if turn in (0, turns // 2, turns - 1):
                bandwidths.append(read_bandwidth(BUFFER_BYTES, threads, passes=3) / 1e9)
            for name, engine, _ in made if turn % 2 else made[::-1]:
                for kind, rate in speeds(engine, PREFILL, DECODE).items():
                    rates[name][kind].append(round(rate, 3))
    return {
        "model": model.name,
        "isa": isa_name(),
        "threads": threads,
        "turns": turns,
        "date": time.strftime("%Y-%m-%d"),
        "bandwidth_gb_s": [round(value, 2) for value in bandwidths],
        "adapters": {name: facts for name, _, facts in made if facts},
        "rates": rates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with open_model(arguments.model) as model:
        result = measure(model, arguments.threads, arguments.turns)
    print(f"{result['model']}, {result['isa']}, {result['threads']} threads")
    without = result["rates"][WITHOUT]
    for name, rates in result["rates"].items():
        for kind, values in rates.items():
            ratio = paired_ratio(values, without[kind]).text()
            print(f"rank {name:5} {kind:8} {spread(values).text():28} tokens/s, ratio {ratio}")
    print(f"read bandwidth {spread(result['bandwidth_gb_s']).text()} GB/s")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
