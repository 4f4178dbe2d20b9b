"""What a benchmark found: measures with every sample, and their form as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from qwen_edge.errors import UsageError

SCHEMA = 1
KINDS = ("bench", "article", "engines")
# A file with more is none of ours.
_LARGEST_FILE = 16 << 20
HIGHER, LOWER, NEITHER = "higher", "lower", ""


class Quantity(NamedTuple):
    """A kind of measure.

    Attributes:
        unit: of its samples.
        better: ``higher``, ``lower``, or empty where neither is better.
        name: for people; a template that may leave the size open, and may have a translation.
    """

    unit: str
    better: str
    name: str


# In the order in which they are shown.
QUANTITIES: Mapping[str, Quantity] = {
    "load": Quantity("s", LOWER, "load"),
    "ready": Quantity("s", LOWER, "process start to ready"),
    "first-token-ever": Quantity("s", LOWER, "first token, very first process"),
    "first-token-cold": Quantity("s", LOWER, "first token, new process"),
    "first-token-warm": Quantity("s", LOWER, "first token, loaded"),
    "prefill": Quantity("tokens/s", HIGHER, "prefill of {size:,} tokens"),
    "decode": Quantity("tokens/s", HIGHER, "decode at depth {size:,}"),
    "decode-share": Quantity("%", HIGHER, "share of bandwidth at {size:,}"),
    "batch": Quantity("tokens/s", HIGHER, "batch of {size:,}"),
    "bandwidth": Quantity("bytes/s", NEITHER, "read bandwidth"),
    "processor-share": Quantity("%", NEITHER, "share of all cores"),
    "peak-memory": Quantity("bytes", LOWER, "peak memory, short answer"),
    "memory-at-depth": Quantity("bytes", LOWER, "memory at depth {size:,}"),
    "process-peak": Quantity("bytes", LOWER, "peak memory of the process"),
    "packages": Quantity("bytes", LOWER, "packages on disk"),
    "temperature": Quantity("°C", NEITHER, "battery"),
    "answer-speed": Quantity("tokens/s", HIGHER, "answers"),
    "turn-speed": Quantity("tokens/s", HIGHER, "chat of 30 turns"),
    "speed-drift": Quantity("%", NEITHER, "last turns against first"),
    "memory-growth": Quantity("bytes", NEITHER, "memory growth"),
    "leak": Quantity("bytes/hour", NEITHER, "leak, extrapolated"),
}


class Part(NamedTuple):
    """One thing to measure: the key of its quantity and what the name leaves open.

    ``size`` counts tokens of a prefill, positions of a depth, sequences of a batch; ``engine`` is
    named where several are measured.
    """

    key: str
    size: int | None
    engine: str = ""

    def __str__(self) -> str:
        name = QUANTITIES[self.key].name.format(size=self.size)
        return f"{self.engine}: {name}" if self.engine else name


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones; there is at least one."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(frozen=True)
class Measure:
    """Samples of one thing, in the order in which they were taken.

    Attributes:
        key: one of ``QUANTITIES``.
        size: as in ``Part``.
        samples: at least one.
        engine: as in ``Part``.
    """

    key: str
    size: int | None
    samples: tuple[float, ...]
    engine: str = ""

    @property
    def part(self) -> Part:
        """What was measured."""
        return Part(self.key, self.size, self.engine)

    @property
    def quantity(self) -> Quantity:
        """Its unit and direction."""
        return QUANTITIES[self.key]

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return median(self.samples)

    @property
    def spread(self) -> float:
        """Half the range as a share of the median; 0 for a single sample."""
        middle = abs(self.median)
        return (max(self.samples) - min(self.samples)) / 2 / middle if middle else 0.0


@dataclass(frozen=True)
class Remark:
    """Something that was left out or has to be said.

    A template and its values, another remark among them where it tells the reason.
    """

    template: str
    values: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        # As of an error, a template without values is taken literally.
        return self.template.format(**self.values) if self.values else self.template


@dataclass(frozen=True)
class Report:
    """All of one run.

    Attributes:
        kind: one of ``KINDS``.
        version: of this program.
        created: local time, ISO 8601.
        model: name, bits, group, bytes and what is read for a token.
        settings: threads, KV type, context and the like.
        device: what it ran on.
        measures: in the order of ``QUANTITIES``.
        remarks: what was left out, and why.
        complete: False where it was broken off.
    """

    kind: str
    version: str
    created: str
    model: Mapping[str, object]
    settings: Mapping[str, object]
    device: Mapping[str, object]
    measures: Sequence[Measure]
    remarks: Sequence[Remark] = ()
    complete: bool = True

    def find(self, key: str, size: int | None = None, engine: str = "") -> Measure | None:
        """The measure of a part, if there is one."""
        return next((m for m in self.measures if m.part == (key, size, engine)), None)

    def as_json(self) -> dict[str, object]:
        """Plain types, with the summaries that a reader of the file wants beside the samples."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "version": self.version,
            "created": self.created,
            "complete": self.complete,
            "model": dict(self.model),
            "settings": dict(self.settings),
            "device": dict(self.device),
            "measures": [
                {
                    **asdict(measure),
                    **measure.quantity._asdict(),
                    "median": measure.median,
                    "min": min(measure.samples),
                    "max": max(measure.samples),
                }
                for measure in self.measures
            ],
            "remarks": [{"text": str(remark), **asdict(remark)} for remark in self.remarks],
        }


def in_order(measures: Sequence[Measure]) -> list[Measure]:
    """Sorted as they are shown: by kind, then by size."""
    keys = list(QUANTITIES)
    return sorted(measures, key=lambda m: (keys.index(m.key), m.size or 0))


def measures_of(samples: Mapping[Part, Sequence[float]]) -> list[Measure]:
    """The measures of what was sampled, in order."""
    return in_order(
        [Measure(part.key, part.size, tuple(s), part.engine) for part, s in samples.items()]
    )


def read_report(path: Path) -> Report:
    """Reads what ``qwen-edge bench --json`` wrote.

    Raises:
        UsageError: the file cannot be read or is something else.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(
            "The result {path} cannot be read: {reason}.", path=path, reason=error.strerror or error
        ) from None
    try:
        if len(data) > _LARGEST_FILE:
            raise ValueError("it is too large")
        return _report(json.loads(data))
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UsageError(
            "{path} is not a result of this program's benchmark.",
            "Write one with `qwen-edge bench --json >FILE`.",
            path=path,
        ) from None


def _report(found: object) -> Report:
    """Checks every part that is used later."""
    table = _table(found)
    if table["schema"] != SCHEMA or table["kind"] not in KINDS:
        raise ValueError("schema")
    measures = table["measures"]
    if not isinstance(measures, list):
        raise ValueError("measures")
    return Report(
        kind=str(table["kind"]),
        version=str(table["version"]),
        created=str(table["created"]),
        model=_table(table["model"]),
        settings=_table(table["settings"]),
        device=_table(table["device"]),
        measures=in_order([_measure(_table(measure)) for measure in measures]),
        complete=table["complete"] is True,
    )


def _table(found: object) -> dict[str, object]:
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _measure(table: Mapping[str, object]) -> Measure:
    key, size, samples = table["key"], table["size"], table["samples"]
    # Results of earlier versions name no engine.
    engine = table.get("engine", "")
    if key not in QUANTITIES or not (size is None or type(size) is int):
        raise ValueError("key")
    if not isinstance(samples, list) or not samples:
        raise ValueError("samples")
    numbers = tuple(float(sample) for sample in samples)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("samples")
    if not isinstance(engine, str):
        raise ValueError("engine")
    return Measure(str(key), size, numbers, engine)
