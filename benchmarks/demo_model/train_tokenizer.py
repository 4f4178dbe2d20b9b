"""Train the demo model's byte-level BPE tokenizer in the form of Qwen3's.

    python train_tokenizer.py QWEN3_DIR TRAIN_JSONL OUT_DIR --vocab-size 4096

The normalizer, pre-tokenizer, post-processor, decoder, added tokens and chat template are read from
QWEN3_DIR/tokenizer.json and tokenizer_config.json; only vocabulary and merges are trained. The
added tokens take the ids right after the vocabulary, in Qwen3's order.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers


def texts(path: Path) -> Iterator[str]:
    """Every message, with the line breaks that the chat template puts around it."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            for message in json.loads(line)["messages"]:
                yield message["role"] + "\n" + message["content"]
                if "reasoning_content" in message:
                    yield "\n" + message["reasoning_content"] + "\n"
                yield "\n\n"


def train(qwen: dict[str, Any], corpus: Iterator[str], vocab_size: int) -> Tokenizer:
    """A tokenizer with Qwen3's definition and a vocabulary of our own."""
    definition = {**qwen, "added_tokens": [], "model": {**qwen["model"], "vocab": {}, "merges": []}}
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    tokenizer.model = models.BPE(continuing_subword_prefix="", end_of_word_suffix="")
    added = sorted(qwen["added_tokens"], key=lambda token: token["id"])
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=vocab_size - len(added),
            min_frequency=2,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=[],
            continuing_subword_prefix="",
            end_of_word_suffix="",
        ),
    )
    for token in added:
        flags = {k: v for k, v in token.items() if k not in ("id", "content", "special")}
        entry = AddedToken(token["content"], special=token["special"], **flags)
        (tokenizer.add_special_tokens if token["special"] else tokenizer.add_tokens)([entry])
    return tokenizer


def config(qwen: dict[str, Any], tokenizer: Tokenizer, length: int) -> dict[str, Any]:
    """Qwen3's tokenizer_config with this tokenizer's ids."""
    added = qwen["added_tokens_decoder"].values()
    ids = {str(tokenizer.token_to_id(t["content"])): t for t in added}
    return {**qwen, "added_tokens_decoder": ids, "model_max_length": length}


def main() -> None:
    """Train, check the definition and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qwen3", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--max-length", type=int, default=2048)
    args = parser.parse_args()
    qwen = json.loads((args.qwen3 / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = train(qwen, texts(args.train), args.vocab_size)
    saved = json.loads(tokenizer.to_str())
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if saved[part] != qwen[part]:
            raise SystemExit(f"{part} differs from Qwen3's: {saved[part]}")
    plain = {k: v for k, v in qwen["model"].items() if k not in ("vocab", "merges")}
    saved["model"] = {**plain, "vocab": saved["model"]["vocab"], "merges": saved["model"]["merges"]}
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(saved, ensure_ascii=False, separators=(",", ":"))
    Tokenizer.from_str(text)
    (args.out / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = json.loads((args.qwen3 / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings = config(settings, tokenizer, args.max_length)
    (args.out / "tokenizer_config.json").write_text(
        json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    print(f"{tokenizer.get_vocab_size()} tokens, {len(text)} characters")


if __name__ == "__main__":
    main()
