"""The committed results as the report reads them: benchmarks/results/NAME.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.spread import Spread, paired_ratio, spread


class MissingError(Exception):
    """Something was not measured; the message names it."""


class Records:
    """All results of a folder, by file name without ``.json``."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("*.json"))
        self._records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}

    def names(self) -> list[str]:
        """What was measured."""
        return list(self._records)

    def record(self, name: str) -> Any:
        """One result.

        Raises:
            MissingError: it is not there.
        """
        if name not in self._records:
            raise MissingError(f"{name} was not measured")
        return self._records[name]

    def samples(self, part: str, label: str) -> list[float]:
        """A case's samples, in the order of the turns.

        Raises:
            MissingError: the case was not measured.
        """
        record = self.record(f"peers-{part}")
        if label not in record["values"]:
            reason = record["failed"].get(label, "not part of it")
            raise MissingError(f"{label}: {reason}")
        return [float(value) for value in record["values"][label]]

    def spread(self, part: str, label: str) -> Spread:
        """Median and range of a case."""
        return spread(self.samples(part, label))

    def best(self, part: str, labels: Sequence[str]) -> str:
        """The label with the highest median of those that were measured.

        Raises:
            MissingError: none of them was.
        """
        measured = [label for label in labels if label in self.record(f"peers-{part}")["values"]]
        if not measured:
            raise MissingError(f"none of {', '.join(labels)} was measured")
        return max(measured, key=lambda label: median(self.samples(part, label)))

    def ratio(self, part: str, ours: str, theirs: str) -> Spread:
        """Ours over theirs, turn by turn."""
        return paired_ratio(self.samples(part, ours), self.samples(part, theirs))

    def opened(self, part: str, label: str, key: str) -> Any:
        """What a system said when it opened its model.

        Raises:
            MissingError: it did not say that.
        """
        opened = self.record(f"peers-{part}").get("opened", {})
        # A system that serves several cases answered for the first of them.
        for name in (label, *(name for name in opened if name.split()[0] == label.split()[0])):
            if key in opened.get(name, {}):
                return opened[name][key]
        raise MissingError(f"{part} does not have {key} of {label}")

    def bandwidth_share(self, part: str, label: str, bytes_per_token: float) -> Spread:
        """What was read of what the memory gave around each sample, 1 for all of it."""
        around = self.record(f"peers-{part}")["bandwidth"][label]
        return paired_ratio([rate * bytes_per_token for rate in self.samples(part, label)], around)
