"""Which files of a repository make a model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from qwen_edge.errors import DamagedModelError, ModelNotFoundError, UsageError
from qwen_edge.host.part_file import RemoteFile
from qwen_edge.host.sizes import format_size
from qwen_edge.model.checkpoint_config import CONFIG
from qwen_edge.model.checkpoint_weights import SUFFIX, Weights, find_weights
from qwen_edge.session.pull_names import GGUF_SUFFIX, READY_SUFFIX

CHECKPOINT, GGUF, READY = "checkpoint", "gguf", "ready"
TOKENIZER = "tokenizer.json"
# What a checkpoint's readers look at beside the weights; all but the first two may be missing.
SIDE_FILES = (
    CONFIG,
    TOKENIZER,
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "quantize_config.json",
    "quant_config.json",
)
# Far above what they are; a server could name any size.
_SIDE_LIMIT = 256 << 20
_MOST_SHARDS = 1000
_SPLIT_GGUF = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)

ReadText = Callable[[RemoteFile], bytes]
"""Reads a small file at its source."""


@dataclass(frozen=True)
class Selection:
    """The files to download, in order.

    Attributes:
        kind: ``checkpoint``, ``gguf`` or ``ready`` (a .qedge file).
        files: under plain names; the small ones come first.
    """

    kind: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class _Listing(NamedTuple):
    repo: str
    files: Sequence[RemoteFile]

    def get(self, name: str) -> RemoteFile | None:
        """The file of exactly this name."""
        return next((file for file in self.files if file.name == name), None)

    def models(self, *suffixes: str) -> list[RemoteFile]:
        """Single files that are a model."""
        return [file for file in self.files if file.name.lower().endswith(suffixes)]


def select(repo: str, files: Sequence[RemoteFile], wanted: str | None, read: ReadText) -> Selection:
    """Chooses the files of a repository that make a model.

    Args:
        repo: its name, for messages.
        files: all it has.
        wanted: a file's name or a part of it, or None for whatever makes a model.
        read: reads the index of a checkpoint's shards.

    Raises:
        ModelNotFoundError: it has no such file, or none that make a model.
        UsageError: several files fit.
        DamagedModelError: it is a checkpoint that lacks something.
    """
    listing = _Listing(repo, files)
    if wanted is not None:
        return _one(listing, _matching(listing, wanted), wanted)
    ready = listing.models(READY_SUFFIX)
    if ready:
        return _one(listing, ready, READY_SUFFIX)
    models = listing.models(GGUF_SUFFIX)
    if listing.get(CONFIG) and (_has_weights(listing) or not models):
        return _checkpoint(listing, find_weights(repo, [file.name for file in files]), read)
    return _one(listing, models, GGUF_SUFFIX)


def _has_weights(listing: _Listing) -> bool:
    return any("/" not in file.name and file.name.endswith(SUFFIX) for file in listing.files)


def _matching(listing: _Listing, wanted: str) -> list[RemoteFile]:
    """The models of this name; else of this file name in any folder; else with it in their name."""
    models = listing.models(READY_SUFFIX, GGUF_SUFFIX)
    exact = [file for file in models if file.name == wanted]
    plain = [file for file in models if file.name.rpartition("/")[2] == wanted]
    return exact or plain or [file for file in models if wanted.lower() in file.name.lower()]


def _one(listing: _Listing, found: Sequence[RemoteFile], wanted: str) -> Selection:
    if not found:
        raise ModelNotFoundError(
            "{repo} has no model file {name}.",
            "A model is config.json with model.safetensors, a .gguf or a .qedge file; it has: "
            "{found}.",
            repo=listing.repo,
            name=wanted,
            found=_named(listing.models(READY_SUFFIX, GGUF_SUFFIX) or listing.files),
        )
    if len(found) > 1:
        raise UsageError(
            "{repo} has several models: {found}.",
            "Say which, with a part of its name: `qwen-edge pull {repo}:{example}`.",
            repo=listing.repo,
            found=_named(found),
            example=found[0].name,
        )
    file = found[0]
    if _SPLIT_GGUF.search(file.name):
        raise UsageError(
            "{name} is a part of a GGUF in several files, which are not read.",
            "Choose one that is whole.",
            name=file.name,
        )
    kind = READY if file.name.lower().endswith(READY_SUFFIX) else GGUF
    return Selection(kind, (replace(file, name=file.name.rpartition("/")[2]),))


def _named(files: Sequence[RemoteFile]) -> str:
    shown = ", ".join(f"{file.name} ({format_size(file.size)})" for file in files[:12])
    return shown + (", ..." if len(files) > 12 else "") if files else "-"


def _checkpoint(listing: _Listing, found: Weights, read: ReadText) -> Selection:
    sides = [file for name in SIDE_FILES if (file := listing.get(name))]
    file = listing.get(found.name)
    assert file is not None
    if found.sharded:
        # Shards without their index would be nothing to the reader.
        sides.append(file)
        weights = _shards(listing, file, read)
    else:
        weights = [file]
    if listing.get(TOKENIZER) is None:
        raise _incomplete(listing.repo, f"it has no {TOKENIZER}")
    for file in sides:
        if file.size > _SIDE_LIMIT:
            raise _incomplete(listing.repo, f"{file.name} is too large")
    return Selection(CHECKPOINT, (*sides, *weights))


def _shards(listing: _Listing, index: RemoteFile, read: ReadText) -> list[RemoteFile]:
    try:
        placed = json.loads(read(index)).get("weight_map")
        names = sorted(set(placed.values()))
    except (ValueError, RecursionError, AttributeError, TypeError):
        raise _incomplete(listing.repo, f"{index.name} cannot be read") from None
    shards = []
    for name in names[:_MOST_SHARDS]:
        shard = listing.get(name) if isinstance(name, str) else None
        if shard is None or "/" in name or not name.endswith(SUFFIX):
            raise _incomplete(listing.repo, f"its {index.name} names a file that it has not")
        shards.append(shard)
    if not shards:
        raise _incomplete(listing.repo, f"{index.name} names no files")
    return shards


def _incomplete(repo: str, problem: str) -> DamagedModelError:
    return DamagedModelError(
        "The checkpoint {path} cannot be used: {problem}.",
        "Take another repository of this model.",
        path=repo,
        problem=problem,
    )
