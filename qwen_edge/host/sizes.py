"""Byte counts as people write them."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kib": 1 << 10,
    "kb": 10**3,
    "m": 1 << 20,
    "mib": 1 << 20,
    "mb": 10**6,
    "g": 1 << 30,
    "gib": 1 << 30,
    "gb": 10**9,
    "t": 1 << 40,
    "tib": 1 << 40,
    "tb": 10**12,
}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?|\.\d{1,9})\s*([A-Za-z]{0,3})", re.ASCII)


def parse_size(text: str) -> int:
    """Reads ``900MB``, ``1GiB``, ``1.5g`` or a plain number of bytes.

    Single letters are powers of 1024, as in ``ls -h`` and ``ulimit``.

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match.group(2).lower() not in _UNITS:
        raise ValueError(f"{text!r} is not a size")
    return int(float(match.group(1)) * _UNITS[match.group(2).lower()])


def format_size(size: int) -> str:
    """Writes bytes with a binary unit and two or three figures: ``335 MiB``, ``1.4 GiB``."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        # Rounding could carry into a fourth figure: 1023.6 MiB is 1.0 GiB.
        if abs(amount) < 999.5:
            break
        amount, unit = amount / 1024, larger
    if unit == "B":
        return f"{size} B"
    return f"{amount:.1f} {unit}" if abs(amount) < 99.95 else f"{amount:.0f} {unit}"
