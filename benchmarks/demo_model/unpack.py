"""Turn a .qedge demo model back into a Hugging Face folder, to go on training from it.

    PYTHONPATH=../.. python unpack.py FILE QWEN3_DIR OUT_DIR

The weights are those of the file, in fp32. The vocabulary and the merges are read from its packed
tokenizer; the tokenizer's definition comes from QWEN3_DIR, as in train_tokenizer.py.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model import Qwen3, Shape, export
from tokenizers import Tokenizer
from train_tokenizer import config

from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.quant.packing import dequantize
from qwen_edge.text.pack_tokenizer import pack_tokenizer

HEADER = struct.Struct("<8s6I8Q")  # See native/tokenizer.h.


def byte_alphabet() -> dict[int, str]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2's rule)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def tokenizer_json(blob: bytes, qwen: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json of a packed tokenizer."""
    _, _, count, slots, _, _, _, _, _, *sections = HEADER.unpack_from(blob)
    offsets_at, bytes_at, flags_at, _, merges_at, _ = sections
    offsets = np.frombuffer(blob, np.uint32, count + 1, offsets_at)
    pieces = [blob[bytes_at + a : bytes_at + b] for a, b in pairwise(offsets)]
    flags = np.frombuffer(blob, np.uint8, count, flags_at)
    table = np.frombuffer(blob, np.uint32, slots * 4, merges_at).reshape(-1, 4)
    alphabet = byte_alphabet()
    words = ["".join(alphabet[b] for b in piece) for piece in pieces]
    merges = sorted((tuple(map(int, row)) for row in table if row[0] != 0xFFFFFFFF),
                    key=lambda row: row[2])  # fmt: skip
    model = {k: v for k, v in qwen["model"].items() if k not in ("vocab", "merges")}
    model["vocab"] = {words[i]: i for i in range(count) if not flags[i]}
    model["merges"] = [[words[left], words[right]] for left, right, _, _ in merges]
    ids = {pieces[i].decode(): i for i in range(count) if flags[i]}
    added = [{**token, "id": ids[token["content"]]} for token in qwen["added_tokens"]]
    return {**qwen, "added_tokens": sorted(added, key=lambda t: t["id"]), "model": model}


def weights(packed: PackedModel) -> Qwen3:
    """The model with the values that the file holds."""
    c = packed.config
    model = Qwen3(
        Shape(
            vocab_size=c.vocab_size,
            hidden_size=c.hidden_size,
            intermediate_size=c.intermediate_size,
            num_hidden_layers=c.layers,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = "model." + name
            values = torch.empty(parameter.shape, dtype=torch.float32)
            dequantize(packed.tensors[tensor].layout, packed.address(tensor), values.data_ptr())
            parameter.copy_(values)
    return model


def main() -> None:
    """Unpack, check that the tokenizer is the same again, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("qwen3", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    qwen = json.loads((args.qwen3 / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((args.qwen3 / "tokenizer_config.json").read_text(encoding="utf-8"))
    args.out.mkdir(parents=True, exist_ok=True)
    with open_model(args.file) as packed:
        blob = ctypes.string_at(packed.address("tokenizer"), packed.tensors["tokenizer"].nbytes)
        text = json.dumps(tokenizer_json(blob, qwen), ensure_ascii=False, separators=(",", ":"))
        if pack_tokenizer(text.encode()) != blob:
            raise SystemExit("The tokenizer does not pack to the same bytes again.")
        model = weights(packed)
        settings = config(settings, Tokenizer.from_str(text), packed.config.max_positions)
    (args.out / "tokenizer.json").write_text(text, encoding="utf-8")
    (args.out / "tokenizer_config.json").write_text(
        json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    tokenizer = Tokenizer.from_str(text)
    stop, pad = (tokenizer.token_to_id(t) for t in ("<|im_end|>", "<|endoftext|>"))
    export(model, args.out, args.out, stop, pad)


if __name__ == "__main__":
    main()
