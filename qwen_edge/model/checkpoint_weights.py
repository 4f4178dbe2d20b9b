"""Which files of a checkpoint hold its weights: the usual names, and those of older tools."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from qwen_edge.errors import ModelNotFoundError, QwenEdgeError, UsageError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
_PICKLED = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".pickle")
_OTHERS = ("adapter_model.safetensors", "training_args.bin", "optimizer.pt", "scheduler.pt")


class Weights(NamedTuple):
    """The file that holds all weights, or the index of those that do."""

    name: str
    sharded: bool


def find_weights(path: str | Path, names: Iterable[str]) -> Weights:
    """Finds the weights among the files of a checkpoint.

    ``model.safetensors`` comes first, then its index. Else it is the only index or the only
    safetensors file that there is, ``gptq_model-4bit-128g.safetensors`` say.

    Args:
        path: of the checkpoint, for errors.
        names: of all files in its folder.

    Raises:
        ModelNotFoundError: there are none, or pickled ones only.
        UsageError: there are several, and none has a usual name.
    """
    plain = sorted(name for name in names if "/" not in name and name not in _OTHERS)
    for usual in (SINGLE, INDEX):
        if usual in plain:
            return Weights(usual, usual == INDEX)
    indexes = [name for name in plain if name.endswith(INDEX_SUFFIX)]
    single = [name for name in plain if name.endswith(SUFFIX) and not _SHARD.search(name)]
    found = indexes or single
    if len(found) == 1:
        return Weights(found[0], bool(indexes))
    raise _unclear(path, found) if found else _missing(path, plain)


def _unclear(path: str | Path, found: list[str]) -> QwenEdgeError:
    return UsageError(
        "The checkpoint {path} has several files of weights: {found}.",
        "Convert a folder that holds only one of them.",
        path=path,
        found=", ".join(found[:6]),
    )


def _missing(path: str | Path, names: list[str]) -> QwenEdgeError:
    pickled = [name for name in names if name.lower().endswith(_PICKLED)]
    if pickled:
        return ModelNotFoundError(
            "The weights in {path} are pickled ({name}), and reading those could run any code.",
            "Take a checkpoint with safetensors weights.",
            path=path,
            name=pickled[0],
        )
    return ModelNotFoundError(
        "There are no safetensors weights in {path}.",
        "It needs model.safetensors, or shards with model.safetensors.index.json; pickled "
        "checkpoints (.bin, .pth) are not read.",
        path=path,
    )
