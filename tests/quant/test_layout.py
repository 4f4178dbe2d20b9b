"""Sizes and rules of the storage layouts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qwen_edge.quant.layout import (
    CODEBOOKS,
    INT4,
    NF4,
    UINT4,
    Layout,
    WeightFormat,
    level_format,
    weight_format,
)

LEVELS = tuple(i / 8 for i in INT4)


@pytest.mark.parametrize(
    ("layout", "block", "nbytes"),
    [
        (Layout("q4", 16, 32, 32, False, INT4), 288, 288),
        (Layout("q4", 17, 33, 32, True, UINT4), 320, 4 * 320),
        (Layout("q4", 1, 96, 64, False, INT4), 544, 2 * 544),
        (Layout("q4", 16, 128, 128, True, UINT4), 1088, 1088),
        (Layout("q8", 48, 64, 32), 544, 6 * 544),
        (Layout("q8", 16, 128, 128), 2080, 2080),
        (Layout("q8", 16, 96, 32, True), 576, 3 * 576),
        (Layout("q8", 17, 64, 64, True, (), True), 1088, 2 * 1088),
    ],
)
def test_sizes_of_packed_tensors(layout: Layout, block: int, nbytes: int) -> None:
    assert layout.packed
    assert (layout.block_bytes, layout.nbytes) == (block, nbytes)


def test_sizes_of_unpacked_tensors() -> None:
    sizes = [Layout(kind, 3, 5).nbytes for kind in ("f32", "f16", "bf16", "u8")]
    assert sizes == [60, 30, 30, 15]
    assert not Layout("f32", 3, 5).packed


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (("q4", 16, 32, 48, False, INT4), "group size 48"),
        (("q4", 16, 32, 0, False, INT4), "group size 0"),
        (("q4", 16, 32, 32, False, INT4[:15]), "codebook"),
        (("q4", 16, 32, 32, False, (*INT4[:15], 128)), "codebook"),
        (("q8", 16, 32, 32, False, INT4), "codebook"),
        (("q8", 16, 32, 32, True, INT4), "codebook"),
        (("q8", 16, 32, 32, False, (), True), "zero points lack"),
        (("f16", 16, 32, 32, False, ()), "neither groups"),
        (("f16", 0, 32), "empty"),
        (("f16", 16, 32, 0, False, (), True), "neither groups"),
        (("q4", 16, 32, 32, False, INT4, True), "zero points lack"),
        (("q4", 16, 32, 32, False, INT4, False, LEVELS[:15], 8), "levels do not go with"),
        (("q4", 16, 32, 32, True, INT4, False, LEVELS, 8), "levels do not go with"),
        (("q8", 16, 32, 32, False, (), False, LEVELS, 8), "levels do not go with"),
        (("q4", 16, 32, 32, False, INT4, False, (2.0, *LEVELS[1:]), 8), "not from -1 to 1"),
        (("q4", 16, 32, 32, False, INT4, False, (float("nan"), *LEVELS[1:]), 8), "not from -1"),
        (("q4", 16, 32, 32, False, INT4, False, LEVELS, 128), "unit 128"),
        (("q4", 16, 32, 32, False, INT4, False, LEVELS, 100), "codebook is not its levels"),
        (("f32", 16, 32, 0, False, (), False, LEVELS), "neither groups nor"),
        (("q4", 16, -1, 32, False, INT4), "empty"),
        (("int3\x1b", 16, 32), "unknown"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: tuple[object, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        Layout(*fields)  # type: ignore[arg-type]
    assert str(caught.value).isprintable()


def test_rows_of_a_layout() -> None:
    layout = Layout("q4", 100, 40, 32, True, UINT4)
    parts = [layout.with_rows(64), layout.with_rows(36)]
    assert sum(part.nbytes for part in parts) == layout.nbytes
    zeros = replace(layout, has_zero=True)
    assert zeros.nbytes == layout.nbytes
    assert zeros.with_rows(16).has_zero


def test_formats_by_bits() -> None:
    assert weight_format(4, 64) == WeightFormat("q4", 64, False, INT4)
    assert weight_format(8).layout(16, 32).nbytes == 544
    assert weight_format(16).layout(2, 3) == Layout("bf16", 2, 3)
    with pytest.raises(ValueError, match="3 bits"):
        weight_format(3)


def test_codebooks_are_sixteen_signed_bytes() -> None:
    for codebook in CODEBOOKS.values():
        assert Layout("q4", 16, 32, 32, False, codebook).codebook == codebook


def test_levels_have_the_codebook_that_rounds_them_best() -> None:
    form = level_format(LEVELS, 64)
    assert (form.type, form.group, form.levels) == ("q4", 64, LEVELS)
    # Eighths: a unit of 8 or its multiples rounds nothing.
    assert form.unit % 8 == 0
    assert form.codebook == tuple(int(form.unit * level) for level in LEVELS)
    nf4 = level_format(tuple(value / 127 for value in NF4), 64)
    assert (nf4.unit, nf4.codebook) == (127, NF4)
