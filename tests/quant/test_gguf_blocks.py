"""Blocks of GGUF: floats bit for bit those of the gguf package, codes those of the blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.errors import DamagedModelError, UsageError
from qwen_edge.quant.gguf_blocks import (
    BLOCK_TYPES,
    BY_NAME,
    UNREAD_TYPES,
    BlockType,
    from_codes,
    to_codes,
    to_floats,
)
from qwen_edge.quant.layout import FP4, INT4, IQ4_NL, UINT4

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
from gguf.quants import dequantize, quantize  # noqa: E402

Bytes = npt.NDArray[np.uint8]
# Where the fp16 and e8m0 scales lie in a block.
SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82),
    "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
    "MXFP4": (),
}  # fmt: skip
HALVES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0x2E66]
BLOCKS = [block for block in BLOCK_TYPES.values() if block.width > 1]
HELD = [block for block in BLOCKS if block.held is not None]


def ids(block: BlockType) -> str:
    return block.name


def random_blocks(block: BlockType, rows: int, blocks: int, seed: int, extreme: bool) -> Bytes:
    """Random bytes [rows, bytes] whose scales are finite: any, or the ends of fp16's range."""
    random = np.random.default_rng(seed)
    data = random.integers(0, 256, (rows * blocks, block.nbytes), np.uint8)
    for place in SCALES[block.name]:
        if extreme:
            halves = random.choice(np.array(HALVES, np.uint16), rows * blocks)
        else:
            halves = random.standard_normal(rows * blocks).astype(np.float16).view(np.uint16)
        data[:, place : place + 2] = halves[:, None].view(np.uint8)
    return data.reshape(rows, -1)


def ggml(block: BlockType, data: Bytes) -> npt.NDArray[np.float32]:
    kind = gguf.GGMLQuantizationType[block.name]
    with np.errstate(over="ignore", invalid="ignore"):
        values: npt.NDArray[np.float32] = dequantize(data, kind)
    return values


def ours(block: BlockType, data: Bytes, threads: int = 2) -> npt.NDArray[np.float32]:
    rows, cols = len(data), data.shape[1] // block.nbytes * block.width
    output = np.full(rows * cols + 2, np.float32(7.5))
    to_floats(block, data.ctypes.data, rows, cols, output.ctypes.data + 4, threads)
    assert output[0] == output[-1] == np.float32(7.5)
    return output[1:-1].reshape(rows, cols)


def take_apart(
    block: BlockType, data: Bytes
) -> tuple[Bytes, npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    rows, cols = len(data), data.shape[1] // block.nbytes * block.width
    codes = np.empty((rows, cols), np.uint8)
    scales = np.empty((rows, cols // 32), np.float16)
    minimums = np.zeros_like(scales)
    to_codes(block, data.ctypes.data, rows, cols, codes.ctypes.data, scales.ctypes.data,
             minimums.ctypes.data, 2)  # fmt: skip
    return codes, scales, minimums


def put_together(
    block: BlockType,
    codes: Bytes,
    scales: npt.NDArray[np.float16],
    minimums: npt.NDArray[np.float16] | None = None,
) -> Bytes:
    rows, cols = codes.shape
    output = np.zeros((rows, cols // block.width * block.nbytes), np.uint8)
    from_codes(block, np.ascontiguousarray(codes).ctypes.data, scales.ctypes.data,
               None if minimums is None else minimums.ctypes.data, rows, cols,
               cols // scales.shape[1], output.ctypes.data, 2)  # fmt: skip
    return output


def test_the_table_has_ggmls_numbers_and_sizes() -> None:
    known = {kind.value: kind.name for kind in gguf.GGMLQuantizationType}
    assert {number: block.name for number, block in BLOCK_TYPES.items()}.items() <= known.items()
    assert known.keys() <= BLOCK_TYPES.keys() | UNREAD_TYPES.keys()
    assert {n: known[n] for n in UNREAD_TYPES if n in known}.items() <= UNREAD_TYPES.items()
    for block in BLOCK_TYPES.values():
        sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[block.name]]
        assert sizes == (block.width, block.nbytes), block.name


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
@pytest.mark.parametrize("extreme", [False, True])
def test_floats_equal_the_packages(block: BlockType, extreme: bool) -> None:
    data = random_blocks(block, 61, 5, 1, extreme)
    found, expected = ours(block, data), ggml(block, data)
    # A finite scale may still overflow in a product; what counts is the same bits.
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x80, 0x7F])
def test_floats_of_uniform_blocks(block: BlockType, byte: int) -> None:
    data = np.full((3, 2 * block.nbytes), byte, np.uint8)
    for i in range(0, data.shape[1], block.nbytes):
        for place in SCALES[block.name]:
            data[:, i + place : i + place + 2] = np.array([0x66, 0x2E], np.uint8)
    assert np.array_equal(ours(block, data).view(np.uint32), ggml(block, data).view(np.uint32))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_dense_types(name: str) -> None:
    block = BY_NAME[name]
    values = np.random.default_rng(2).standard_normal((7, 33)).astype(np.float32)
    stored = quantize(values, gguf.GGMLQuantizationType[name])
    data = np.ascontiguousarray(stored).view(np.uint8).reshape(7, -1)
    expected = dequantize(stored, gguf.GGMLQuantizationType[name]).reshape(7, 33)
    assert np.array_equal(ours(block, data), expected)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_what_the_package_quantized(name: str) -> None:
    values = np.random.default_rng(3).standard_normal((32, 256)).astype(np.float32)
    values[3] = 0
    data = quantize(values, gguf.GGMLQuantizationType[name])
    found = ours(BY_NAME[name], data)
    assert np.array_equal(found, ggml(BY_NAME[name], data))
    assert np.linalg.norm(found - values) < 0.1 * np.linalg.norm(values)


@pytest.mark.parametrize("block", HELD, ids=ids)
def test_codes_are_those_of_the_blocks(block: BlockType) -> None:
    data = random_blocks(block, 21, 4, 4, False)
    if block.name == "MXFP4":
        # Exponents that fp16 holds.
        data.reshape(-1, 17)[:, 0] = data.reshape(-1, 17)[:, 0] % 40 + 104
    codes, scales, minimums = take_apart(block, data)
    assert block.held is not None
    levels = np.array(block.held.codebook, np.float32)[codes] if block.held.codebook else None
    values = codes.view(np.int8).astype(np.float32) if levels is None else levels
    spread = [np.repeat(part.astype(np.float32), 32, 1) for part in (scales, minimums)]
    found, expected = values * spread[0] + spread[1], ggml(block, data)
    if block.width == 32 or block.name == "Q3_K":
        assert np.array_equal(found, expected)
    else:
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert 0 < error < 2**-11  # the scales' rounding to fp16


def test_codebooks_of_the_held_formats() -> None:
    books = {block.name: block.held.codebook for block in HELD if block.held}
    assert books["Q4_0"] == INT4
    assert books["Q4_1"] == books["Q4_K"] == UINT4
    assert books["IQ4_NL"] == books["IQ4_XS"] == IQ4_NL
    assert books["MXFP4"] == FP4
    with_minimums = {block.name for block in HELD if block.held and block.held.has_min}
    assert with_minimums == {"Q4_1", "Q4_K", "Q5_1", "Q5_K"}


def test_products_of_q3_k_that_no_signed_byte_holds() -> None:
    """The scale -32 times the code -4, beside other codes."""
    data = np.zeros((1, 110), np.uint8)  # all scales and codes are the least
    data[0, 108:110] = np.array([0x66, 0x2E], np.uint8)
    codes, scales, _ = take_apart(BY_NAME["Q3_K"], data)
    assert set(codes.view(np.int8).flat) == {-128}
    assert (scales < 0).all()
    data[0, :20] = 0xFF  # the code 0 in places
    codes, scales, _ = take_apart(BY_NAME["Q3_K"], data)
    assert set(codes.view(np.int8).flat) == {-128, 0}
    values = codes.view(np.int8) * np.repeat(scales.astype(np.float32), 32, 1)
    assert np.array_equal(values, ggml(BY_NAME["Q3_K"], data))


@pytest.mark.parametrize("exponent", [0, 1, 50, 103, 144, 200, 255])
def test_scales_of_mxfp4_that_fp16_does_not_hold(exponent: int) -> None:
    data = np.zeros((1, 17), np.uint8)
    data[0, 0] = exponent
    if exponent > 143:
        with pytest.raises(DamagedModelError):
            take_apart(BY_NAME["MXFP4"], data)
        return
    assert take_apart(BY_NAME["MXFP4"], data)[1][0, 0] == np.float16(0)


@pytest.mark.parametrize("half", [0x7C00, 0xFC00, 0x7E00])
@pytest.mark.parametrize("block", [b for b in HELD if b.name != "MXFP4"], ids=ids)
def test_scales_that_are_not_finite_are_refused(block: BlockType, half: int) -> None:
    data = random_blocks(block, 3, 2, 5, False)
    place = block.nbytes + SCALES[block.name][-1]
    data[1, place : place + 2] = np.array([half], np.uint16).view(np.uint8)
    # A factor of 0 makes NaN of infinity: that is not finite, either.
    with pytest.raises(DamagedModelError):
        take_apart(block, data)


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(["Q4_0", "Q4_1", "IQ4_NL", "Q8_0", "MXFP4"]),
    rows=st.integers(1, 40),
    blocks=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_codes_and_back(name: str, rows: int, blocks: int, seed: int) -> None:
    block = BY_NAME[name]
    data = random_blocks(block, rows, blocks, seed, False)
    if name == "MXFP4":
        data.reshape(-1, 17)[:, 0] = data.reshape(-1, 17)[:, 0] % 40 + 104
    codes, scales, minimums = take_apart(block, data)
    assert np.array_equal(put_together(block, codes, scales, minimums), data)


@pytest.mark.parametrize("group", [64, 128])
def test_larger_groups_repeat_their_scales(group: int) -> None:
    random = np.random.default_rng(6)
    codes = random.integers(0, 16, (5, 320)).astype(np.uint8)
    scales = random.standard_normal((5, -(-320 // group))).astype(np.float16)
    output = np.zeros((5, 10 * 18), np.uint8)
    from_codes(BY_NAME["Q4_0"], codes.ctypes.data, scales.ctypes.data, None, 5, 320, group,
               output.ctypes.data)  # fmt: skip
    expected = (codes.astype(np.float32) - 8) * np.repeat(scales, group, 1)[:, :320].astype("f4")
    assert np.array_equal(ggml(BY_NAME["Q4_0"], output), expected)


def test_mxfp4_takes_powers_of_two_of_either_sign_and_zero() -> None:
    block = BY_NAME["MXFP4"]
    powers = [2.0**k for k in range(-24, 16)]
    scales = np.array([[*powers, *(-p for p in powers), 0.0, -0.0]], np.float16)
    codes = np.random.default_rng(7).integers(0, 16, (1, 32 * scales.shape[1])).astype(np.uint8)
    values = np.array(FP4, np.float32)[codes] * np.repeat(scales, 32, 1).astype(np.float32)
    assert np.array_equal(ggml(block, put_together(block, codes, scales)), values)
    for bad in (1.5, np.inf, np.nan, 3 * 2.0**-24):
        with pytest.raises(UsageError, match="power of two"):
            put_together(block, codes[:, :32], np.array([[bad]], np.float16))


def test_wrong_sizes_are_refused() -> None:
    buffer = np.zeros(4096, np.uint8).ctypes.data
    with pytest.raises(UsageError, match="whole blocks"):
        to_floats(BY_NAME["Q4_K"], buffer, 1, 96, buffer)
    with pytest.raises(UsageError, match="whole blocks"):
        to_floats(BY_NAME["Q4_0"], buffer, 0, 32, buffer)
    with pytest.raises(UsageError, match="no such GGUF type"):
        to_codes(BY_NAME["Q6_K"], buffer, 1, 256, buffer, buffer, buffer)
