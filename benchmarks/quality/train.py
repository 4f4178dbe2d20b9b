"""Trains the quality model: ``python -m benchmarks.quality.train QWEN3 OUT --minutes 75``.

QWEN3 is a folder with Qwen3's tokenizer.json and tokenizer_config.json. The text is ``corpus``'s,
the training script is the demo model's, in plain fp32 weights without rounding. Started again it
goes on from OUT/state.pt.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.quality.corpus import DEMO, write

VOCABULARY = 7168
ROW = 512
TEXTS_FOR_VOCABULARY = 12_000_000  # Characters.


def texts(path: Path) -> Iterator[str]:
    """The documents of a file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield str(json.loads(line)["text"])


def some(path: Path, characters: int) -> Iterator[str]:
    """The first documents, about so many characters."""
    for text in texts(path):
        yield text
        characters -= len(text)
        if characters < 0:
            return


def make_tokenizer(qwen3: Path, out: Path) -> None:
    """A byte-level BPE tokenizer with Qwen3's definition, trained on the corpus."""
    sys.path.insert(0, str(DEMO))
    from train_tokenizer import config, train

    definition = json.loads((qwen3 / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((qwen3 / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer = train(definition, some(out / "train.jsonl", TEXTS_FOR_VOCABULARY), VOCABULARY)
    saved = json.loads(tokenizer.to_str())
    plain = {k: v for k, v in definition["model"].items() if k not in ("vocab", "merges")}
    saved["model"] = {**plain, "vocab": saved["model"]["vocab"], "merges": saved["model"]["merges"]}
    folder = out / "tokenizer"
    folder.mkdir(exist_ok=True)
    text = json.dumps(saved, ensure_ascii=False, separators=(",", ":"))
    settings = config(settings, tokenizer, 2048)
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")


def pack(out: Path) -> None:
    """The training text as rows of one segment each, in the form that the training script reads."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(out / "tokenizer" / "tokenizer.json"))
    stop = tokenizer.token_to_id("<|endoftext|>")
    stream: list[int] = []
    for text in texts(out / "train.jsonl"):
        stream += [*tokenizer.encode(text, add_special_tokens=False).ids, stop]
    rows = np.array(stream[: len(stream) // ROW * ROW], np.uint16).reshape(-1, ROW)
    ones = np.ones(rows.shape, np.uint8)
    np.savez(
        out / "train.npz",
        **{f"ids{ROW}": rows, f"segment{ROW}": ones, f"target{ROW}": ones.astype(bool)},
    )
    print(f"{rows.size:,} tokens in rows of {ROW}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qwen3", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "heldout.jsonl").exists():
        write(out)
    if not (out / "tokenizer" / "tokenizer.json").exists():
        make_tokenizer(arguments.qwen3, out)
    if not (out / "train.npz").exists():
        pack(out)
    shape = {"layers": 6, "hidden": 512, "intermediate": 1280, "heads": 8, "kv-heads": 4}
    command = [sys.executable, str(DEMO / "train.py")]
    command += [str(path) for path in (out / "tokenizer", out / "train.npz", out)]
    command += [f"--{name}={value}" for name, value in shape.items()]
    command += [f"--minutes={arguments.minutes}", f"--threads={arguments.threads}"]
    # No rounding while it trains: that begins at a share of the time that is never reached.
    command += ["--int4-after=2", "--lr=3e-3", "--save-minutes=5"]
    command += ["--batch-tokens=4096", "--micro-tokens=1024"]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
