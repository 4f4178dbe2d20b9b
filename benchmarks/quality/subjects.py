"""The models whose quality is measured, with the text that it is measured on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from benchmarks.quality.corpus import DEMO

LENGTH = 512
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Subject:
    """A float checkpoint and what to measure it on.

    Attributes:
        name: in the table.
        note: what is particular about it.
        folder: a Hugging Face folder in fp32.
        rows: token ids, and which of them count as predicted.
    """

    name: str
    note: str
    folder: Path
    rows: list[tuple[list[int], list[bool]]]

    def model(self) -> Qwen3ForCausalLM:
        """The model in fp32."""
        return Qwen3ForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()

    def weights(self) -> dict[str, torch.Tensor]:
        """Every tensor by its Hugging Face name."""
        return load_file(self.folder / "model.safetensors")

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Ids and masks [rows, length] of rows of about the same length."""
        rows = sorted(self.rows, key=lambda row: len(row[0]))
        while rows:
            count = max(1, BATCH_TOKENS // len(rows[min(len(rows), 32) - 1][0]))
            part, rows = rows[:count], rows[count:]
            ids = torch.zeros(len(part), len(part[-1][0]), dtype=torch.long)
            mask = torch.zeros(ids.shape, dtype=torch.bool)
            for i, (tokens, wanted) in enumerate(part):
                ids[i, : len(tokens)] = torch.tensor(tokens)
                mask[i, : len(tokens)] = torch.tensor(wanted)
            yield ids, mask


def text_subject(out: Path, tokens: int) -> Subject:
    """The model of ``benchmarks.quality.train``, on held-out documents."""
    folder = out / "hf"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stop = tokenizer.token_to_id("<|endoftext|>")
    rows: list[tuple[list[int], list[bool]]] = []
    with (out / "heldout.jsonl").open(encoding="utf-8") as file:
        for line in file:
            text = json.loads(line)["text"]
            ids = [stop, *tokenizer.encode(text, add_special_tokens=False).ids][:LENGTH]
            rows.append((ids, [False] + [True] * (len(ids) - 1)))
            if sum(len(row[0]) for row in rows) >= tokens:
                break
    note = "trained in fp32 on manuals, Python sources and dialogues"
    return Subject("text", note, folder, rows)


def demo_subject(out: Path, dialogues: Path, limit: int) -> Subject:
    """The demo model before its weights are rounded, on the assistant's side of dialogues.

    ``out`` is the folder of the demo model's training, with the state that it resumes from.
    """
    sys.path.insert(0, str(DEMO))
    from model import Qwen3, Shape, export
    from pack import encode, load_tokenizer

    folder = out / "float"
    state = torch.load(out / "state.pt", weights_only=True)["model"]
    tokenizer = load_tokenizer(out / "hf")
    model = Qwen3(Shape(vocab_size=len(state["embed_tokens.weight"])))
    model.load_state_dict(state)
    stop, pad = (tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>"))
    export(model, out / "hf", folder, stop, pad)
    with dialogues.open(encoding="utf-8") as file:
        records: list[dict[str, Any]] = [json.loads(line) for line in islice(file, limit)]
    note = "the demo model, trained to be rounded to INT4 in groups of 32"
    return Subject("demo", note, folder, encode(tokenizer, records))
