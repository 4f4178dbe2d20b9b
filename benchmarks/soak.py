"""Mixed requests on one engine for half an hour: does memory grow, does it slow down, does it err?

    python -m benchmarks.soak [--model demo] [--minutes 30] [--seed 0] [--output FILE.json]

Requests are drawn at random: answers to prompts of any length with any sampling, chats that grow,
answers broken off in the middle and in the prompt, forks, truncations, batches over all sequences.
Each minute ends with the same greedy answer on emptied sequences: its tokens must never change, its
speed and the resident memory then are the minute's figures. Exits with 1 if memory grew from the
first fifth to the last by more than --growth MiB an hour, if the speed fell below --slowest of the
first fifth's, or if the answer changed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import EngineConfig, Row, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.text.chat_template import encode_chat
from qwen_edge.text.tokenizer import Tokenizer

SEQUENCES = 4
CONTEXT = 1024
REFERENCE_PROMPT, REFERENCE_TOKENS = 64, 64
# The fastest of so many counts: other programs only ever take speed away.
TRIES = 9
MIB = 1 << 20


class Cancelled(Exception):
    """Raised by a request on itself, as an interrupt would."""


@dataclass(frozen=True)
class Minute:
    """A minute's figures, taken at its end with all sequences empty.

    Attributes:
        requests: finished or broken off in it.
        resident: bytes, mapped weights included.
        speed: tokens a second of the reference answer, the fastest of TRIES.
    """

    requests: int
    resident: int
    speed: float


def resident_bytes() -> int:
    """Resident bytes of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


class Requests:
    """Draws and runs requests.

    Args:
        model: open, with a tokenizer.
        engine: with SEQUENCES sequences of CONTEXT positions.
        seed: the same one draws the same requests.
    """

    def __init__(self, model: PackedModel, engine: NativeEngine, seed: int) -> None:
        self._engine = engine
        self._random = random.Random(seed)
        self._template = model.chat_template
        table = model.tensors["tokenizer"]
        address = model.address("tokenizer")
        self._tokenizer = Tokenizer.from_blob(address, table.nbytes, owner=model)
        self._messages: list[dict[str, object]] = []
        self._kinds = (self.answer, self.chat, self.cancel, self.fork, self.truncate, self.batch)

    def any(self) -> None:
        """Runs one request of a kind drawn at random."""
        self._random.choice(self._kinds)()

    def _ids(self, length: int) -> list[int]:
        return [self._random.randrange(self._engine.vocab_size) for _ in range(length)]

    def _sampling(self) -> SamplingParams:
        r = self._random
        return SamplingParams(
            temperature=r.choice((0.0, 0.6, 1.5)),
            top_k=r.choice((0, 1, 20, 200)),
            top_p=r.choice((0.5, 0.95, 1.0)),
            min_p=r.choice((0.0, 0.1)),
            repetition_penalty=r.choice((1.0, 1.2)),
            presence_penalty=r.choice((0.0, 0.5)),
            seed=r.randrange(1 << 32),
        )

    def answer(self) -> None:
        """A prompt of up to half of the context and up to 64 tokens of answer."""
        prompt = self._ids(self._random.randint(1, CONTEXT // 2))
        tokens = self._random.randint(1, 64)
        sequence = self._random.randrange(SEQUENCES)
        generation = Generation(
            self._engine, prompt, self._sampling(),
            max_tokens=tokens, stop_ids=(), sequence=sequence,
            logprobs=self._random.choice((None, 0, 5)),
        )  # fmt: skip
        for _ in generation:
            pass

    def chat(self) -> None:
        """The next turn of a chat, which begins anew when it gets long."""
        text = " ".join(self._random.choices(("where", "cache", "记忆", "the", "?"), k=12))
        self._messages.append({"role": "user", "content": text})
        ids = encode_chat(self._tokenizer, self._template, self._messages, enable_thinking=False)
        generation = Generation(
            self._engine, ids, self._sampling(), max_tokens=32, stop_ids=(), sequence=0
        )
        answer = [step.id for step in generation]
        content = self._tokenizer.decode(answer)
        self._messages.append({"role": "assistant", "content": content})
        if len(ids) + len(answer) > CONTEXT // 2:
            self._messages.clear()

    def cancel(self) -> None:
        """An answer that is broken off, in its prompt or after some tokens."""
        after = self._random.randint(0, 8)

        def on_prefill(done: int, todo: int) -> None:
            if after == 0 and done < todo:
                raise Cancelled

        prompt = self._ids(self._random.randint(1, CONTEXT // 2))
        generation = Generation(
            self._engine, prompt, self._sampling(),
            max_tokens=32, stop_ids=(), on_prefill=on_prefill,
        )  # fmt: skip
        try:
            for count, _ in enumerate(generation):
                if count >= after:
                    raise Cancelled
        except Cancelled:
            return

    def fork(self) -> None:
        """One sequence begins as part of another."""
        source, target = self._random.sample(range(SEQUENCES), 2)
        length = self._random.randint(0, len(self._engine.cached_ids(source)))
        self._engine.fork(source, target, length)

    def truncate(self) -> None:
        """A sequence forgets its end."""
        sequence = self._random.randrange(SEQUENCES)
        held = len(self._engine.cached_ids(sequence))
        self._engine.truncate(self._random.randint(0, held), sequence)

    def batch(self) -> None:
        """Steps of all sequences that have room, in one call each."""
        for _ in range(self._random.randint(1, 16)):
            rows = [
                Row(s, len(self._engine.cached_ids(s)), self._ids(1)[0], True)
                for s in range(SEQUENCES)
                if len(self._engine.cached_ids(s)) < CONTEXT
            ]
            if rows:
                self._engine.forward(rows)

    def empty(self) -> None:
        """All sequences forget everything."""
        for sequence in range(SEQUENCES):
            self._engine.truncate(0, sequence)

    def fill(self) -> None:
        """All sequences at their longest, once: what memory is kept then is no leak."""
        for sequence in range(SEQUENCES):
            for begin in range(0, CONTEXT, 64):
                self._engine.forward([Row(sequence, begin + i, 1 + i, i == 63) for i in range(64)])


def reference(engine: NativeEngine) -> tuple[list[int], float]:
    """The same greedy answer; its tokens, and tokens a second after the first."""
    prompt = [1 + 7 * i for i in range(REFERENCE_PROMPT)]
    generation = Generation(
        engine, prompt, SamplingParams(temperature=0), max_tokens=REFERENCE_TOKENS, stop_ids=()
    )
    ids = [step.id for step in generation]
    return ids, (len(ids) - 1) / generation.stats.decode_seconds


def soak(model: PackedModel, minutes: float, seed: int, threads: int) -> tuple[list[Minute], bool]:
    """Runs requests; returns each minute's figures and whether the answer stayed the same."""
    config = EngineConfig(context=CONTEXT, sequences=SEQUENCES, threads=threads)
    same = True
    figures: list[Minute] = []
    with NativeEngine(model, config) as engine:
        requests = Requests(model, engine, seed)
        requests.fill()
        requests.empty()
        expected, _ = reference(engine)
        begin = time.monotonic()
        while time.monotonic() - begin < 60 * minutes:
            count = 0
            # Shorter runs have shorter "minutes", so that there are fifths to compare.
            end = begin + (len(figures) + 1) * min(60, 60 * minutes / 10)
            while time.monotonic() < end:
                requests.any()
                count += 1
            requests.empty()
            answers = [reference(engine) for _ in range(TRIES)]
            same = same and all(ids == expected for ids, _ in answers)
            figures.append(Minute(count, resident_bytes(), max(speed for _, speed in answers)))
            print(f"{len(figures):3}: {json.dumps(asdict(figures[-1]))}", flush=True)
    return figures, same


def judge(
    figures: list[Minute], minutes: float, same: bool, growth: float, slowest: float
) -> dict[str, object]:
    """The record of a run: first and last fifth, growth, and the verdict."""
    fifth = max(len(figures) // 5, 1)
    first, last = figures[:fifth], figures[-fifth:]
    resident = [median(m.resident for m in part) / MIB for part in (first, last)]
    speed = [median(m.speed for m in part) for part in (first, last)]
    hours = 0.8 * minutes / 60
    grown = (resident[1] - resident[0]) / hours
    faults = []
    if grown > growth:
        faults.append(f"memory grows by {grown:.1f} MiB an hour")
    if speed[1] < slowest * speed[0]:
        faults.append(f"speed fell to {speed[1] / speed[0]:.0%}")
    if not same:
        faults.append("the reference answer changed")
    return {
        "minutes": minutes,
        "requests": sum(m.requests for m in figures),
        "rss_first_mib": resident[0],
        "rss_last_mib": resident[1],
        "rss_growth_mib_per_hour": grown,
        "allowed_mib_per_hour": growth,
        "speed_first": speed[0],
        "speed_last": speed[1],
        "slowest": slowest,
        "verdict": "; ".join(faults) or "stable, and the same answer every minute",
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
