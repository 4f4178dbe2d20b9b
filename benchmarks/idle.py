"""What waiting costs: processor time while an engine idles, and waking its threads again.

    python -m benchmarks.idle MODEL.qedge [--threads 2] [--repeats 20] [--output FILE.json]

Counts processor time, which other programs do not change, except for the waking: a decode step
right after another one beside a step after a pause, in which the workers went to sleep.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from benchmarks.spread import spread
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import PackedModel, open_model


@dataclass(frozen=True)
class Waiting:
    """What one repeat found, in microseconds unless said.

    Attributes:
        idle_share: processor time of the idle seconds as a share of them.
        after_call: processor time of the first 20 milliseconds after a call: the spinning.
        step: duration of a decode step right after another.
        step_after_pause: duration of one after the pause.
        busy_share: processor time of decode steps as a share of their time on all threads.
    """

    idle_share: float
    after_call: float
    step: float
    step_after_pause: float
    busy_share: float


def wait_once(engine: NativeEngine, seconds: float) -> Waiting:
    """An answer of some tokens, a pause, and one step more."""
    clock, used = time.perf_counter, time.process_time
    engine.truncate(0)
    engine.forward([Row(0, 0, 1, True)])
    steps = []
    cpu, begin = used(), clock()
    for i in range(1, 16):
        start = clock()
        engine.forward([Row(0, i, 2, True)])
        steps.append(clock() - start)
    end, after = clock(), used()
    time.sleep(0.02)
    spun = used()
    time.sleep(seconds)
    idle = used()
    start = clock()
    engine.forward([Row(0, 16, 2, True)])
    return Waiting(
        idle_share=(idle - spun) / seconds,
        after_call=(spun - after) * 1e6,
        step=sorted(steps)[len(steps) // 2] * 1e6,
        step_after_pause=(clock() - start) * 1e6,
        busy_share=(after - cpu) / (end - begin) / engine.config.threads,
    )


def wait(model: PackedModel, threads: int, repeats: int, seconds: float) -> list[Waiting]:
    """All repeats."""
    with NativeEngine(model, EngineConfig(context=64, threads=threads)) as engine:
        wait_once(engine, 0.01)
        return [wait_once(engine, seconds) for _ in range(repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each pause")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with open_model(arguments.model) as model:
        found = wait(model, arguments.threads, arguments.repeats, arguments.seconds)
    samples = {name: [asdict(w)[name] for w in found] for name in asdict(found[0])}
    for name, values in samples.items():
        scale, unit = (100, "%") if name.endswith("share") else (1, "us")
        print(f"{name:17} {spread(values).text(scale)} {unit}")
    if arguments.output:
        record = {
            "threads": arguments.threads,
            "seconds": arguments.seconds,
            "date": date.today().isoformat(),
            "samples": samples,
        }
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
