"""Turns a ``tokenizer.json`` into the blob that the native tokenizer reads in place.

The layout is described in native/tokenizer.h. Only byte-level BPE with Qwen's splitting pattern and
NFC is taken; anything else is refused, because it would be tokenized wrongly.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import NoReturn

from qwen_edge.errors import DamagedModelError

MAGIC = b"QETOKENS"
VERSION = 1
SPECIAL, ADDED = 1, 2
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

HEADER = struct.Struct("<8s6I8Q")
_ALIGNMENT = 64
NO_TOKEN = 0xFFFFFFFF
_MAX_VOCAB = 1 << 21
_MAX_PROBES = 4096
_WORD = 0xFFFFFFFF


def pack_tokenizer(tokenizer_json: bytes) -> bytes:
    """Packs a Hugging Face ``tokenizer.json``.

    Returns:
        The blob, to be stored at a multiple of 64 bytes.

    Raises:
        DamagedModelError: the JSON is malformed, or asks for something that the native tokenizer
            does not do; the message names it.
    """
    try:
        definition = json.loads(tokenizer_json)
    except (ValueError, RecursionError) as error:
        raise DamagedModelError(
            "The tokenizer is not valid JSON: {reason}.",
            "Download the model again.",
            reason=error,
        ) from None
    definition = _mapping(definition, "its top level")
    _check_pipeline(definition)
    model = _mapping(definition.get("model"), "model")
    vocab = _vocabulary(model)
    byte_ids = _byte_ids(vocab)
    tokens, flags, added_ids = _tokens(vocab, _added_tokens(definition))
    merges, probes = _merge_table(model, vocab)
    return _assemble(tokens, flags, byte_ids, merges, probes, added_ids)


def _unsupported(what: str) -> NoReturn:
    raise DamagedModelError(
        "This kind of tokenizer is not supported: {what}.",
        "Use a Qwen3 model, or one with the same kind of tokenizer.",
        what=what,
    )


def _malformed(what: str) -> NoReturn:
    raise DamagedModelError(
        "The tokenizer is damaged: {what}.", "Download the model again.", what=what
    )


def _mapping(value: object, name: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        _malformed(f"{name} is not an object")
    return value


def _check_pipeline(definition: Mapping[str, object]) -> None:
    """Refuses every setting that would change the ids in a way that is not built in."""
    normalizer = definition.get("normalizer")
    if normalizer != {"type": "NFC"}:
        _unsupported(f"normalizer {_brief(normalizer)}")
    steps = _steps(definition.get("pre_tokenizer"), "pretokenizers")
    if len(steps) != 2 or not _is_split(steps[0]) or not _is_byte_level(steps[1]):
        _unsupported(f"pre-tokenizer {_brief(definition.get('pre_tokenizer'))}")
    for step in _steps(definition.get("post_processor"), "processors"):
        # ByteLevel only moves offsets, which are not kept here.
        if step.get("type") != "ByteLevel":
            _unsupported(f"post-processor {_brief(step)}")
    decoders = _steps(definition.get("decoder"), "decoders")
    if [step.get("type") for step in decoders] != ["ByteLevel"]:
        _unsupported(f"decoder {_brief(definition.get('decoder'))}")


def _steps(value: object, key: str) -> Sequence[Mapping[str, object]]:
    """A step, or the steps of a Sequence, as a list; empty for null."""
    if value is None:
        return []
    step = _mapping(value, "a step of the pipeline")
    if step.get("type") != "Sequence":
        return [step]
    steps = step.get(key)
    if not isinstance(steps, list):
        _malformed(f"{key} is not a list")
    return [_mapping(each, "a step of the pipeline") for each in steps]


def _is_split(step: Mapping[str, object]) -> bool:
    return (
        step.get("type") == "Split"
        and step.get("pattern") == {"Regex": PATTERN}
        and step.get("behavior") == "Isolated"
        and step.get("invert") is False
    )


def _is_byte_level(step: Mapping[str, object]) -> bool:
    return (
        step.get("type") == "ByteLevel"
        and step.get("add_prefix_space") is False
        and step.get("use_regex") is False
    )


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= 400 else text[:400] + "..."
    # Direction marks and halves of characters would reach the terminal.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _vocabulary(model: Mapping[str, object]) -> Mapping[str, int]:
    if model.get("type") != "BPE":
        _unsupported(f"model type {_brief(model.get('type'))}")
    for name in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            _unsupported(f"{name} {_brief(model[name])}")
    for name in ("byte_fallback", "ignore_merges"):
        if model.get(name):
            _unsupported(name)
    vocab = model.get("vocab")
    if not isinstance(vocab, dict):
        _malformed("the vocabulary is not an object")
    for id in vocab.values():
        if type(id) is not int or not 0 <= id < _MAX_VOCAB:
            _malformed(f"{_brief(id)} is not a token id")
    return vocab


def _added_tokens(definition: Mapping[str, object]) -> list[tuple[str, int, bool]]:
    """Content, id and whether it is special, of each added token."""
    entries = definition.get("added_tokens")
    if entries is None:
        return []
    if not isinstance(entries, list):
        _malformed("added_tokens is not a list")
    found = []
    for entry in entries:
        token = _mapping(entry, "an added token")
        content, id = token.get("content"), token.get("id")
        if not isinstance(content, str) or type(id) is not int or not 0 <= id < _MAX_VOCAB:
            _malformed(f"added token {_brief(entry)}")
        for option in ("single_word", "lstrip", "rstrip", "normalized"):
            if token.get(option):
                _unsupported(f"added token {_brief(content)} with {option}")
        if content:
            found.append((content, id, token.get("special") is True))
    return found


def byte_alphabet() -> dict[int, str]:
    """The printable characters that stand for the 256 bytes in a byte-level vocabulary.

    Printable Latin-1 stands for itself, the other bytes take U+0100 and up in order (GPT-2).
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    alphabet = {byte: chr(byte) for byte in plain}
    alphabet.update((byte, chr(256 + place)) for place, byte in enumerate(others))
    return alphabet


def _byte_ids(vocab: Mapping[str, int]) -> array[int]:
    ids = array("I")
    for byte, character in sorted(byte_alphabet().items()):
        if character not in vocab:
            _unsupported(f"no token for byte 0x{byte:02X}")
        ids.append(vocab[character])
    return ids


def _tokens(
    vocab: Mapping[str, int], added: Sequence[tuple[str, int, bool]]
) -> tuple[list[bytes], bytearray, array[int]]:
    """The bytes and flags of each id, and the added ids in the order of their bytes."""
    highest = max([*vocab.values(), *(id for _, id, _ in added)])
    tokens: list[bytes] = [b""] * (highest + 1)
    flags = bytearray(highest + 1)
    contents = {content for content, _, _ in added}
    # What is not in the alphabet must not pass as Latin-1.
    to_latin = dict.fromkeys(range(256), 0xFFFF)
    to_latin.update((ord(character), byte) for byte, character in byte_alphabet().items())
    taken = bytearray(highest + 1)
    for text, id in vocab.items():
        if taken[id]:
            _malformed(f"token id {id} occurs twice")
        taken[id] = 1
        if text in contents:
            continue
        try:
            tokens[id] = text.translate(to_latin).encode("latin-1")
        except UnicodeEncodeError:
            _unsupported(f"token {_brief(text)} is not byte-level")
    for content, id, special in added:
        # The vocabulary's id counts where both name one, as in the library.
        id = vocab.get(content, id)
        if tokens[id]:
            _malformed(f"token id {id} occurs twice")
        try:
            tokens[id] = content.encode()
        except UnicodeEncodeError:
            _malformed(f"added token {_brief(content)}")
        flags[id] = ADDED | (SPECIAL if special else 0)
    ordered = sorted((id for id, flag in enumerate(flags) if flag), key=tokens.__getitem__)
    return tokens, flags, array("I", ordered)


def _merge_ids(entry: object, vocab: Mapping[str, int]) -> tuple[int, int, int]:
    """The ids of the left and right part of a merge and of what they make."""
    pair = entry.split(" ") if isinstance(entry, str) else entry
    if isinstance(pair, list) and len(pair) == 2:
        left, right = pair
        if isinstance(left, str) and isinstance(right, str):
            ids = vocab.get(left), vocab.get(right), vocab.get(left + right)
            if ids[0] is not None and ids[1] is not None and ids[2] is not None:
                return ids[0], ids[1], ids[2]
    _malformed(f"merge {_brief(entry)}")


def _merge_table(model: Mapping[str, object], vocab: Mapping[str, int]) -> tuple[array[int], int]:
    """The open-addressed table of native/tokenizer.h, and the longest way from a home slot."""
    entries = model.get("merges")
    if not isinstance(entries, list):
        _malformed("merges is not a list")
    bits = 4
    while 1 << bits < len(entries) * 3 // 2:
        bits += 1
    mask, shift = (1 << bits) - 1, 32 - bits
    table = array("I", b"\xff" * (16 << bits))
    longest = 0
    for rank, entry in enumerate(entries):
        left, right, merged = _merge_ids(entry, vocab)
        mixed = ((left ^ (right * 0x85EBCA6B & _WORD)) * 0x9E3779B1) & _WORD
        slot = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D & _WORD) >> shift
        probes = 0
        while table[slot * 4] != NO_TOKEN:
            if table[slot * 4] == left and table[slot * 4 + 1] == right:
                break  # a repeated merge counts where it comes last
            slot = (slot + 1) & mask
            probes += 1
        table[slot * 4 : slot * 4 + 4] = array("I", (left, right, rank, merged))
        longest = max(longest, probes)
        if longest > _MAX_PROBES:
            _unsupported("its merges do not spread over the table")
    return table, longest


def _assemble(
    tokens: Sequence[bytes],
    flags: bytearray,
    byte_ids: array[int],
    merges: array[int],
    probes: int,
    added_ids: array[int],
) -> bytes:
    offsets = array("I", [0])
    end = 0
    for token in tokens:
        end += len(token)
        offsets.append(end)
    if sys.byteorder != "little":
        for words in (offsets, byte_ids, merges, added_ids):
            words.byteswap()
    contents = (offsets, b"".join(tokens), flags, byte_ids, merges, added_ids)
    blob = bytearray(HEADER.size)
    places = []
    for content in contents:
        blob += bytes(-len(blob) % _ALIGNMENT)
        places.append(len(blob))
        blob += memoryview(content).cast("B")
    HEADER.pack_into(
        blob,
        0,
        MAGIC,
        VERSION,
        len(tokens),
        len(merges) // 4,
        probes,
        len(added_ids),
        0,
        len(blob),
        end,
        *places,
    )
    return bytes(blob)
