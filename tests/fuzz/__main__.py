"""Changes files of every kind that is read, and reads what comes out.

    python -m tests.fuzz --minutes 10 [--seed N] [--folder DIR] [--unlimited]

Model files, GGUF, checkpoints in safetensors (floats, FP8, GPTQ, AWQ, bitsandbytes; their JSON
files, indexes and side tensors), adapters and prompt caches. Whatever the bytes: they are read to
the end or refused by one of the program's documented errors, within ten seconds and a gigabyte of
address space. Batches run in processes of their own, so that a crash is seen; a finding names the
seed that repeats it. Needs the gguf and safetensors packages.

With ``QWEN_EDGE_LIBRARY`` naming a library that was built with a sanitizer, and ``--unlimited``
because sanitizers reserve all the address space there is, every access of native code is checked.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.seeds import Seeds, attempt

BATCH = 500
SECONDS = 10
ADDRESS_SPACE = 1 << 30


def limit_memory() -> None:
    """Lets this process take a gigabyte of address space more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, hard))


def _batch(
    folder: Path, first: int, unlimited: bool, report: multiprocessing.SimpleQueue[object]
) -> None:
    folder.mkdir()
    seeds = Seeds(folder)
    if not unlimited:
        limit_memory()
    counts: Counter[str] = Counter()
    for seed in range(first, first + BATCH):
        report.put(seed)
        # The default of this signal ends the process.
        signal.alarm(SECONDS)
        counts[attempt(seeds, seed)] += 1
    signal.alarm(0)
    report.put(dict(counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to write, by default the system's /tmp")
    parser.add_argument("--unlimited", action="store_true", help="any amount of address space")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    first, findings = arguments.seed, 0
    totals: Counter[str] = Counter()
    context = multiprocessing.get_context("fork")
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            report: multiprocessing.SimpleQueue[object] = context.SimpleQueue()
            batch = (Path(name) / "seeds", first, arguments.unlimited, report)
            child = context.Process(target=_batch, args=batch)
            child.start()
            last: object = first
            while child.is_alive() or not report.empty():
                if report.empty():
                    child.join(0.01)
                    continue
                last = report.get()
            if isinstance(last, dict):
                totals.update(last)
                first += BATCH
            else:
                findings += 1
                print(f"seed {last}: ended with {child.exitcode}", flush=True)
                first = int(str(last)) + 1
    for kind, count in sorted(totals.items()):
        print(f"{kind:24}{count:8}")
    print(f"{totals.total()} files, next seed {first}, {findings} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
