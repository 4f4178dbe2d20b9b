"""Packed tiles against the numpy description of the layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.errors import UsageError
from qwen_edge.quant.layout import (
    CODEBOOKS,
    GROUPS,
    INT4,
    NF4,
    UINT4,
    Layout,
    WeightFormat,
    level_format,
)
from qwen_edge.quant.packing import pack_codes, random_tiles

EXTRAS = st.sampled_from([(False, False), (True, False), (True, True)])
# The codebooks that have names, and any other sixteen signed bytes.
BOOKS = st.one_of(
    st.sampled_from(list(CODEBOOKS.values())),
    st.lists(st.integers(-128, 127), min_size=16, max_size=16).map(tuple),
)
GROUP = st.sampled_from(GROUPS)
LEVELS = st.lists(st.floats(-1, 1, width=32), min_size=16, max_size=16).map(tuple)
FORMATS = st.one_of(
    st.builds(lambda g, extra, book: WeightFormat("q4", g, extra[0], book, extra[1]),
              GROUP, EXTRAS, BOOKS),
    st.builds(lambda g, extra: WeightFormat("q8", g, extra[0], (), extra[1]), GROUP, EXTRAS),
    st.builds(level_format, LEVELS, GROUP),
)  # fmt: skip
LAYOUTS = st.builds(
    WeightFormat.layout,
    FORMATS,
    st.integers(1, 70),
    st.one_of(st.integers(1, 300), st.sampled_from([32, 64, 96, 128, 160, 256])),
)


def random_parts(layout: Layout, seed: int) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    top = 16 if layout.type == "q4" else 256
    codes = random.integers(0, top, (layout.rows, layout.cols)).astype(np.uint8)
    # All finite fp16 values, subnormals included.
    bits = random.integers(0, 0x7C00, (2, layout.rows, layout.groups)).astype(np.uint16)
    bits |= random.integers(0, 2, bits.shape).astype(np.uint16) << 15
    halves = bits.view(np.float16)
    if layout.has_zero:
        low, high = (0, 16) if layout.type == "q4" else (-128, 128)
        halves[1] = random.integers(low, high + 1, halves[1].shape)
    return codes, halves[0], halves[1] if layout.has_min else np.zeros_like(halves[1])


@settings(max_examples=150, deadline=None)
@given(layout=LAYOUTS, seed=st.integers(0, 1000))
def test_packing_agrees_with_the_description(native: Any, layout: Layout, seed: int) -> None:
    packed = native.pack(layout, *random_parts(layout, seed))
    padding = 0
    if layout.type == "q4":
        padding = int(np.argmin(np.abs(np.array(layout.codebook))))
    assert np.array_equal(packed.data, packed.tiles(padding))


@settings(max_examples=150, deadline=None)
@given(layout=LAYOUTS, seed=st.integers(0, 1000))
def test_unpacking_and_dequantizing_are_exact(native: Any, layout: Layout, seed: int) -> None:
    packed = native.pack(layout, *random_parts(layout, seed))
    back = native.unpack(layout, packed.data)
    assert np.array_equal(back.codes, packed.codes)
    assert np.array_equal(back.scales.view(np.uint16), packed.scales.view(np.uint16))
    assert np.array_equal(back.minimums.view(np.uint16), packed.minimums.view(np.uint16))
    values = native.dequantize(layout, packed.data)
    assert np.array_equal(values.view(np.uint32), packed.values().view(np.uint32))


@settings(max_examples=150, deadline=None)
@given(layout=LAYOUTS, seed=st.integers(0, 1000), data=st.data())
def test_whole_tiles_are_packed_alike_alone(
    native: Any, layout: Layout, seed: int, data: st.DataObject
) -> None:
    parts = random_parts(layout, seed)
    whole = native.pack(layout, *parts)
    begin = 16 * data.draw(st.integers(0, layout.tiles - 1))
    end = min(layout.rows, begin + 16 * data.draw(st.integers(1, 4)))
    part = layout.with_rows(end - begin)
    slices = [np.ascontiguousarray(each[begin:end]) for each in parts]
    alone = native.pack(part, *slices)
    tile_bytes = layout.nbytes // layout.tiles
    at = begin // 16 * tile_bytes
    assert np.array_equal(alone.data, whole.data[at : at + part.nbytes])
    values = native.dequantize(layout, whole.data)[begin:end]
    assert np.array_equal(native.dequantize(part, alone.data), values)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_dense_tensors_widen_exactly(native: Any, kind: str) -> None:
    if kind == "f32":
        data = np.random.default_rng(0).standard_normal((5, 77)).astype(np.float32)
        expected = data
    else:
        bits = np.arange(5 * 13107, dtype=np.uint16).reshape(5, 13107)
        data = bits
        expected = (
            bits.view(np.float16).astype(np.float32)
            if kind == "f16"
            else (bits.astype(np.uint32) << 16).view(np.float32)
        )
    layout = Layout(kind, data.shape[0], data.shape[1])
    values = native.dequantize(layout, data.reshape(-1).view(np.uint8))
    assert np.array_equal(values, expected, equal_nan=True)


def test_buffers_of_the_wrong_size_are_refused() -> None:
    layout = Layout("f32", 16, 32)
    with pytest.raises(UsageError, match="dense tensor has no codes"):
        pack_codes(layout, bytes(512), bytes(64), None, bytes(2048))
    with pytest.raises(UsageError, match="does not have the size"):
        pack_codes(Layout("q8", 16, 32, 32), bytes(512), bytes(64), None, None)
    layout = Layout("q4", 16, 32, 32, True, UINT4)
    with pytest.raises(UsageError, match="minimums are missing"):
        pack_codes(layout, bytes(512), bytes(64), None, bytes(320))


@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize(
    ("kind", "has_min", "codebook", "has_zero"),
    [
        ("q4", False, INT4, False),
        ("q4", True, UINT4, False),
        ("q4", True, UINT4, True),
        ("q4", False, NF4, False),
        ("q8", False, (), False),
        ("q8", True, (), False),
        ("q8", True, (), True),
    ],
)
def test_random_weights_have_the_deviation_asked_for(
    native: Any, kind: str, has_min: bool, codebook: tuple[int, ...], has_zero: bool, group: int
) -> None:
    layout = Layout(kind, 515, 512, group, has_min, codebook, has_zero)
    data = np.zeros(layout.nbytes, np.uint8)
    random_tiles(layout, 3, 0, 0.02, data.ctypes.data)
    values = native.dequantize(layout, data)
    assert abs(values.std() / 0.02 - 1) < 0.05
    assert abs(values.mean()) < 0.001
    assert np.abs(values).max() < 0.12
    # Rows of padding have scale 0: the last tile's lanes 3 to 15.
    last = data.reshape(layout.tiles, layout.groups, -1)[-1]
    scales = last[:, -32 * (1 + has_min) :][:, :32].copy().view(np.float16)
    assert not scales[:, 3:].any()
    assert scales[:, :3].all()


def test_random_weights_depend_on_seed_and_tile_alone() -> None:
    layout = Layout("q4", 64, 96, 32, False, INT4)

    def draw(layout: Layout, seed: int, first: int, threads: int) -> bytes:
        data = np.zeros(layout.nbytes, np.uint8)
        random_tiles(layout, seed, first, 0.02, data.ctypes.data, threads)
        return data.tobytes()

    whole = draw(layout, 5, 10, 1)
    assert whole == draw(layout, 5, 10, 3)
    half = layout.with_rows(32)
    assert whole == draw(half, 5, 10, 1) + draw(half, 5, 12, 1)
    assert draw(half, 5, 10, 1) != draw(half, 5, 12, 1)
    assert whole != draw(layout, 6, 10, 1)
