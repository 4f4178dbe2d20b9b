"""A byte-level vocabulary as plain lists, the way GGUF files have it, and as ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from qwen_edge.text.pack_tokenizer import PATTERN


class Kind(IntEnum):
    """What a token is, by ggml's numbers."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


class Vocabulary(NamedTuple):
    """Tokens by id and the merges in the order of their rank.

    Attributes:
        tokens: normal ones in the byte alphabet, control and user-defined ones as plain text; of
            unused ones the text does not count.
        kinds: of each token, values of ``Kind``.
        merges: left and right part with a space between.
    """

    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]


# llama.cpp's converter takes all tokens of the form <|...|> for control tokens. Qwen's makers do
# not count these ones among them.
_PLAIN_TOKENS = frozenset(
    ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
     "<|file_sep|>")
)  # fmt: skip


def is_special(token: str, kind: int) -> bool:
    """Whether Hugging Face's definition marks an added token as special."""
    return kind == Kind.CONTROL and token not in _PLAIN_TOKENS


def kind_of_added(token: str, special: bool) -> Kind:
    """The kind of an added token; the reverse of ``is_special``."""
    return Kind.CONTROL if special or token in _PLAIN_TOKENS else Kind.USER_DEFINED


def padded(vocabulary: Vocabulary, count: int) -> Vocabulary:
    """The vocabulary with a text of its own for every unused token, and more up to ``count``."""
    tokens, kinds = list(vocabulary.tokens), list(vocabulary.kinds)
    missing = count - len(tokens)
    tokens += [""] * missing
    kinds += [Kind.UNUSED] * missing
    used = {token for token, kind in zip(tokens, kinds, strict=True) if kind != Kind.UNUSED}
    for id, kind in enumerate(kinds):
        if kind == Kind.UNUSED:
            tokens[id] = f"[PAD{id}]"
            while tokens[id] in used:
                tokens[id] = f"[{tokens[id]}]"
    return Vocabulary(tokens, kinds, vocabulary.merges)


def tokenizer_json(vocabulary: Vocabulary) -> bytes:
    """A ``tokenizer.json`` of Qwen's kind: NFC, Qwen's splitting pattern, byte-level BPE."""
    places = list(enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True)))
    vocab = {token: id for id, (token, kind) in places if kind == Kind.NORMAL}
    added = {token: id for id, (token, kind) in places if kind not in (Kind.NORMAL, Kind.UNUSED)}
    # The library counts the ids of added tokens on from the vocabulary's last one; any other id
    # is the token's only if the vocabulary has it, too.
    listed = vocab
    if list(added.values()) != list(range(len(vocab), len(vocab) + len(added))):
        listed = vocab | added
    added_tokens = [
        {
            "id": id,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": is_special(token, vocabulary.kinds[id]),
        }
        for token, id in added.items()
    ]
    split = {
        "type": "Split",
        "pattern": {"Regex": PATTERN},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False,
    }  # fmt: skip
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": listed,
            "merges": [merge.split(" ") for merge in vocabulary.merges],
        },
    }
    return json.dumps(definition, ensure_ascii=False).encode()
