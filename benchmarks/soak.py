"""Mixed requests on three engines for half an hour: does anything grow, slow down, or err?

    python -m benchmarks.soak [--model demo] [--minutes 30] [--seed 0] [--output FILE.json]

Requests are drawn at random for engines with fp16, INT8 and INT4 caches, with drafts and without:
answers to prompts of any length with any sampling, chats that grow, texts that repeat themselves,
answers broken off in the middle and in the prompt, forks, truncations, batches over all sequences,
prompt caches on disk whole and damaged, contexts that overflow, and calls that must be refused.
Each minute ends with the same greedy answers on emptied sequences, and they must never change. The
minute's speed is the fastest of several, since other programs only ever take speed away; a program
that stays shows in a fixed computation on one thread beside it, and what that lost is allowed.
Exits with 1 if memory grew from the first fifth to the last by more than --growth MiB an hour, if
the speed fell below --slowest of the first fifth's, if there are more threads, open files or
temporary files than in the first fifth, or if an answer changed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.soak_requests import CONTEXT, SEQUENCES, Requests
from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.speculation import MAX_DRAFTS
from qwen_edge.host.memory_facts import own_memory
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.native.checksum import checksum

# KV type and drafts of each engine. The first one's answer is the one that is timed.
ENGINES = (("int8", MAX_DRAFTS), ("int4", 0), ("f16", MAX_DRAFTS))
REFERENCE_PROMPT, REFERENCE_TOKENS = 64, 64
# The fastest of so many counts: other programs only ever take speed away.
TRIES = 9
YARDSTICK = bytes(range(256)) * 16384
MIB = 1 << 20


@dataclass(frozen=True)
class Minute:
    """A minute's figures, taken at its end with all sequences empty.

    Attributes:
        requests: finished, broken off or refused in it.
        resident: bytes, mapped weights included.
        anonymous: resident bytes of the process's own, without what is mapped from files.
        files: open file descriptors.
        threads: of the process.
        temporary: files in the folder for temporary ones.
        speed: tokens a second of the reference answer, the fastest of TRIES.
        yardstick: bytes a second of a checksum on one thread, likewise.
    """

    requests: int
    resident: int
    anonymous: int
    files: int
    threads: int
    temporary: int
    speed: float
    yardstick: float


def resident_bytes() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reference(engine: NativeEngine) -> tuple[list[int], float]:
    """The same greedy answer; its tokens, and tokens a second after the first."""
    prompt = [1 + 7 * i for i in range(REFERENCE_PROMPT)]
    generation = Generation(
        engine, prompt, SamplingParams(temperature=0), max_tokens=REFERENCE_TOKENS, stop_ids=()
    )
    ids = [step.id for step in generation]
    return ids, (len(ids) - 1) / generation.stats.decode_seconds


def yardstick() -> float:
    """Bytes a second of a fixed computation on one thread."""
    begin = time.perf_counter()
    checksum(YARDSTICK)
    return len(YARDSTICK) / (time.perf_counter() - begin)


def take_figures(requests: int, engine: NativeEngine, folder: Path) -> Minute:
    """The figures of a minute that has just ended."""
    tries = [(reference(engine)[1], yardstick()) for _ in range(TRIES)]
    return Minute(
        requests=requests,
        resident=resident_bytes(),
        anonymous=own_memory().anonymous or 0,
        files=len(os.listdir("/proc/self/fd")),
        threads=len(os.listdir("/proc/self/task")),
        temporary=len(os.listdir(folder)),
        speed=max(speed for speed, _ in tries),
        yardstick=max(rate for _, rate in tries),
    )


def soak(model: PackedModel, minutes: float, seed: int, threads: int) -> tuple[list[Minute], bool]:
    """Runs requests; returns each minute's figures and whether the answers stayed the same."""
    same = True
    figures: list[Minute] = []
    draw = random.Random(seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engines = []
        for kv_type, drafts in ENGINES:
            config = EngineConfig(
                context=CONTEXT, sequences=SEQUENCES, threads=threads, kv_type=kv_type,
                drafts=drafts,
            )  # fmt: skip
            engines.append(stack.enter_context(NativeEngine(model, config)))
        users = [Requests(model, e, seed + i, folder / f"{i}") for i, e in enumerate(engines)]
        for user in users:
            user.fill()
            user.empty()
            # Each kind once, too: what the first file or the first error loads is no leak.
            user.all()
            user.empty()
        expected = [reference(engine)[0] for engine in engines]
        begin = time.monotonic()
        while time.monotonic() - begin < 60 * minutes:
            count = 0
            # Shorter runs have shorter "minutes", so that there are fifths to compare.
            end = begin + (len(figures) + 1) * min(60, 60 * minutes / 10)
            while count == 0 or time.monotonic() < end:
                draw.choice(users).any()
                count += 1
            for user in users:
                user.empty()
            same = same and expected == [reference(engine)[0] for engine in engines]
            figures.append(take_figures(count, engines[0], folder))
            print(f"{len(figures):3}: {json.dumps(asdict(figures[-1]))}", flush=True)
    return figures, same


def judge(
    figures: list[Minute], minutes: float, same: bool, growth: float, slowest: float
) -> dict[str, object]:
    """The record of a run: first and last fifth, growth, and the verdict."""
    fifth = max(len(figures) // 5, 1)
    parts = (figures[:fifth], figures[-fifth:])
    resident = [median(m.resident for m in part) / MIB for part in parts]
    anonymous = [median(m.anonymous for m in part) / MIB for part in parts]
    speed = [median(m.speed for m in part) for part in parts]
    stick = [median(m.yardstick for m in part) for part in parts]
    hours = 0.8 * minutes / 60
    grown = (resident[1] - resident[0]) / hours
    own = (anonymous[1] - anonymous[0]) / hours
    faults = []
    if grown > growth:
        faults.append(f"memory grows by {grown:.1f} MiB an hour")
    if own > growth:
        faults.append(f"own memory grows by {own:.1f} MiB an hour")
    # What the machine itself has lost does not count.
    if speed[1] < slowest * speed[0] * min(1, stick[1] / stick[0]):
        faults.append(f"speed fell to {speed[1] / speed[0]:.0%}")
    for name in ("files", "threads", "temporary"):
        first, last = (max(getattr(m, name) for m in part) for part in parts)
        if last > first:
            faults.append(f"{name} grew from {first} to {last}")
    if not same:
        faults.append("a reference answer changed")
    return {
        "minutes": minutes,
        "requests": sum(m.requests for m in figures),
        "rss_first_mib": resident[0],
        "rss_last_mib": resident[1],
        "rss_growth_mib_per_hour": grown,
        "anonymous_growth_mib_per_hour": own,
        "allowed_mib_per_hour": growth,
        "files": figures[-1].files,
        "threads": figures[-1].threads,
        "temporary": figures[-1].temporary,
        "speed_first": speed[0],
        "speed_last": speed[1],
        "yardstick_last": stick[1] / stick[0],
        "slowest": slowest,
        "verdict": "; ".join(faults) or "stable, and the same answers every minute",
        "passed": not faults,
        "samples": [asdict(m) for m in figures],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a .qedge file; the built-in demo by default")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", type=int, default=0, help="all cores by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--growth", type=float, default=4, help="MiB an hour that are allowed")
    parser.add_argument("--slowest", type=float, default=0.8, help="of the first fifth's speed")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    demo = Path(__file__).resolve().parents[1] / "qwen_edge" / "demo" / "demo.qedge"
    with open_model(arguments.model or demo) as model:
        figures, same = soak(model, arguments.minutes, arguments.seed, arguments.threads)
    record = judge(figures, arguments.minutes, same, arguments.growth, arguments.slowest)
    print(record["verdict"])
    if arguments.output:
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    sys.exit(not record["passed"])


if __name__ == "__main__":
    main()
