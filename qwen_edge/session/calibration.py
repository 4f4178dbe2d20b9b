"""Threads and cores that were measured to be best, kept for this device and this shape of model.

A JSON file in the data folder: ``program`` and, by device and shape, ``results``. A result counts
for the version that wrote it, the kernels and the cores that it was measured with. Anyone may have
changed the file: what is not as it should be is as if it were not there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import qwen_edge
from qwen_edge.host.paths import calibration_file
from qwen_edge.model.config import ModelConfig
from qwen_edge.native.instruction_sets import isa_name
from qwen_edge.session.measured_file import read_measured, shape_of, write_measured
from qwen_edge.session.profile import DeviceProfile
from qwen_edge.session.select import Calibrated

_MOST_RESULTS = 64
# No machine computes more tokens a second, nor does anybody wait for fewer.
_FASTEST, _SLOWEST = 1e7, 1e-4


class Result(NamedTuple):
    """A result, and what it was won with.

    Attributes:
        chosen: the threads and cores.
        decode: tokens a second of decoding with them.
        prefill: likewise of reading a prompt.
        when: in seconds since 1970.
    """

    chosen: Calibrated
    decode: float
    prefill: float
    when: float


class Stored(NamedTuple):
    """What is stored.

    Attributes:
        result: that of this device and shape, or None.
        damaged: whether there is something that is not as this program writes it.
    """

    result: Result | None = None
    damaged: bool = False


def read_calibration(
    profile: DeviceProfile,
    config: ModelConfig,
    bits: int,
    environ: Mapping[str, str] | None = None,
) -> Stored:
    """Looks for the result of a shape of model on this device.

    Args:
        profile: the device, with all of its cores.
        config: the model's numbers.
        bits: of a weight, nominally.
        environ: the environment variables.
    """
    table = read_measured(calibration_file(environ))
    if table is None:
        return Stored(damaged=True)
    if not table:
        return Stored()
    results = table.get("results")
    if not isinstance(results, dict):
        return Stored(damaged=True)
    if table.get("program") != qwen_edge.__version__:
        return Stored()
    raw = results.get(_key(profile, config, bits))
    if raw is None:
        return Stored()
    result = _checked(raw, profile)
    return Stored(result, damaged=result is None)


def write_calibration(
    profile: DeviceProfile,
    config: ModelConfig,
    bits: int,
    result: Result,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Keeps a result in place of what was known of that shape on this device.

    Raises:
        QwenEdgeError: it cannot be written.
    """
    path, key = calibration_file(environ), _key(profile, config, bits)
    table = read_measured(path) or {}
    known = table.get("results") if table.get("program") == qwen_edge.__version__ else None
    known = {k: v for k, v in known.items() if k != key} if isinstance(known, dict) else {}
    # The last measured is the last to go.
    kept = dict(list(known.items())[-_MOST_RESULTS + 1 :])
    raw = {**result.chosen._asdict(), **result._asdict()}
    del raw["chosen"]
    write_measured(path, {"program": qwen_edge.__version__, "results": {**kept, key: raw}})


def age_in_days(result: Result, now: float | None = None) -> int:
    """Whole days since a result was measured; 0 where the clock was put back since."""
    return max(0, int(((time.time() if now is None else now) - result.when) // 86400))


def _checked(raw: Any, profile: DeviceProfile) -> Result | None:
    """A result as this program writes it, or None."""
    if not isinstance(raw, dict) or raw.keys() != _FIELDS:
        return None
    threads, prefill_threads, cpus = (raw[field] for field in Calibrated._fields)
    numbers = {*profile.big, *profile.little}
    if not all(_is_count(count, max(1, profile.cores)) for count in (threads, prefill_threads)):
        return None
    if not isinstance(cpus, list) or not all(_is_core(core, numbers) for core in cpus):
        return None
    if len(set(cpus)) != len(cpus) or 0 < len(cpus) < threads:
        return None
    rates = raw["decode"], raw["prefill"]
    if not all(_is_number(rate) and _SLOWEST <= rate <= _FASTEST for rate in rates):
        return None
    if not _is_number(raw["when"]):
        return None
    return Result(Calibrated(threads, prefill_threads, tuple(cpus)), *rates, raw["when"])


_FIELDS = {*Calibrated._fields, *Result._fields} - {"chosen"}


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_core(value: object, numbers: set[int]) -> bool:
    return type(value) is int and value in numbers


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _key(profile: DeviceProfile, config: ModelConfig, bits: int) -> str:
    return f"{shape_of(config, bits)} {isa_name()} {profile.cores_seen}"
