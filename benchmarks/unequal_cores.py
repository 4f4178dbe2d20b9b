"""Two threads when something else takes a part of one core, beside the two cores' speeds added up.

    python -m benchmarks.unequal_cores MODEL.qedge [--turns 7] [--output FILE.json]

A process that is tied to the second core computes for a share of every period and sleeps for the
rest. At each share three engines on the same weights take turns: one thread on the first core
alone, one on the second alone, where it competes, and two threads on both, placed by the system's
scheduler as always. The sum of the first two is what cores that never wait for each other would do
together; the figure is the third as a share of it, turn by turn.

Decode with fast kernels is bound by memory: one core alone takes most of the bandwidth, so that two
are less than their sum without any waiting. Its own share at 0 % says how much. Prefill, and
decode with slow kernels (QWEN_EDGE_ISA=scalar, run as a process of its own), are bound by
arithmetic and tell about the threads alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from statistics import median
from types import TracebackType

from benchmarks.spread import plain, spread
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.native.instruction_sets import isa_name

SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]
PERIOD = 0.01
PREFILL = 128
# At least this long, so that a measurement sees many of the competitor's periods.
SECONDS = 0.25

COMPETITOR = """
import select, sys, time
share, period, clock = 0.0, float(sys.argv[1]), time.perf_counter
while True:
    if select.select([sys.stdin], [], [], None if share == 0 else 0)[0]:
        line = sys.stdin.readline()
        if not line:
            break
        share = float(line)
        print(time.process_time(), clock(), flush=True)
        continue
    begin = clock()
    # A share of time on the wall: a rival that waits for the core does not make up for it later.
    while clock() - begin < share * period:
        pass
    rest = begin + period - clock()
    if share < 1 and rest > 0:
        time.sleep(rest)
"""


class Competitor:
    """A process tied to a core that computes for a share of the time."""

    def __init__(self, core: int, period: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMPETITOR, str(period)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self._process.pid, {core})

    def __enter__(self) -> Competitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def compete(self, share: float) -> tuple[float, float]:
        """Goes on with another share; its processor time so far and the clock, in seconds."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{share}\n")
        self._process.stdin.flush()
        used, now = self._process.stdout.readline().split()
        return float(used), float(now)


def decode(engine: NativeEngine) -> float:
    """Tokens a second of steps of one row."""
    engine.truncate(0)
    engine.forward([Row(0, 0, 1, True)])
    begin = time.perf_counter()
    steps = 0
    while True:
        engine.forward([Row(0, 1 + steps, 2, True)])
        steps += 1
        passed = time.perf_counter() - begin
        if passed >= SECONDS or steps + 1 >= engine.config.context:
            return steps / passed


def prefill(engine: NativeEngine) -> float:
    """Tokens a second of prompts of PREFILL tokens."""
    rows = [Row(0, i, i % 199, i == PREFILL - 1) for i in range(PREFILL)]
    begin = time.perf_counter()
    prompts = 0
    while True:
        engine.truncate(0)
        engine.forward(rows)
        prompts += 1
        passed = time.perf_counter() - begin
        if passed >= SECONDS:
            return prompts * PREFILL / passed


PLACES = ("first", "second", "both")
# Work -> share that the competitor wants -> place -> tokens a second, turn by turn.
Speeds = dict[str, dict[str, dict[str, list[float]]]]


def measure(
    model: PackedModel, cores: tuple[int, int], shares: list[float], turns: int, period: float
) -> tuple[Speeds, dict[str, list[float]]]:
    """The speeds, and the share of the second core that the competitor really got."""
    first, second = cores
    works: dict[str, Callable[[NativeEngine], float]] = {"decode": decode}
    if isa_name() != "scalar":
        works["prefill"] = prefill
    speeds: Speeds = {w: {f"{s:g}": {p: [] for p in PLACES} for s in shares} for w in works}
    taken: dict[str, list[float]] = {f"{share:g}": [] for share in shares}
    places = {"first": {first}, "second": {second}, "both": {first, second}}
    os.sched_setaffinity(0, places["both"])
    with ExitStack() as stack:
        engines = {}
        for place, allowed in places.items():
            config = EngineConfig(context=256, threads=len(allowed), prefill_rows=PREFILL)
            engines[place] = stack.enter_context(NativeEngine(model, config))
            decode(engines[place])
        competitor = stack.enter_context(Competitor(second, period))
        for _ in range(turns):
            for share in shares:
                used, start = competitor.compete(share)
                for work, rate in works.items():
                    for place, allowed in places.items():
                        os.sched_setaffinity(0, allowed)
                        speeds[work][f"{share:g}"][place].append(rate(engines[place]))
                used_then, end = competitor.compete(share)
                taken[f"{share:g}"].append((used_then - used) / (end - start))
            competitor.compete(0)
    return speeds, taken


def share_of_sum(speeds: dict[str, list[float]]) -> list[float]:
    """Both cores together as a share of their single speeds, turn by turn."""
    columns = (speeds[place] for place in PLACES)
    return [both / (first + second) for first, second, both in zip(*columns, strict=True)]


def measure_scalar(arguments: argparse.Namespace) -> Speeds:
    """Decode with slow kernels, which a process chooses when it starts."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "benchmarks.unequal_cores", str(arguments.model)]
        command += ["--turns", str(arguments.turns), "--period", str(arguments.period)]
        command += ["--shares", *map(str, arguments.shares), "--output", file.name]
        environment = os.environ | {"QWEN_EDGE_ISA": "scalar"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        record = json.loads(Path(file.name).read_text(encoding="utf-8"))
    return {f"{work}, scalar": by_share for work, by_share in record["speeds"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--period", type=float, default=PERIOD, help="seconds")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        sys.exit("this needs two cores")
    isa = isa_name()
    with open_model(arguments.model) as model:
        speeds, taken = measure(
            model, (allowed[0], allowed[1]), arguments.shares, arguments.turns, arguments.period
        )
    os.sched_setaffinity(0, allowed)
    if isa != "scalar":
        speeds |= measure_scalar(arguments)
    for work, by_share in speeds.items():
        for share, values in by_share.items():
            alone = " + ".join(plain(median(values[place])) for place in PLACES[:2])
            print(
                f"{work:15} competitor {float(share):4.0%} (got {median(taken[share]):4.0%})  "
                f"{alone} tokens/s alone, {plain(median(values['both']))} together: "
                f"{spread(share_of_sum(values)).text(100)} %"
            )
    if arguments.output:
        record = {
            "isa": isa,
            "turns": arguments.turns,
            "period_ms": 1000 * arguments.period,
            "date": date.today().isoformat(),
            "taken": taken,
            "speeds": speeds,
        }
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
