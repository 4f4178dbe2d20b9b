"""What the keys of a GGUF file say about a Qwen3 model: its numbers, template and vocabulary."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_edge.model.chatml import CHATML
from qwen_edge.model.config import (
    ARCHITECTURE,
    LARGEST_DIMENSION,
    GenerationDefaults,
    ModelConfig,
    config_from,
    generation_from,
)
from qwen_edge.model.container import ContainerError, show
from qwen_edge.text.vocabulary import Kind, Vocabulary

Metadata = Mapping[str, Any]

ARCHITECTURE_KEY = "general.architecture"
# Keys of ModelConfig: those behind the architecture's name.
NUMBERS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "layers": "block_count",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_positions": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}
SAMPLING = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
}
STOP_KEYS = (
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
)
TOKENS, KINDS = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
MERGES, TEMPLATE = "tokenizer.ggml.merges", "tokenizer.chat_template"
MODEL, PRE = "tokenizer.ggml.model", "tokenizer.ggml.pre"
ADD_BOS = "tokenizer.ggml.add_bos_token"
SPLIT_COUNT, SPLIT_NUMBER = "split.count", "split.no"
# Qwen's own, for files that do not say how to sample.
_DEFAULT_SAMPLING = {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
# llama.cpp ends an answer at these tokens whatever the keys say.
_END_TOKENS = ("<|im_end|>", "<|endoftext|>")


def shortest(value: Any) -> Any:
    """The shortest decimal that is this fp32 number: 1e-6 for 9.99999997e-07."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    single = struct.pack("<f", value)
    if struct.unpack("<f", single)[0] != value:
        return value
    digits = (float(f"{value:.{count}g}") for count in range(1, 10))
    return next(text for text in digits if struct.pack("<f", text) == single)


def read_config(metadata: Metadata, vocab_size: int, tied: bool) -> ModelConfig:
    """The model's numbers.

    Raises:
        ContainerError: a number is missing or wrong, or the file asks for what is not computed.
    """
    prefix = f"{ARCHITECTURE}."
    table = {key: shortest(metadata.get(prefix + name)) for key, name in NUMBERS.items()}
    heads = table["heads"]
    if table["head_dim"] is None and type(heads) is int and heads > 0:
        width = table["hidden_size"]
        table["head_dim"] = width // heads if type(width) is int else None
    table["kv_heads"] = table["kv_heads"] if table["kv_heads"] is not None else heads
    table |= {"vocab_size": vocab_size, "tied": tied}
    # More positions than are computed do no harm: contexts are shorter.
    if type(table["max_positions"]) is int:
        table["max_positions"] = min(table["max_positions"], LARGEST_DIMENSION)
    config = config_from(table)
    scaling = metadata.get(prefix + "rope.scaling.type", "none")
    if scaling != "none" or metadata.get(prefix + "rope.scale_linear", 1.0) != 1.0:
        raise ContainerError(f"it asks for rope scaling ({show(scaling)})")
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.get(prefix + key, config.head_dim) != config.head_dim:
            raise ContainerError(f"its {key} is {show(metadata[prefix + key])}")
    if metadata.get(prefix + "attention.sliding_window", 0):
        raise ContainerError("it asks for sliding-window attention")
    return config


def read_generation(
    metadata: Metadata, vocabulary: Vocabulary, vocab_size: int
) -> GenerationDefaults:
    """How to sample it, with Qwen's own numbers for what the file does not say.

    Raises:
        ContainerError: a number is out of range.
    """
    table: dict[str, Any] = {
        key: shortest(metadata.get(name, _DEFAULT_SAMPLING[key])) for key, name in SAMPLING.items()
    }
    table["top_k"] = max(table["top_k"], 0) if type(table["top_k"]) is int else table["top_k"]
    stop = [metadata[key] for key in STOP_KEYS if key in metadata]
    if not all(type(id) is int for id in stop):
        raise ContainerError("the token that ends an answer is not a number")
    places = enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
    stop += [id for id, (token, kind) in places if kind == Kind.CONTROL and token in _END_TOKENS]
    table["stop_ids"] = list(dict.fromkeys(stop))
    return generation_from(table, vocab_size)


def read_template(metadata: Metadata) -> str:
    """The chat template, Jinja source; the one named ``default`` where they have names.

    Raises:
        ContainerError: it is not a text.
    """
    found = metadata.get(TEMPLATE, metadata.get(f"{TEMPLATE}.default", CHATML))
    if not isinstance(found, str):
        raise ContainerError(f"its {TEMPLATE} is not a text")
    return found


def read_vocabulary(metadata: Metadata) -> Vocabulary:
    """The tokenizer's lists.

    Raises:
        ContainerError: they are malformed, or those of another kind of tokenizer than Qwen's.
    """
    model, pre = metadata.get(MODEL), metadata.get(PRE)
    if model != "gpt2" or pre != "qwen2":
        raise ContainerError(f"its tokenizer is {show(model)} ({show(pre)}), not Qwen's")
    if metadata.get(ADD_BOS, False) is not False:
        raise ContainerError("its tokenizer begins every text with a token, Qwen's does not")
    tokens, merges = _texts(metadata, TOKENS), _texts(metadata, MERGES)
    kinds = metadata.get(KINDS)
    if not isinstance(kinds, array) or kinds.typecode not in "iI" or len(kinds) != len(tokens):
        raise ContainerError(f"its {KINDS} do not go with its tokens")
    known = set(Kind)
    for id, kind in enumerate(kinds):
        if kind not in known:
            raise ContainerError(f"its token {id} is of the kind {kind}")
    used = [token for token, kind in zip(tokens, kinds, strict=True) if kind != Kind.UNUSED]
    if len(set(used)) != len(used):
        raise ContainerError("it has a token twice")
    return Vocabulary(tokens, list(kinds), merges)


def _texts(metadata: Metadata, key: str) -> Sequence[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not all(type(text) is str for text in value):
        raise ContainerError(f"its {key} is not a list of texts")
    return value
