"""Measure the demo model on the held-out dialogues.

    python evaluate.py HF_DIR HELDOUT_JSONL OUT_JSON [--int4 | --qedge FILE] [--limit N]

Perplexity counts the assistant's tokens. Accuracy decodes greedily, in both modes of the chat
template, and looks for the expected string (`gold`) in the answer behind `</think>`: a sum must end
in the right number, a copy must be equal, anything else must contain the expected word. `--int4`
first rounds each matrix to 4 bits in groups of 32 with an fp16 scale, to nearest: it shows what the
weights lose, not the activations. `--qedge` measures a converted file in the native engine instead.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from backends import Backend, HuggingFace, QEdge, round_matrices
from pack import encode, load_tokenizer


def is_right(answer: str, record: dict[str, Any]) -> bool:
    """Whether an answer holds what the record expects."""
    gold, kind = record["gold"], record["kind"]
    if kind == "arithmetic":
        numbers = re.findall(r"-?\d+", answer)
        return bool(numbers) and numbers[-1] == gold
    if kind == "copy":
        return answer.strip('"“”.') == gold.strip('"“”.')
    if gold.isascii():
        word = rf"(?<!\w){re.escape(gold)}(?!\w)"
        return re.search(word, answer, re.IGNORECASE | re.ASCII) is not None
    return gold in answer


def accuracy(
    model: Backend, records: list[dict[str, Any]], thinking: bool
) -> dict[str, dict[str, float]]:
    """Share of right answers by kind of question."""
    given = model.answers([r["messages"][:-1] for r in records], thinking, 160)
    right: dict[str, list[bool]] = defaultdict(list)
    for record, answer in zip(records, given, strict=True):
        right[record["kind"]].append(is_right(answer, record))
    right["all"] = [r for kind in list(right) for r in right[kind]]
    return {
        kind: {"right": round(sum(r) / len(r), 4), "asked": len(r)}
        for kind, r in sorted(right.items())
    }


def main() -> None:
    """Evaluate and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("out", type=Path)
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--int4", action="store_true", help="round the matrices to INT4 first")
    weights.add_argument("--qedge", type=Path, help="measure this file in the native engine")
    parser.add_argument("--limit", type=int, default=1500, help="questions asked in each mode")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"weights": "fp32"}
    model: Backend
    if args.qedge:
        model = QEdge(args.qedge)
        result = {"weights": ".qedge, native engine", "file_bytes": args.qedge.stat().st_size}
    else:
        model = HuggingFace(args.model)
        result["parameters"] = sum(p.numel() for p in model.model.parameters())
        if args.int4:
            result["weights"] = "int4 in groups of 32, round to nearest"
            result["relative_weight_error"] = round(round_matrices(model.model), 5)
    with args.held_out.open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    loss, count = model.loss(encode(load_tokenizer(args.model), records))
    result |= {
        "dialogues": len(records),
        "assistant_tokens": count,
        "perplexity": round(math.exp(loss / count), 4),
    }
    asked = [r for r in records if r["gold"]][: args.limit]
    result["accuracy"] = accuracy(model, asked, False)
    result["accuracy_thinking"] = accuracy(model, asked, True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
