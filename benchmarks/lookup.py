"""Decode speed with drafts (`--lookup auto`) against without, on answers that copy and on others.

    python -m benchmarks.lookup MODEL.qedge --tokenizer tokenizer.json [--threads 2] [--repeats 5]
                                [--tokens 128] [--output FILE.json]

A model of random weights says nothing worth copying, so a real answer is replayed: every call,
every draw and every decision on drafts happens as always, only the token drawn is then replaced by
the next one of a given text. Drafts so come true exactly as often as in that text. The texts are
this repository's: a source file with some names changed (rewriting code), the commands out of the
README (extraction), a translation, prose and code that are in no prompt, and columns of random
digits, which mislead as best they can. MODEL needs the vocabulary of the tokenizer (Qwen3's).

The embedded demo model then answers by itself: questions asked for the first time, and the same
ones once more in one conversation.

Each repeat takes both ways in turn, with call costs unknown at the start as in a new process.
Prints the median of the repeats' ratios, and the read bandwidth of the same run. Needs tokenizers
and numpy.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer as HubTokenizer

from benchmarks.speed import BUFFER_BYTES
from qwen_edge.engine.bandwidth import read_bandwidth
from qwen_edge.engine.generate import Generation, Step
from qwen_edge.engine.interface import EngineConfig, Logits, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.speculation import MAX_DRAFTS
from qwen_edge.engine.stats import GenerationStats
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.native.instruction_sets import isa_name
from qwen_edge.session.models import demo_path
from qwen_edge.text.chat_template import encode_chat
from qwen_edge.text.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
SAMPLING = SamplingParams(temperature=0.6, top_k=20, top_p=0.95, seed=1)
QUESTIONS = ("Who are you?", "What can you do?", "Tell me a short story.", "What is qwen-edge?")


class Task(NamedTuple):
    """A prompt and the answer that is replayed; ``copies`` where it repeats the prompt."""

    name: str
    copies: bool
    prompt: str
    answer: str


def tasks() -> Iterator[Task]:
    """The tasks, out of the repository's own files."""
    english = (ROOT / "README.md").read_text(encoding="utf-8")
    chinese = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    code = (ROOT / "qwen_edge/session/stop_text.py").read_text(encoding="utf-8")
    other = (ROOT / "qwen_edge/host/sizes.py").read_text(encoding="utf-8")
    renamed = re.sub(r"\bheld\b|\b_held\b", "pending", re.sub(r"\btext\b", "piece", code))
    yield Task(
        "rewriting code", True, f"Rename text to piece and held to pending.\n{code}", renamed
    )
    commands = "\n".join(re.findall(r"^\$ (.*)$", english, re.MULTILINE))
    yield Task("extraction", True, f"{english[:9000]}\nList all the commands.", commands)
    about = english[: english.index("## Start")]
    yield Task("translation", False, f"Translate into Chinese.\n{about}", chinese)
    prose = english[english.index("## How it works") :]
    yield Task("prose", False, "How does the program work?", prose)
    yield Task("new code", False, "Write functions that read and write sizes.", other)
    digits = random.Random(1)
    table = "\n".join(" ".join(str(digits.randrange(10_000)) for _ in range(4)) for _ in range(200))
    yield Task("random digits", False, f"Go on.\n{table[:1000]}", table[1000:])


class Replay(Generation):
    """A generation whose draws are made and then replaced by a given answer."""

    def __init__(self, engine: NativeEngine, prompt: Sequence[int], answer: Sequence[int]) -> None:
        super().__init__(engine, prompt, SAMPLING, max_tokens=len(answer), stop_ids=())
        self._answer = iter(answer)

    def _draw(self, logits: Logits) -> Step:
        super()._draw(logits)
        return Step(next(self._answer), None, ())


def run(generation: Generation) -> GenerationStats:
    """Generates to the end."""
    for _ in generation:
        pass
    return generation.stats


def median(values: Sequence[float]) -> float:
    """The median, in four digits."""
    return float(f"{statistics.median(values):.4g}")


def summary(off: list[GenerationStats], auto: list[GenerationStats]) -> dict[str, Any]:
    """Rates and their ratio; each pair was measured in turn."""
    ratios = [a.decode_tokens_per_second / o.decode_tokens_per_second
              for o, a in zip(off, auto, strict=True)]  # fmt: skip
    return {
        "tokens": auto[0].generated_tokens,
        "drafted": median([stats.drafted_tokens for stats in auto]),
        "accepted": median([stats.accepted_tokens for stats in auto]),
        "off": median([stats.decode_tokens_per_second for stats in off]),
        "auto": median([stats.decode_tokens_per_second for stats in auto]),
        "ratio": median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def engines(model: PackedModel, threads: int, context: int) -> tuple[NativeEngine, NativeEngine]:
    """One without drafts, one with."""
    return tuple(  # type: ignore[return-value]
        NativeEngine(model, EngineConfig(context=context, threads=threads, drafts=drafts))
        for drafts in (0, MAX_DRAFTS)
    )


def replayed(
    model: PackedModel, tokenizer: HubTokenizer, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """A result for each task."""
    pair = engines(model, arguments.threads, 4096)
    for task in tasks():
        prompt, answer = (tokenizer.encode(text, add_special_tokens=False).ids for text in task[2:])
        answer = answer[: arguments.tokens]
        both: tuple[list[GenerationStats], list[GenerationStats]] = ([], [])
        for repeat in range(arguments.repeats + 1):
            # The first round reads the prompt and is not counted.
            for way in (0, 1) if repeat % 2 else (1, 0):
                stats = run(Replay(pair[way], prompt, answer))
                if repeat:
                    both[way].append(stats)
        yield {"task": task.name, "copies": task.copies, "prompt": len(prompt), **summary(*both)}
    for engine in pair:
        engine.close()


def demo(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The demo model's own answers, to new questions and to the same again."""
    with open_model(demo_path()) as model:
        blob = model.tensors["tokenizer"]
        tokenizer = Tokenizer.from_blob(model.address("tokenizer"), blob.nbytes, model)
        stop = frozenset(model.generation.stop_ids)
        pair = engines(model, arguments.threads, 1024)

        def answer(way: int, prompt: list[int]) -> Generation:
            greedy = SamplingParams(temperature=0)
            return Generation(pair[way], prompt, greedy, max_tokens=200, stop_ids=stop)

        def encode(messages: list[dict[str, str]]) -> list[int]:
            return encode_chat(tokenizer, model.chat_template, messages, enable_thinking=False)

        for again in (False, True):
            prompts = []
            for question in QUESTIONS:
                messages = [{"role": "user", "content": question}]
                if again:
                    first = answer(0, encode(messages))
                    run(first)
                    text = tokenizer.decode([i for i in first.ids if i not in stop])
                    messages += [{"role": "assistant", "content": text}, *messages]
                prompts.append(encode(messages))
            both: tuple[list[GenerationStats], list[GenerationStats]] = ([], [])
            for repeat in range(arguments.repeats * 8):
                for way in (0, 1) if repeat % 2 else (1, 0):
                    parts = [run(answer(way, prompt)) for prompt in prompts]
                    both[way].append(added(parts))
            name = "demo, asked again" if again else "demo, first asked"
            yield {"task": name, "copies": again, **summary(*both)}
        for engine in pair:
            engine.close()


def added(parts: Sequence[GenerationStats]) -> GenerationStats:
    """Several answers counted as one; rates leave each answer's first token out."""
    return GenerationStats(
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        cached_tokens=0,
        generated_tokens=sum(part.generated_tokens for part in parts) - len(parts) + 1,
        prefill_seconds=0.0,
        first_token_seconds=0.0,
        decode_seconds=sum(part.decode_seconds for part in parts),
        finish_reason="stop",
        drafted_tokens=sum(part.drafted_tokens for part in parts),
        accepted_tokens=sum(part.accepted_tokens for part in parts),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="Qwen3's tokenizer.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    tokenizer = HubTokenizer.from_file(str(arguments.tokenizer))
    results, bandwidths = [], []
    with open_model(arguments.model) as model:
        print(f"{model.name}, {isa_name()}, {arguments.threads} threads; tokens/s")
        print(f"{'task':18} {'off':>8} {'auto':>8} {'ratio':>7}  drafted accepted of tokens")
        for parts in (replayed(model, tokenizer, arguments), demo(arguments)):
            for result in parts:
                bandwidths.append(read_bandwidth(BUFFER_BYTES, arguments.threads, passes=3) / 1e9)
                results.append(result)
                print(
                    "{task:18} {off:8.1f} {auto:8.1f} {ratio:7.3f}  "
                    "{drafted:7.0f} {accepted:8.0f} {tokens:9}".format(**result),
                    flush=True,
                )
        print(f"read bandwidth {median(bandwidths)} GB/s")
        if arguments.output:
            report = {
                "model": model.name,
                "isa": isa_name(),
                "threads": arguments.threads,
                "bandwidth_gb_s": [round(value, 2) for value in bandwidths],
                "tasks": results,
            }
            arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
