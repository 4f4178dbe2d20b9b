"""A sentence on a choice that was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Reason(NamedTuple):
    """A template and its values; the template may have a translation."""

    sentence: str
    values: Mapping[str, object]

    def __str__(self) -> str:
        return self.sentence.format(**self.values)
