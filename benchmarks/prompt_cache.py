"""Time to the first token with a long system prompt: computed anew, and taken from the disk.

    python benchmarks/prompt_cache.py [--model NAME|PATH] [--tokens 1000] [--repeats 5]
                                      [--output FILE.json]

Each repeat starts `qwen-edge run` with `--prompt-cache-size off`, with the computed system prompt
on disk, and with a question and no system prompt, one after the other. Prints medians with their
ranges: the whole process for an answer of one token, and in it the time from the prompt's ids to
the first token. The cache is a folder of its own, filled by an uncounted run; page cache warm.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SENTENCE = "You help people who ask about rivers, mountains, towns and the weather. "
WAYS = {"computed": ("off", True), "from disk": ("1GB", True), "no system prompt": ("off", False)}


def ask(home: str, model: str, system: str, size: str) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole process, and what it tells of its answer."""
    command = [
        sys.executable, "-m", "qwen_edge", "run", "--model", model, "--no-think", "-t", "0",
        "--json", "-n", "1", "--prompt-cache-size", size, "How high is it?",
    ]  # fmt: skip
    if system:
        command += ["--system", system]
    start = time.perf_counter()
    done = subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "QWEN_EDGE_HOME": home}
    )
    return time.perf_counter() - start, json.loads(done.stdout)


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median and range in milliseconds."""
    return {
        "median_ms": round(1000 * statistics.median(seconds), 2),
        "least_ms": round(1000 * min(seconds), 2),
        "most_ms": round(1000 * max(seconds), 2),
    }


def measure(model: str, tokens: int, repeats: int) -> dict[str, Any]:
    """All figures of one model."""
    with tempfile.TemporaryDirectory() as home:
        system = SENTENCE * 4
        known = ask(home, model, system, "off")[1]["usage"]["prompt_tokens"]
        bare = ask(home, model, "", "off")[1]["usage"]["prompt_tokens"]
        system = SENTENCE * max(1, round(4 * tokens / (known - bare)))
        ask(home, model, system, WAYS["from disk"][0])
        whole: dict[str, list[float]] = {way: [] for way in WAYS}
        first: dict[str, list[float]] = {way: [] for way in WAYS}
        usage: dict[str, Any] = {}
        answers = set()
        for _ in range(repeats):
            for way, (size, long) in WAYS.items():
                seconds, answer = ask(home, model, system if long else "", size)
                whole[way].append(seconds)
                first[way].append(answer["timings"]["first_token_seconds"])
                usage[way] = answer["usage"]
                if long:
                    answers.add(tuple(answer["ids"]))
        stored = sum(file.stat().st_size for file in Path(home, "prompts").iterdir())
    if len(answers) != 1:
        raise SystemExit("the answers differ")
    return {
        "model": Path(model).name,
        "stored_bytes": stored,
        "ways": {
            way: {
                "usage": usage[way],
                "process": summary(whole[way]),
                "first_token": summary(first[way]),
            }
            for way in WAYS
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.model, arguments.tokens, arguments.repeats)
    for way, figures in result["ways"].items():
        usage = figures["usage"]
        print(f"{way}: {usage['prompt_tokens']} tokens, {usage['cached_tokens']} cached")
        for name in ("process", "first_token"):
            span = figures[name]
            print(
                f"  {name:12} {span['median_ms']:8.1f} ms"
                f"  ({span['least_ms']:.1f} to {span['most_ms']:.1f})"
            )
    print(f"on disk: {result['stored_bytes'] / 1e6:.1f} MB")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
