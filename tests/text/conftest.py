"""Shared fixtures: Qwen3's real tokenizer, here and in the library that is the oracle."""

from __future__ import annotations

import ctypes
import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from qwen_edge.text.pack_tokenizer import pack_tokenizer
from qwen_edge.text.tokenizer import Tokenizer


def open_blob(blob: bytes) -> Tokenizer:
    """A tokenizer over a page-aligned copy of ``blob``."""
    memory = mmap.mmap(-1, len(blob))
    memory.write(blob)
    view = (ctypes.c_char * len(blob)).from_buffer(memory)
    return Tokenizer.from_blob(ctypes.addressof(view), len(blob), view)


@pytest.fixture(scope="session")
def qwen3_dir() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "qwen3"
    if not (folder / "tokenizer.json").is_file():
        pytest.fail(f"these tests need Qwen3's tokenizer.json and its companions in {folder}")
    return folder


@pytest.fixture(scope="session")
def definition(qwen3_dir: Path) -> bytes:
    return (qwen3_dir / "tokenizer.json").read_bytes()


@pytest.fixture(scope="session")
def blob(definition: bytes) -> bytes:
    return pack_tokenizer(definition)


@pytest.fixture(scope="session")
def tokenizer(blob: bytes) -> Tokenizer:
    return open_blob(blob)


@pytest.fixture(scope="session")
def oracle(definition: bytes) -> tokenizers.Tokenizer:
    """The library's tokenizer: the text of added tokens becomes their ids."""
    return tokenizers.Tokenizer.from_str(definition.decode())


@pytest.fixture(scope="session")
def plain_oracle(definition: bytes) -> tokenizers.Tokenizer:
    """The same without added tokens: all text is plain text."""
    parts = json.loads(definition)
    parts["added_tokens"] = []
    return tokenizers.Tokenizer.from_str(json.dumps(parts))


@pytest.fixture(scope="session")
def small_definition(definition: bytes) -> dict[str, Any]:
    """Qwen3's pipeline with a vocabulary of 1,000 tokens trained on the spot, as JSON."""
    parts = json.loads(definition)
    parts["added_tokens"] = []
    parts["model"].update(vocab={}, merges=[])
    small = tokenizers.Tokenizer.from_str(json.dumps(parts))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1000,
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    words = [text for text in map(str.lower, dir(str) + dir(tokenizers)) for _ in range(3)]
    text = [Path(__file__).read_text(), " ".join(words), "你好，世界！" * 20, "Привет мир " * 20]
    small.train_from_iterator(text, trainer)
    small.add_tokens([tokenizers.AddedToken("<think>", normalized=False)])
    small.add_tokens([tokenizers.AddedToken("<think>\n", normalized=False)])
    found: dict[str, Any] = json.loads(small.to_str())
    return found


@pytest.fixture(scope="session")
def open_blob_of() -> Callable[[bytes], Tokenizer]:
    return open_blob
