"""Quality at equal bytes: ``python -m benchmarks.quality``.

    python -m benchmarks.quality.train QWEN3 TEXT     # once, an hour or more
    python -m benchmarks.quality --text TEXT --demo DEMO --dialogues HELDOUT.jsonl --llama PYTHON

Rounds the same float weights in every way, puts the rounded values into the same fp32 model of
transformers, and measures how much worse it predicts held-out text. TEXT is the folder of the
training above; DEMO that of the demo model's (benchmarks/demo_model/README.md), whose resumable
state has the weights before rounding; PYTHON the interpreter of benchmarks/peers/setup.sh.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality import nf4, ours
from benchmarks.quality.llama import CASES as LLAMA_CASES
from benchmarks.quality.llama import Llama
from benchmarks.quality.score import Scorer
from benchmarks.quality.subjects import Subject, demo_subject, text_subject
from qwen_edge.quant.methods import calibration_text, read_calibration

RESULTS = Path(__file__).resolve().parents[1] / "results"
Rounded = tuple[dict[str, torch.Tensor], float]


def cases(
    subject: Subject, python: Path | None, calibration: str
) -> Iterator[tuple[str, Callable[[], Rounded]]]:
    """Every way of rounding: its name, and what does it."""
    for name in ours.CASES:
        yield name, lambda name=name: ours.rounded(subject, name, calibration)
    if python:
        llama = Llama(subject, python, calibration)
        for name in LLAMA_CASES:
            yield name, lambda name=name: llama.rounded(name)
    for name in nf4.CASES:
        yield name, lambda name=name: nf4.rounded(subject, name)


def measure(subject: Subject, python: Path | None, calibration: str) -> dict[str, Any]:
    """One model's table."""
    scorer = Scorer(subject)
    rows = []
    for name, make in cases(subject, python, calibration):
        weights, bits = make()
        score = asdict(scorer.score(weights))
        rows.append({"weights": name, "bits": round(bits, 3)}
                    | {key: float(f"{value:.5g}") for key, value in score.items()})  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return {
        "model": subject.name,
        "note": subject.note,
        "parameters": sum(values.numel() for values in subject.weights().values()),
        "tokens": scorer.tokens,
        "perplexity": round(scorer.perplexity, 4),
        "rows": rows,
    }


def write(path: Path, table: dict[str, Any], calibration: str) -> None:
    """Puts one model's table into the results, in place of an earlier one of that name."""
    tables: list[dict[str, Any]] = []
    if path.exists():
        tables = json.loads(path.read_text(encoding="utf-8"))["models"]
    tables = [each for each in tables if each["model"] != table["model"]]
    record = {
        "date": datetime.date.today().isoformat(),
        "calibration_bytes": len(calibration.encode()),
        "models": sorted([*tables, table], key=lambda each: str(each["model"])),
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, help="the folder of benchmarks.quality.train")
    parser.add_argument("--demo", type=Path, help="the folder of the demo model's train.py")
    parser.add_argument("--dialogues", type=Path, help="held-out dialogues of the demo model")
    parser.add_argument("--llama", type=Path, help="a Python with llama-cpp-python")
    parser.add_argument("--calibration", type=Path, help="in place of the package's own text")
    parser.add_argument("--tokens", type=int, default=32_768, help="of text")
    parser.add_argument("--limit", type=int, default=500, help="of dialogues")
    parser.add_argument("--output", type=Path, default=RESULTS / "quality.json")
    arguments = parser.parse_args()
    calibration = calibration_text()
    if arguments.calibration:
        calibration = read_calibration(arguments.calibration)
    subjects = []
    if arguments.demo:
        subjects.append(demo_subject(arguments.demo, arguments.dialogues, arguments.limit))
    if arguments.text:
        subjects.append(text_subject(arguments.text, arguments.tokens))
    for subject in subjects:
        write(arguments.output, measure(subject, arguments.llama, calibration), calibration)
    print(arguments.output)


if __name__ == "__main__":
    main()
