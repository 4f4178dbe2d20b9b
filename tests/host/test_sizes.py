from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.host.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("1GiB", 1 << 30),
        ("900MB", 900_000_000),
        ("1.5g", 3 << 29),
        (" 64 mib ", 64 << 20),
        (".5K", 512),
        ("2tb", 2 * 10**12),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "1 2", "-1", "1e9", "1qb", "GiB", "1..5", "nan", "inf", "١٢"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (335 << 20, "335 MiB"),
        (1023 << 20, "1.0 GiB"),
        (1505753088, "1.4 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_sizes_are_written(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 1 << 45))
def test_written_sizes_read_back_closely(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= 0.06 * size
