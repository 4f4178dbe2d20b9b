"""What a conversion does with matrices that a format of ours holds exactly."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from qwen_edge.model import convert as conversion
from qwen_edge.model.config import GenerationDefaults, tensor_shapes
from qwen_edge.model.conversion import Conversion
from qwen_edge.model.convert import convert, stored_bits
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.model.source import CodeRows, FloatRows, Source, SourceTensor
from qwen_edge.quant.layout import UINT4, WeightFormat
from qwen_edge.quant.packing import unpack_codes
from tests.model.files import BLOB, TINY, Weights, random_weights

WITH_MINIMUM = WeightFormat("q4", 32, True, UINT4)
EIGHT_BITS = WeightFormat("q8", 64, False, ())
Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]


class Held(SourceTensor):
    """Random codes in a format of ours."""

    def __init__(self, name: str, form: WeightFormat) -> None:
        self.name, self.shape, self.form = name, tensor_shapes(TINY)[name], form
        self.nbytes = self.rows * self.cols
        random = np.random.default_rng(len(name))
        groups = form.layout(self.rows, self.cols).groups
        highest = 16 if form.bits == 4 else 256
        self.all_codes: Bytes = random.integers(0, highest, self.shape, np.uint8)
        self.scales: Halves = random.uniform(0.01, 0.02, (self.rows, groups)).astype(np.float16)
        self.minimums: Halves = (self.scales * np.float16(-7.5)).astype(np.float16)
        self.released = 0

    @property
    def held(self) -> WeightFormat:
        return self.form

    def weights(self) -> npt.NDArray[np.float32]:
        codes = self.all_codes if self.form.has_min else self.all_codes.view(np.int8)
        spread = np.repeat(np.arange(self.scales.shape[1]), self.form.group)[: self.cols]
        values = codes.astype(np.float32) * self.scales.astype(np.float32)[:, spread]
        return values + self.minimums[:, spread] if self.form.has_min else values

    def floats(self, begin: int, rows: int) -> FloatRows:
        part = np.ascontiguousarray(self.weights()[begin : begin + rows], np.float32)
        # The pointer of data_as keeps its array alive.
        return FloatRows(part.ctypes.data_as(ctypes.c_void_p), "f32")

    def codes(self, begin: int, rows: int) -> CodeRows:
        span = slice(begin, begin + rows)
        codes, scales, minimums = (
            np.ascontiguousarray(part[span]).ctypes.data_as(ctypes.c_void_p)
            for part in (self.all_codes, self.scales, self.minimums)
        )
        return CodeRows(codes, scales, minimums if self.form.has_min else None)

    def release(self, begin: int, rows: int) -> None:
        assert begin == self.released
        self.released += rows


class Floats(SourceTensor):
    def __init__(self, name: str, values: npt.NDArray[np.float32]) -> None:
        self.name, self.shape, self.nbytes = name, values.shape, values.nbytes
        self.values = values

    def floats(self, begin: int, rows: int) -> FloatRows:
        return FloatRows(self.values.ctypes.data + begin * self.cols * 4, "f32")


@dataclass(frozen=True)
class Mixed(Source):
    """Layer 0 in 4 bits with minimums, layer 1 in 8 bits, the rest floats."""

    def tokenizer_json(self) -> bytes:
        raise AssertionError("the tests bring their own")

    def close(self) -> None:
        return


def mixed_tensors(weights: Weights) -> Mapping[str, SourceTensor]:
    tensors: dict[str, SourceTensor] = {}
    for name, values in weights.items():
        form = WITH_MINIMUM if ".layers.0." in name else EIGHT_BITS
        packed = values.ndim > 1 and ".layers." in name
        tensors[name] = Held(name, form) if packed else Floats(name, values)
    return tensors


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    defaults = GenerationDefaults(0.6, 20, 0.95, ())
    tensors = mixed_tensors(random_weights(TINY))
    mixed = Mixed(tmp_path / "mixed", TINY, defaults, "", tensors)
    monkeypatch.setattr(conversion, "open_source", lambda path: mixed)
    return mixed


def converted(tmp_path: Path, **options: int) -> tuple[Conversion, PackedModel]:
    made = convert(tmp_path / "mixed", tmp_path / "out.qedge", tokenizer=BLOB, **options)  # type: ignore[arg-type]
    return made, open_model(tmp_path / "out.qedge")


def check_kept(model: PackedModel, tensor: Held) -> None:
    info = model.tensors[tensor.name]
    assert info.layout == tensor.form.layout(tensor.rows, tensor.cols)
    codes = np.empty_like(tensor.all_codes)
    scales, minimums = np.empty_like(tensor.scales), np.empty_like(tensor.minimums)
    unpack_codes(
        info.layout,
        model.address(tensor.name),
        codes.ctypes.data,
        scales.ctypes.data,
        minimums.ctypes.data if info.has_min else None,
    )
    assert np.array_equal(codes, tensor.all_codes)
    assert np.array_equal(scales, tensor.scales)
    assert not info.has_min or np.array_equal(minimums, tensor.minimums)
    assert tensor.released == tensor.rows


@pytest.mark.parametrize(
    ("options", "kept_bits", "float_bits"), [({}, (4, 8), 4), ({"bits": 8}, (4, 8), 8)]
)
def test_codes_are_taken_over(
    source: Source,
    tmp_path: Path,
    options: dict[str, int],
    kept_bits: tuple[int, ...],
    float_bits: int,
) -> None:
    made, model = converted(tmp_path, **options)
    with model:
        held = [tensor for tensor in source.tensors.values() if isinstance(tensor, Held)]
        assert (made.kept, made.matrices) == (len(held), len(held) + 1)
        for tensor in held:
            assert tensor.form.bits in kept_bits
            check_kept(model, tensor)
        assert model.tensors["model.embed_tokens.weight"].layout.bits == float_bits
        assert str(model.quantization["method"]).startswith("taken over; ")


def test_fewer_bits_than_the_source_has(source: Source, tmp_path: Path) -> None:
    made, model = converted(tmp_path, bits=4)
    with model:
        for name, tensor in source.tensors.items():
            if isinstance(tensor, Held):
                assert model.tensors[name].layout.bits == 4
                if tensor.form is WITH_MINIMUM:
                    check_kept(model, tensor)
        assert made.kept == 7
        assert ".layers.1." in made.worst_name or "embed" in made.worst_name


def test_scales_that_fp16_rounds_are_measured(source: Source, tmp_path: Path) -> None:
    made, model = converted(tmp_path)
    model.close()
    embedding = made.worst_error
    assert made.worst_name == "model.embed_tokens.weight"
    exact = made.error.count - embedding.count
    assert exact == sum(t.rows * t.cols for t in source.tensors.values() if isinstance(t, Held))
    # What is held comes without an error: the test's floats are made from fp16 scales.
    assert made.error.squared_error == pytest.approx(embedding.squared_error)


def test_the_bits_that_most_weights_will_have(source: Source, tmp_path: Path) -> None:
    assert stored_bits(source.path) == 4
    assert stored_bits(source.path, 8) == 8
    assert stored_bits(source.path, 4) == 4
