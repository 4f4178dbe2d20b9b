"""An engine that says what it is told to, and a tokenizer of bytes: for the logic above both."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from qwen_edge.engine.interface import EngineConfig, Logits, Row, SamplingParams
from qwen_edge.errors import MemoryLimitError
from qwen_edge.session.answer import AnswerOptions, ChatModel
from qwen_edge.text.pack_tokenizer import PATTERN, pack_tokenizer
from qwen_edge.text.qwen3_template import QWEN3_TEMPLATE
from qwen_edge.text.tokenizer import Tokenizer

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<think>", "</think>")
GREEDY = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, seed=1)


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in byte-level BPE, in byte order."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(b) if b in shown else chr(256 + hidden.index(b)) for b in range(256)]


def byte_tokenizer() -> Tokenizer:
    """Qwen's tokenizer with a vocabulary of single bytes, and its control tokens."""
    added = [
        {
            "id": 256 + number,
            "content": content,
            "special": content in CONTROL,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for number, content in enumerate((*CONTROL, *MARKS))
    ]
    split = {
        "type": "Split",
        "pattern": {"Regex": PATTERN},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    definition = {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "added_tokens": added,
        "model": {
            "type": "BPE",
            "vocab": {character: byte for byte, character in enumerate(byte_alphabet())},
            "merges": [],
        },
    }
    blob = pack_tokenizer(json.dumps(definition).encode())
    # Tokenizer blobs are read in place: the array is their memory, aligned to 64 bytes.
    memory = ctypes.create_string_buffer(len(blob) + 64)
    address = (ctypes.addressof(memory) + 63) // 64 * 64
    ctypes.memmove(address, blob, len(blob))
    return Tokenizer.from_blob(address, len(blob), owner=memory)


class ScriptedEngine:
    """An ``Engine`` whose likeliest token is the next of a script; then the stop token.

    Args:
        context: the longest sequence.
        prefill_rows: the most rows a call takes.
    """

    def __init__(self, tokenizer: Tokenizer, context: int = 4096, prefill_rows: int = 64) -> None:
        self.config = EngineConfig(context=context, prefill_rows=prefill_rows)
        self.vocab_size = tokenizer.vocab_size
        self.script: list[int] = []
        self.computed = 0
        self.out_of_memory_at: int | None = None
        self._stop = tokenizer.special_ids()["<|im_end|>"]
        self._ids: list[int] = []
        self._logits = (ctypes.c_float * self.vocab_size)()

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        assert [row.position for row in rows] == [len(self._ids) + i for i in range(len(rows))]
        if self.out_of_memory_at is not None and len(self._ids) >= self.out_of_memory_at:
            raise MemoryLimitError("Out of memory: {reason}.", reason="the test says so")
        self._ids += [row.token for row in rows]
        self.computed += len(rows)
        if not rows[-1].wants_logits:
            return []
        ctypes.memset(self._logits, 0, ctypes.sizeof(self._logits))
        self._logits[self.script.pop(0) if self.script else self._stop] = 50.0
        return [Logits(ctypes.addressof(self._logits), self.vocab_size)]

    def cached_ids(self, sequence: int = 0) -> Sequence[int]:
        return self._ids

    def truncate(self, length: int, sequence: int = 0) -> None:
        del self._ids[length:]

    def fork(self, source: int, target: int, length: int) -> None:
        raise AssertionError("a conversation has one sequence")

    def prefix_identity(self) -> bytes:
        raise AssertionError("scripts are not kept")

    def prefix_size(self, length: int) -> tuple[int, int]:
        raise AssertionError("scripts are not kept")

    def save_prefix(
        self, descriptor: int, offset: int, length: int, sequence: int = 0
    ) -> tuple[int, ...]:
        raise AssertionError("scripts are not kept")

    def load_prefix(
        self,
        ids: Sequence[int],
        descriptor: int,
        offset: int,
        stored: int,
        checksums: Sequence[int],
        sequence: int = 0,
    ) -> None:
        raise AssertionError("scripts are not kept")

    def close(self) -> None:
        pass


class ScriptedModel:
    """A chat model that gives the answers it was told to."""

    def __init__(self, context: int = 4096, poll: Callable[[], None] = lambda: None) -> None:
        self.tokenizer = byte_tokenizer()
        self.engine = ScriptedEngine(self.tokenizer, context)
        self.chat = ChatModel(
            engine=self.engine,
            tokenizer=self.tokenizer,
            template=QWEN3_TEMPLATE,
            stop_ids=frozenset([self.tokenizer.special_ids()["<|im_end|>"]]),
            poll=poll,
        )

    def will_say(self, text: str) -> None:
        """Sets the next answer; marks such as ``<think>`` become tokens."""
        self.engine.script = self.tokenizer.encode(text, allow_special=True)


def options(**changes: object) -> AnswerOptions:
    """Greedy answers without thinking, changed as told."""
    base = AnswerOptions(sampling=GREEDY, max_tokens=1000, thinking=False)
    return replace(base, **changes)  # type: ignore[arg-type]
