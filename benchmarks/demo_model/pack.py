"""Render dialogues with the chat template, tokenize them and pack them into rows.

    python pack.py TOKENIZER_DIR DATA_JSONL OUT_NPZ

Rows of 256, 512 and 1,024 tokens are filled with whole dialogues; `segment` tells them apart, so
that attention never crosses from one into another. `target` marks the tokens that the loss counts.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

ROWS = (256, 512, 1024)
HEADER = "<|im_start|>assistant\n"
NO_THINKING = "<think>\n\n</think>\n\n"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template."""
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    template = folder / "chat_template.jinja"
    tokenizer.chat_template = (
        template.read_text(encoding="utf-8") if template.exists() else settings["chat_template"]
    )
    return tokenizer


def targets(text: str, thinking: bool) -> list[tuple[int, int, bool]]:
    """Character spans (begin, end, is history) that the assistant writes.

    In the prompt of a dialogue without thinking the empty block is given, so it is not learned.
    """
    spans = []
    begins = [m.end() for m in re.finditer(re.escape(HEADER), text)]
    for begin in begins:
        end = text.index("<|im_end|>", begin) + len("<|im_end|>")
        last = begin == begins[-1]
        if last and not thinking:
            begin += len(NO_THINKING)
        spans.append((begin, end, not last))
    return spans


def encode(
    tokenizer: PreTrainedTokenizerFast, records: list[dict[str, Any]]
) -> list[tuple[list[int], list[bool]]]:
    """Token ids and loss mask of each dialogue."""
    texts = [tokenizer.apply_chat_template(r["messages"], tokenize=False) for r in records]
    encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    result = []
    for text, record, encoding in zip(texts, records, encodings, strict=True):
        mask = [False] * len(encoding.ids)
        for begin, end, history in targets(text, record["thinking"]):
            inside = [i for i, (a, b) in enumerate(encoding.offsets) if begin <= a and b <= end]
            # A past answer follows its header without a thinking block, a new one in thinking
            # mode never does: learning a past answer's first token would unlearn <think>.
            for i in inside[history:]:
                mask[i] = True
        result.append((encoding.ids, mask))
    return result


def pack(
    dialogues: list[tuple[list[int], list[bool]]], rng: random.Random
) -> dict[str, np.ndarray]:
    """First-fit over a few open rows for each row length."""
    open_rows: dict[int, list[tuple[int, list[int]]]] = {size: [] for size in ROWS}
    rows: dict[int, list[list[int]]] = {size: [] for size in ROWS}
    for index, (ids, _) in enumerate(dialogues):
        fits = [size for size in ROWS if len(ids) <= size]
        if not fits:
            continue
        size = fits[0] if rng.random() < 0.85 else rng.choice(fits)
        candidates = open_rows[size]
        for at, (used, row) in enumerate(candidates):
            if used + len(ids) <= size:
                candidates[at] = (used + len(ids), [*row, index])
                break
        else:
            candidates.append((len(ids), [index]))
            if len(candidates) > 40:
                fullest = max(range(len(candidates)), key=lambda at: candidates[at][0])
                rows[size].append(candidates.pop(fullest)[1])
    arrays = {}
    for size in ROWS:
        packed = rows[size] + [row for _, row in open_rows[size]]
        ids = np.zeros((len(packed), size), np.uint16)
        segment = np.zeros((len(packed), size), np.uint8)
        target = np.zeros((len(packed), size), bool)
        for r, row in enumerate(packed):
            at = 0
            for number, index in enumerate(row, 1):
                tokens, mask = dialogues[index]
                ids[r, at : at + len(tokens)] = tokens
                segment[r, at : at + len(tokens)] = number
                target[r, at : at + len(tokens)] = mask
                at += len(tokens)
        arrays |= {f"ids{size}": ids, f"segment{size}": segment, f"target{size}": target}
    return arrays


def main() -> None:
    """Pack one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.tokenizer)
    with args.data.open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    dialogues = encode(tokenizer, records)
    arrays = pack(dialogues, random.Random(0))
    np.savez(args.out, **arrays)
    used = sum(int((arrays[f"segment{s}"] > 0).sum()) for s in ROWS)
    held = sum(arrays[f"ids{s}"].size for s in ROWS)
    learned = sum(int(arrays[f"target{s}"].sum()) for s in ROWS)
    print(
        f"{len(dialogues)} dialogues, {used} tokens, {learned} learned, fill {used / held:.3f}, "
        + ", ".join(f"{len(arrays[f'ids{s}'])} rows of {s}" for s in ROWS)
    )


if __name__ == "__main__":
    main()
