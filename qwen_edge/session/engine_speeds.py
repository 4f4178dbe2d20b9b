"""How fast each engine was on this machine, by the shape of the model: what ``auto`` goes by.

A JSON file in the cache folder: ``program``, ``machine``, and ``speeds`` by shape and way, tokens a
second. It counts for the version and the machine that wrote it. Anyone may have changed it: what
is not as it should be is not there, and the worst that a wrong number does is a slower engine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import qwen_edge
from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.paths import engine_speeds_file
from qwen_edge.model.config import ModelConfig
from qwen_edge.native.instruction_sets import isa_name
from qwen_edge.session.engine_choice import NATIVE, TORCH
from qwen_edge.session.measured_file import read_measured, shape_of, write_measured

__all__ = ["WAYS", "Way", "read_speeds", "write_speeds"]


class Way(NamedTuple):
    """An engine and how it compiles, as settings have it."""

    engine: str
    compile: str


# The ways to run a model file, by their names in the file.
WAYS: Mapping[str, Way] = {
    "native": Way(NATIVE, "auto"),
    "torch": Way(TORCH, "on"),
    "torch-eager": Way(TORCH, "off"),
    "torch-aot": Way(TORCH, "aot"),
}
_MOST_SHAPES = 64
# No machine decodes more tokens a second, nor does anybody wait for fewer.
_FASTEST, _SLOWEST = 1e6, 1e-3


def read_speeds(
    config: ModelConfig, bits: int, environ: Mapping[str, str] | None = None
) -> dict[str, float]:
    """The speeds of a model's shape.

    Args:
        config: the model's numbers.
        bits: of a weight, nominally.
        environ: the environment variables.

    Returns:
        Names among ``WAYS`` and tokens a second of decoding; nothing where nothing was measured.
    """
    return _read(engine_speeds_file(environ)).get(shape_of(config, bits), {})


def write_speeds(
    config: ModelConfig,
    bits: int,
    speeds: Mapping[str, float],
    environ: Mapping[str, str] | None = None,
) -> None:
    """Keeps what was measured for a shape, in place of what was known of it.

    A folder that cannot be written to keeps nothing; nobody has to hear of it.

    Args:
        config: the model's numbers.
        bits: of a weight, nominally.
        speeds: names among ``WAYS`` and tokens a second of decoding, of one run.
        environ: the environment variables.
    """
    unknown = speeds.keys() - WAYS.keys()
    if unknown:
        raise ValueError(f"there is no way {unknown.pop()}")
    path = engine_speeds_file(environ)
    known = _read(path)
    known.pop(shape_of(config, bits), None)
    # The last measured is the last to go.
    kept = dict(list(known.items())[-_MOST_SHAPES + 1 :])
    table = {**_origin(), "speeds": {**kept, shape_of(config, bits): dict(speeds)}}
    with contextlib.suppress(QwenEdgeError):
        write_measured(path, table)


def _read(path: Path) -> dict[str, dict[str, float]]:
    """All that counts of the file, by shape."""
    table = read_measured(path)
    if not table or any(table.get(k) != v for k, v in _origin().items()):
        return {}
    shapes = table.get("speeds")
    if not isinstance(shapes, dict):
        return {}
    return {
        shape: {way: float(speed) for way, speed in speeds.items() if _is_sound(way, speed)}
        for shape, speeds in shapes.items()
        if isinstance(speeds, dict)
    }


def _is_sound(way: str, speed: object) -> bool:
    number = isinstance(speed, int | float) and not isinstance(speed, bool)
    return way in WAYS and number and _SLOWEST <= speed <= _FASTEST  # type: ignore[operator]


def _origin() -> dict[str, object]:
    """What has to be the same for speeds to count."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = f"{os.uname().machine} {isa_name()} {cores}"
    return {"program": qwen_edge.__version__, "machine": machine}
