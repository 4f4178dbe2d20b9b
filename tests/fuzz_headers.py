"""Mutates the headers of GGUF, safetensors and .qedge files, and opens what comes out.

    python -m tests.fuzz_headers --minutes 10 [--seed N]

Whatever the bytes: the readers open the file or raise one of the program's own errors, within ten
seconds and a gigabyte of address space. Batches run in processes of their own, so that a crash is
seen; a finding names the seed that repeats it. Needs the gguf package.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from qwen_edge.errors import QwenEdgeError
from qwen_edge.model.checkpoint import open_checkpoint
from qwen_edge.model.convert import convert
from qwen_edge.model.gguf import open_gguf
from qwen_edge.model.packed import open_model
from qwen_edge.text.pack_tokenizer import pack_tokenizer
from tests.model.files import BLOB, write_checkpoint
from tests.model.gguf_files import write_gguf

BATCH = 200
SECONDS = 10
ADDRESS_SPACE = 1 << 30
NUMBERS = (0, 1, 2, 7, 8, 9, 31, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
           1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
TEXTS = (b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b"9" * 5000, b"[" * 3000, b"{}",
         b'"x"', b"null", b"true", b"1.5", b'"\\ud800"', b"\xff\xfe", b"[[]]", b"")  # fmt: skip


class Seeds:
    """Sound files, made once: content, how much of it is header, and what opens it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_checkpoint(folder / "hf")
        convert(folder / "hf", folder / "model.qedge", tokenizer=BLOB)
        write_gguf(folder / "model.gguf")
        with open_gguf(folder / "model.gguf") as source:
            gguf_header = min(tensor._begin for tensor in source.tensors.values())  # type: ignore[attr-defined]
        self.kinds: dict[str, tuple[Path, int, Callable[[Path], None]]] = {
            "gguf": (folder / "model.gguf", gguf_header, _open_gguf),
            "safetensors": (
                folder / "hf" / "model.safetensors",
                _json_end(folder / "hf" / "model.safetensors"),
                lambda path: open_checkpoint(path.parent).close(),
            ),
            "qedge": (
                folder / "model.qedge",
                _json_end(folder / "model.qedge"),
                lambda path: open_model(path).close(),
            ),
        }
        self.contents = {kind: entry[0].read_bytes() for kind, entry in self.kinds.items()}


def _json_end(path: Path) -> int:
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _open_gguf(path: Path) -> None:
    with open_gguf(path) as source:
        pack_tokenizer(source.tokenizer_json())


def mutate(content: bytes, header: int, kind: str, numbers: random.Random) -> bytes:
    """One to four changes of the header; rarely, an end somewhere."""
    head = bytearray(content[:header])
    for _ in range(numbers.choice((1, 1, 1, 2, 4))):
        # Near the beginning are the counts that everything else hangs on.
        place = numbers.randrange(min(len(head), numbers.choice([64, 2048, len(head)])) or 1)
        choice = numbers.randrange(6)
        if choice == 0:
            head[place : place + 1] = bytes([numbers.randrange(256)])
        elif choice == 1:
            size = numbers.choice([4, 8])
            head[place : place + size] = (numbers.choice(NUMBERS) % (1 << 8 * size)).to_bytes(
                size, "little"
            )
        elif choice == 2:
            del head[place : place + numbers.randint(1, 64)]
        elif choice == 3:
            other = numbers.randrange(len(head) or 1)
            head[place:place] = head[other : other + numbers.randint(1, 64)]
        elif kind == "gguf":
            bit = 1 << numbers.randrange(8)
            if place < len(head):
                head[place] ^= bit
        else:
            tokens = [m.span() for m in re.finditer(rb"[-\d.]+|\"[^\"]*\"", head[8:])]
            if tokens:
                begin, end = numbers.choice(tokens)
                head[8 + begin : 8 + end] = numbers.choice(TEXTS)
    if kind != "gguf" and numbers.random() < 0.7:
        head[:8] = (len(head) - 8).to_bytes(8, "little")
    result = bytes(head) + content[header:]
    return result[: numbers.randrange(len(result) + 1)] if numbers.random() < 0.05 else result


def attempt(seeds: Seeds, seed: int) -> str:
    """Opens the mutation of a seed; returns ``opened`` or ``refused``.

    Raises:
        Exception: whatever is not an error of the program's own.
    """
    numbers = random.Random(seed)
    kind = numbers.choice(list(seeds.kinds))
    path, header, opens = seeds.kinds[kind]
    path.write_bytes(mutate(seeds.contents[kind], header, kind, numbers))
    try:
        opens(path)
    except QwenEdgeError:
        return "refused"
    finally:
        path.write_bytes(seeds.contents[kind])
    return "opened"


def limit_memory() -> None:
    """Lets this process take a gigabyte of address space more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, hard))


def _batch(folder: Path, first: int, report: multiprocessing.SimpleQueue[object]) -> None:
    folder.mkdir()
    seeds = Seeds(folder)
    limit_memory()
    counts = {"opened": 0, "refused": 0}
    for seed in range(first, first + BATCH):
        report.put(seed)
        signal.alarm(SECONDS)
        counts[attempt(seeds, seed)] += 1
    signal.alarm(0)
    report.put(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    first, findings = arguments.seed, 0
    totals = {"opened": 0, "refused": 0}
    context = multiprocessing.get_context("fork")
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as name:
            report: multiprocessing.SimpleQueue[object] = context.SimpleQueue()
            child = context.Process(target=_batch, args=(Path(name) / "seeds", first, report))
            child.start()
            last: object = first
            while child.is_alive() or not report.empty():
                if report.empty():
                    child.join(0.01)
                    continue
                last = report.get()
            if isinstance(last, dict):
                for key, count in last.items():
                    totals[key] += count
                first += BATCH
            else:
                findings += 1
                print(f"seed {last}: ended with {child.exitcode}", flush=True)
                first = int(str(last)) + 1
    print(f"{totals['opened']} opened, {totals['refused']} refused, {findings} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
