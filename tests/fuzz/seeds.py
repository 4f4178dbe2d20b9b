"""Sound files of every kind that is read, what changes them, and what reads them to the end."""

from __future__ import annotations

import contextlib
import ctypes
import json
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from qwen_edge.engine.adapter import MOST_RANK
from qwen_edge.engine.generate import extend
from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.prefix_file import PrefixError, PrefixFile, write_prefix
from qwen_edge.errors import (
    DamagedModelError,
    MemoryLimitError,
    ModelNotFoundError,
    QwenEdgeError,
    UsageError,
)
from qwen_edge.model.adapter import open_adapter
from qwen_edge.model.convert import convert
from qwen_edge.model.gguf import open_gguf
from qwen_edge.model.packed import open_model
from qwen_edge.model.packed_header import TOKENIZER
from qwen_edge.native.checksum import checksum
from qwen_edge.text.pack_tokenizer import pack_tokenizer
from qwen_edge.text.tokenizer import Tokenizer
from tests.fuzz.foreign_files import write_foreign
from tests.fuzz.mutations import (
    mutate_bytes,
    mutate_data,
    mutate_json_file,
    mutate_safetensors,
)
from tests.model.adapters import random_pairs, write_adapter
from tests.model.files import BLOB, TINY, random_weights, write_checkpoint
from tests.model.gguf_files import write_gguf
from tests.model.grouped import Kind, write_quantized

Mutation = Callable[[bytes, random.Random], bytes]
RANK = 8
GROUPED = {
    "gptq": Kind(act_order=True),
    "gptq-8": Kind(bits=8, group=-1, version="gptq_v2"),
    "awq": Kind("awq", group=32),
}
FOREIGN = ("nf4", "fp4", "nf4-nested", "int8", "fp8")
ENGINE = EngineConfig(context=64, threads=1, prefill_rows=16)
PROMPT = [(7 * i) % 250 for i in range(40)]
_SMALL_FILES = ("config.json", "generation_config.json", "tokenizer_config.json")


class Seed(NamedTuple):
    """Sound files of a kind.

    Attributes:
        files: those that may be changed, with what changes each.
        read: reads them.
        errors: what ``read`` may raise.
    """

    files: Sequence[tuple[Path, Mutation]]
    read: Callable[[], object]
    errors: tuple[type[Exception], ...] = (DamagedModelError, ModelNotFoundError)


class Seeds:
    """All kinds by name, made in a folder once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._output = folder / "out.qedge"
        self.kinds: dict[str, Seed] = {}
        write_gguf(folder / "model.gguf", {"model.layers.0.mlp.up_proj.weight": "Q6_K"})
        self._add_gguf(folder / "model.gguf")
        write_checkpoint(folder / "hf")
        (folder / "hf" / "tokenizer_config.json").write_text('{"chat_template": "{{ x }}"}')
        settings = {"do_sample": True, "temperature": 0.6, "eos_token_id": [2, 3]}
        (folder / "hf" / "generation_config.json").write_text(json.dumps(settings))
        self._add_checkpoint("safetensors", folder / "hf")
        write_checkpoint(folder / "shards", shards=3)
        self._add_checkpoint("shards", folder / "shards")
        for name, kind in GROUPED.items():
            write_quantized(folder / name, TINY, random_weights(TINY), kind)
            self._add_checkpoint(name, folder / name)
        for name in FOREIGN:
            self._add_checkpoint(name, write_foreign(folder / name, name, TINY))
        with open_gguf(folder / "model.gguf") as source:
            definition = source.tokenizer_json()
        blob = pack_tokenizer(definition)
        tokenizer = folder / "tokenizer.json"
        tokenizer.write_bytes(definition)
        self.kinds["tokenizer"] = Seed(
            [(tokenizer, mutate_json_file)],
            lambda: _tokenize(pack_tokenizer(tokenizer.read_bytes())),
        )
        # Floats rounded, columns in another order with zero points, levels.
        for name in ("hf", "gptq", "nf4"):
            self._add_model(f"qedge-{name}", folder / name, blob)
        self._add_adapter(folder / "adapter", folder / "hf")
        self._add_prefix(folder / "prefix")
        self.contents = {
            path: path.read_bytes() for seed in self.kinds.values() for path, _ in seed.files
        }

    def _add_gguf(self, path: Path) -> None:
        with open_gguf(path) as source:
            header = min(tensor._begin for tensor in source.tensors.values())  # type: ignore[attr-defined]

        def mutate(content: bytes, numbers: random.Random) -> bytes:
            if numbers.random() < 0.75:
                return mutate_bytes(content, header, False, numbers)
            return mutate_data(content, header, numbers)

        self.kinds["gguf"] = Seed([(path, mutate)], lambda: self._convert(path))

    def _add_checkpoint(self, name: str, folder: Path) -> None:
        files: list[tuple[Path, Mutation]] = [
            (path, mutate_safetensors(path)) for path in sorted(folder.glob("*.safetensors"))
        ]
        names = [each for each in _SMALL_FILES if (folder / each).exists()]
        names += [path.name for path in folder.glob("*.index.json")]
        files += [(folder / each, mutate_json_file) for each in names]
        self.kinds[name] = Seed(files, lambda: self._convert(folder))

    def _add_model(self, name: str, source: Path, blob: bytes) -> None:
        path = self._folder / f"{name}.qedge"
        convert(source, path, tokenizer=blob)
        self.kinds[name] = Seed(
            [(path, mutate_safetensors(path))], lambda: _use(path), _WITH_MEMORY
        )

    def _convert(self, path: Path) -> None:
        tokenizer = None if path.is_file() else BLOB
        convert(path, self._output, tokenizer=tokenizer, threads=1)

    def _add_adapter(self, folder: Path, base: Path) -> None:
        write_adapter(folder, random_pairs(TINY, RANK), RANK, rank_pattern={"up_proj": RANK})
        weights = folder / "adapter_model.safetensors"
        model = self._folder / "base.qedge"
        convert(base, model, tokenizer=BLOB)
        engine = NativeEngine(open_model(model), ENGINE)

        def use() -> None:
            with open_adapter(folder, TINY, MOST_RANK) as adapter:
                engine.set_adapter(adapter)
                extend(engine, PROMPT[:4], 0, wants_logits=True)
            convert(base, self._output, tokenizer=BLOB, adapters=[(folder, 1.0)], threads=1)

        files = [
            (folder / "adapter_config.json", mutate_json_file),
            (weights, mutate_safetensors(weights)),
        ]
        self.kinds["adapter"] = Seed(files, use, (*_WITH_MEMORY, UsageError))

    def _add_prefix(self, path: Path) -> None:
        engine = NativeEngine(open_model(self._folder / "base.qedge"), ENGINE)
        identity = engine.prefix_identity()
        for begin in range(0, len(PROMPT), 16):
            extend(engine, PROMPT[begin : begin + 16], 0, wants_logits=False)
        write_prefix(engine, identity, len(PROMPT), path, durable=False)

        def use() -> None:
            with PrefixFile(path) as file:
                prefix = file.prefix(engine, identity)
                file.load(engine, prefix, len(prefix.ids))
            if all(0 <= token < TINY.vocab_size for token in prefix.ids):
                extend(engine, PROMPT[:4], 0, wants_logits=True)

        self.kinds["prefix"] = Seed([(path, _mutate_prefix)], use, (PrefixError, MemoryLimitError))


_WITH_MEMORY = (DamagedModelError, ModelNotFoundError, MemoryLimitError)


def _encode(tokenizer: Tokenizer) -> list[int]:
    ids = tokenizer.encode("Ein Text, 一段文字 <|im_end|>", allow_special=True)
    tokenizer.decode_bytes(ids)
    return ids


def _tokenize(blob: bytes) -> None:
    buffer = ctypes.create_string_buffer(blob, len(blob))
    _encode(Tokenizer.from_blob(ctypes.addressof(buffer), len(blob), buffer))


def _use(path: Path) -> None:
    """Opens a model file and everything in it, and computes a token."""
    with open_model(path) as model:
        size = model.tensors[TOKENIZER].nbytes
        ids = _encode(Tokenizer.from_blob(model.address(TOKENIZER), size, owner=model))
        with NativeEngine(model, ENGINE) as engine:
            tokens = [token % model.config.vocab_size for token in (*ids[:5], 1)]
            extend(engine, tokens, 0, wants_logits=True)


def _mutate_prefix(content: bytes, numbers: random.Random) -> bytes:
    """Changes header and tables; mostly their checksums are made right again, as a forger would."""
    tokens, parts = struct.unpack_from("<II", content, 12)
    tables = 64 + 4 * tokens + 8 * parts
    changed = bytearray(mutate_bytes(content, tables, False, numbers))
    if numbers.random() < 0.8:
        # The engine's own sizes say where the payload begins.
        begin = -(-tables // 64) * 64
        with contextlib.suppress(struct.error):
            struct.pack_into("<Q", changed, 48, checksum(bytes(changed[64:begin])))
            struct.pack_into("<Q", changed, 56, checksum(bytes(changed[:56])))
    return bytes(changed)


def _check_words(sentence: str) -> None:
    assert sentence.isprintable(), repr(sentence)


def attempt(seeds: Seeds, seed: int) -> str:
    """Reads the files of a kind with one changed; returns ``kind: opened`` or ``kind: refused``.

    Raises:
        Exception: whatever is not a documented error of the program's own, in words that are safe
            for a terminal.
    """
    numbers = random.Random(seed)
    name = numbers.choice(sorted(seeds.kinds))
    kind = seeds.kinds[name]
    path, mutate = numbers.choice(kind.files)
    path.write_bytes(mutate(seeds.contents[path], numbers))
    try:
        kind.read()
    except kind.errors as error:
        if isinstance(error, QwenEdgeError):
            _check_words(str(error))
        return f"{name}: refused"
    finally:
        path.write_bytes(seeds.contents[path])
    return f"{name}: opened"
