"""GPTQ and AWQ checkpoints: the weights they stand for, bit for bit, and every malformed one."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.awq import quantized_tensors as awq_tensors
from qwen_edge.model.checkpoint import open_checkpoint
from qwen_edge.model.convert import convert
from qwen_edge.model.gptq import quantized_tensors as gptq_tensors
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.model.safetensors_reader import SafetensorsReader
from qwen_edge.model.source import SourceTensor, UnsupportedError, UnusableError
from qwen_edge.quant.layout import INT4, UINT4, WeightFormat
from qwen_edge.quant.packing import dequantize, pack_codes
from tests.model.files import BLOB, TINY, random_weights, read_header
from tests.model.grouped import (
    Floats,
    Grouped,
    Kind,
    packed,
    random_grouped,
    write_quantized,
)

NAME = "model.layers.0.mlp.down_proj.weight"
PREFIX = NAME.removesuffix(".weight")
KINDS = st.builds(
    Kind,
    method=st.just("gptq"),
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([32, 64, 96, 128, 256, -1]),
    symmetric=st.booleans(),
    act_order=st.booleans(),
    version=st.sampled_from(["gptq", "gptq_v2"]),
) | st.builds(
    Kind,
    method=st.just("awq"),
    group=st.sampled_from([32, 64, 128, -1]),
    symmetric=st.booleans(),
)


def read_rows(tensor: SourceTensor, step: int) -> Floats:
    """All floats, some rows at a time."""
    parts = []
    for begin in range(0, tensor.rows, step):
        rows = min(step, tensor.rows - begin)
        found = tensor.floats(begin, rows)
        assert found.type == "f32"
        parts.append(np.ctypeslib.as_array(found.data).reshape(rows, tensor.cols).copy())
        tensor.release(begin, rows)
    return np.concatenate(parts)


def held_values(tensor: SourceTensor, step: int) -> Floats:
    """All codes, some rows at a time, packed and turned back into floats."""
    assert tensor.held is not None
    parts = []
    for begin in range(0, tensor.rows, step):
        layout = tensor.held.layout(min(step, tensor.rows - begin), tensor.cols)
        found = tensor.codes(begin, layout.rows)
        data = (ctypes.c_ubyte * layout.nbytes)()
        pack_codes(layout, found.codes, found.scales, found.minimums, data)
        values = np.empty((layout.rows, layout.cols), np.float32)
        dequantize(layout, data, values.ctypes.data)
        parts.append(values)
        tensor.release(begin, layout.rows)
    return np.concatenate(parts)


def order_of(tensor: SourceTensor) -> Any:
    return slice(None) if tensor.order is None else np.frombuffer(tensor.order, "<i4")


def one_matrix(directory: Path, matrix: Grouped, kind: Kind) -> tuple[SafetensorsReader, Any]:
    """A checkpoint of a single matrix."""
    save_file(packed(PREFIX, matrix, kind), directory / "model.safetensors")
    reader = SafetensorsReader(directory)
    read = awq_tensors if kind.method == "awq" else gptq_tensors
    found = read(kind.settings(), {NAME: matrix.codes.shape}, reader.tensors)
    return reader, found[NAME]


@settings(max_examples=80, deadline=None)
@given(
    kind=KINDS, rows=st.integers(1, 9), cols=st.integers(1, 40), seed=st.integers(0, 1000),
    step=st.sampled_from([16, 32, 80]),
)  # fmt: skip
def test_every_shape_is_read_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, kind: Kind, rows: int, cols: int, seed: int, step: int
) -> None:
    matrix = random_grouped(kind, 8 * rows, 8 * cols, seed)
    expected = matrix.values()
    reader, tensor = one_matrix(tmp_path_factory.mktemp("one"), matrix, kind)
    with reader:
        assert tensor.nbytes == sum(part.nbytes for part in reader.tensors.values())
        order = order_of(tensor)
        values = read_rows(tensor, step)
        assert np.array_equal(values.view(np.uint32), expected[:, order].view(np.uint32))
        assert np.array_equal(held_values(tensor, step), expected[:, order])


@pytest.mark.parametrize(
    ("kind", "held"),
    [
        (Kind(group=32), WeightFormat("q4", 32, True, UINT4, True)),
        (Kind(group=128, symmetric=True), WeightFormat("q4", 128, False, INT4)),
        (Kind(group=-1, act_order=True), WeightFormat("q4", 128, True, UINT4, True)),
        (Kind(group=64, act_order=True), WeightFormat("q4", 64, True, UINT4, True)),
        (Kind(group=96, act_order=True), WeightFormat("q4", 32, True, UINT4, True)),
        (Kind(group=256), WeightFormat("q4", 128, True, UINT4, True)),
        (Kind(group=16), None),
        (Kind(group=40, act_order=True), None),
        (Kind(bits=8, group=128, symmetric=True), WeightFormat("q8", 128, False, ())),
        (Kind(bits=8, group=32), WeightFormat("q8", 32, True, (), True)),
        (Kind(bits=8, group=-1), WeightFormat("q8", 128, True, (), True)),
        (Kind(bits=8, group=1024, act_order=True), WeightFormat("q8", 128, True, (), True)),
        (
            Kind(bits=8, group=96, act_order=True, version="gptq_v2"),
            WeightFormat("q8", 32, True, (), True),
        ),
        (Kind(bits=8, group=16), None),
        (Kind("awq", group=128), WeightFormat("q4", 128, True, UINT4, True)),
        (Kind("awq", group=64, symmetric=True), WeightFormat("q4", 64, False, INT4)),
        (Kind("awq", group=192), WeightFormat("q4", 64, True, UINT4, True)),
        (Kind("awq", group=256), WeightFormat("q4", 128, True, UINT4, True)),
        (Kind("awq", group=-1), WeightFormat("q4", 128, True, UINT4, True)),
    ],
)
def test_what_holds_them(tmp_path: Path, kind: Kind, held: WeightFormat | None) -> None:
    matrix = random_grouped(kind, 48, 384, 7)
    reader, tensor = one_matrix(tmp_path, matrix, kind)
    with reader:
        assert tensor.held == held
        assert tensor.nearest == (held or WeightFormat("q8", 32, False, ()))
        # Columns that are not held in the order of their groups stay in their own.
        moved = kind.act_order and 0 < kind.group < 384 and held is not None
        assert (tensor.order is not None) == moved
        assert np.array_equal(read_rows(tensor, 16), matrix.values()[:, order_of(tensor)])


def test_scales_of_other_types(tmp_path: Path) -> None:
    kind = Kind()
    matrix = random_grouped(kind, 16, 64, 0)
    tensors = packed(PREFIX, matrix, kind)
    tensors[f"{PREFIX}.scales"] = tensors[f"{PREFIX}.scales"].astype(np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    with SafetensorsReader(tmp_path) as reader:
        tensor = gptq_tensors(kind.settings(), {NAME: (16, 64)}, reader.tensors)[NAME]
        assert np.array_equal(read_rows(tensor, 16), matrix.values())
        assert np.array_equal(held_values(tensor, 16), matrix.values())


def stored_values(model: PackedModel, name: str) -> Floats:
    info = model.tensors[name]
    values = np.empty((info.rows, info.cols), np.float32)
    dequantize(info.layout, model.address(name), values.ctypes.data)
    return values


def stored_order(model: PackedModel, name: str) -> Any:
    if name not in model.tensors:
        return slice(None)
    data = ctypes.string_at(model.address(name), model.tensors[name].nbytes)
    return np.frombuffer(data, "<i4")


ORDERS = {
    "self_attn.q_proj": "self_attn.qkv", "self_attn.k_proj": "self_attn.qkv",
    "self_attn.v_proj": "self_attn.qkv", "self_attn.o_proj": "self_attn.o",
    "mlp.gate_proj": "mlp.gate_up", "mlp.up_proj": "mlp.gate_up", "mlp.down_proj": "mlp.down",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        (Kind(), 2),
        (Kind(act_order=True), 2),
        (Kind(act_order=True, symmetric=True, version="gptq_v2"), 2),
        (Kind(symmetric=True), 1),
        (Kind(bits=8, symmetric=True, act_order=True), 2),
        (Kind(bits=8), 3),
        (Kind(bits=8, act_order=True, version="gptq_v2"), 3),
        (Kind("awq"), 2),
        (Kind("awq", group=-1), 2),
    ],
)
def test_a_converted_checkpoint_holds_the_same_weights(
    tmp_path: Path, kind: Kind, version: int
) -> None:
    meant = write_quantized(tmp_path / "hf", TINY, random_weights(TINY), kind)
    made = convert(tmp_path / "hf", tmp_path / "m.qedge", tokenizer=BLOB)
    assert made.kept == 14
    assert made.matrices == 15
    assert made.worst_name == "model.embed_tokens.weight"
    table = json.loads(read_header(tmp_path / "m.qedge")[0]["__metadata__"]["qedge"])
    assert table["format_version"] == version
    with open_model(tmp_path / "m.qedge") as model:
        assert model.tensors["model.embed_tokens.weight"].type == "q8"
        for name, values in meant.items():
            if not name.endswith("_proj.weight"):
                continue
            layer, part = name.removesuffix(".weight").split(".", 3)[2:]
            order = stored_order(model, f"model.layers.{layer}.{ORDERS[part]}.order")
            assert isinstance(order, np.ndarray) == kind.act_order
            assert np.array_equal(stored_values(model, name), values[:, order]), name


def test_bits_asked_for_and_columns_in_order(tmp_path: Path) -> None:
    kind = Kind(bits=8, symmetric=True, act_order=True)
    meant = write_quantized(tmp_path / "hf", TINY, random_weights(TINY), kind)
    made = convert(tmp_path / "hf", tmp_path / "m.qedge", tokenizer=BLOB, bits=4)
    assert made.kept == 0
    with open_model(tmp_path / "m.qedge") as model:
        order = stored_order(model, "model.layers.1.mlp.down.order")
        name = "model.layers.1.mlp.down_proj.weight"
        assert model.tensors[name].type == "q4"
        values, expected = stored_values(model, name), meant[name][:, order]
        assert np.linalg.norm(values - expected) < 0.1 * np.linalg.norm(expected)


def test_matrices_that_do_not_share_an_order(tmp_path: Path) -> None:
    """Query, key and value are multiplied by the same activations: one order, or none."""
    kind = Kind(act_order=True)
    weights = random_weights(TINY)
    key = "model.layers.0.self_attn.k_proj"
    other = random_grouped(kind, 32, 96, 99)
    other.scales[:] = 0.01
    meant = write_quantized(tmp_path / "hf", TINY, weights, kind, extra=packed(key, other, kind))
    meant[f"{key}.weight"] = other.values()
    made = convert(tmp_path / "hf", tmp_path / "m.qedge", tokenizer=BLOB)
    assert made.kept == 11
    with open_model(tmp_path / "m.qedge") as model:
        assert "model.layers.0.self_attn.qkv.order" not in model.tensors
        assert "model.layers.1.self_attn.qkv.order" in model.tensors
        for part in "qkv":
            name = f"model.layers.0.self_attn.{part}_proj.weight"
            assert model.tensors[name].type == "q8"
            off = np.linalg.norm(stored_values(model, name) - meant[name])
            assert 0 < off < 0.006 * np.linalg.norm(meant[name])


def test_older_repositories_and_biases_of_zero(tmp_path: Path) -> None:
    kind = Kind(version="gptq")
    bias = {f"{PREFIX}.bias": np.zeros(96, np.float16)}
    meant = write_quantized(
        tmp_path, TINY, random_weights(TINY), kind, extra=bias, quantization_config=None
    )
    plain = {"bits": 4, "group_size": 32, "desc_act": False, "sym": False}
    (tmp_path / "quantize_config.json").write_text(json.dumps(plain))
    with open_checkpoint(tmp_path) as checkpoint:
        assert np.array_equal(read_rows(checkpoint.tensors[NAME], 96), meant[NAME])
    write_quantized(tmp_path / "awq", TINY, random_weights(TINY), Kind("awq"),
                    quantization_config=None)  # fmt: skip
    plain = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
    (tmp_path / "awq" / "quant_config.json").write_text(json.dumps(plain))
    with open_checkpoint(tmp_path / "awq") as checkpoint:
        assert checkpoint.tensors[NAME].held is not None


def test_a_matrix_quantized_otherwise(tmp_path: Path) -> None:
    """GPTQModel's `dynamic` gives single matrices other bits and groups."""
    kind, special = Kind(group=32), Kind(bits=8, group=64, symmetric=True)
    other = random_grouped(special, 96, 160, 3)
    other.scales[:] = 0.001
    table = kind.settings() | {"dynamic": {"+:.*down_proj": {"bits": 8, "group_size": 64}}}
    write_quantized(
        tmp_path, TINY, random_weights(TINY), kind, extra=packed(PREFIX, other, special),
        quantization_config=table,
    )  # fmt: skip
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tensors[NAME].held == WeightFormat("q8", 64, False, ())
        assert np.array_equal(read_rows(checkpoint.tensors[NAME], 96), other.values())
        up = checkpoint.tensors[NAME.replace("down", "up")]
        assert up.held == WeightFormat("q4", 32, True, UINT4, True)


def test_groups_that_no_size_explains(tmp_path: Path) -> None:
    table = Kind().settings() | {"dynamic": {"-:.*up_proj": {}}}
    extra = {
        f"{PREFIX}.g_idx": None,
        f"{PREFIX}.scales": array(3, 96, kind=np.float16),
        f"{PREFIX}.qzeros": array(3, 12),
    }
    write_quantized(
        tmp_path, TINY, random_weights(TINY), Kind(), extra=extra, quantization_config=table
    )
    with pytest.raises(DamagedModelError, match=r"scales is \(3, 96\) for 160 columns"):
        open_checkpoint(tmp_path)


def array(*shape: int, kind: Any = np.int32, fill: float = 0) -> Any:
    return np.full(shape, fill, kind)


@pytest.mark.parametrize(
    ("part", "value", "problem"),
    [
        ("qweight", None, "'model.layers.0.mlp.down_proj.g_idx' does not belong to a dense"),
        ("qzeros", None, "has no tensor model.layers.0.mlp.down_proj.qzeros"),
        ("scales", None, "has no tensor model.layers.0.mlp.down_proj.scales"),
        ("g_idx", None, "has no tensor model.layers.0.mlp.down_proj.g_idx"),
        ("qweight", array(20, 95), "down_proj.qweight is (20, 95), not (20, 96)"),
        ("qweight", array(40, 96), "down_proj.qweight is (40, 96), not (20, 96)"),
        ("qweight", array(20 * 96), "down_proj.qweight is (1920,), not (20, 96)"),
        ("qweight", array(0, 96), "down_proj.qweight is (0, 96), not (20, 96)"),
        ("qweight", array(20, 96, kind=np.float32), "qweight is F32, not I32"),
        ("qzeros", array(4, 12), "qzeros is (4, 12), not (5, 12)"),
        ("qzeros", array(5, 96), "qzeros is (5, 96), not (5, 12)"),
        ("scales", array(5, 95, kind=np.float16), "scales is (5, 95), not (5, 96)"),
        ("scales", array(5, 96), "scales is I32, not F32"),
        ("g_idx", array(161), "g_idx is (161,), not (160,)"),
        ("g_idx", array(160, fill=5), "column 0 is of group 5 of 5"),
        ("g_idx", array(160, fill=-1), "column 0 is of group -1 of 5"),
        ("bias", array(96, kind=np.float16, fill=0.5), "bias, which Qwen3 does not have"),
        ("bias", array(95, kind=np.float16), "bias is (95,), not (96,)"),
        ("bias", array(96), "bias is I32, not F32"),
        ("weight", array(96, 160, kind=np.float16), "is there both quantized and not"),
        ("other", array(96), "'model.layers.0.mlp.down_proj.other' does not belong to a dense"),
    ],
)
def test_tensors_that_make_no_matrix(tmp_path: Path, part: str, value: Any, problem: str) -> None:
    kind = Kind(act_order=True)
    extra = {f"{PREFIX}.{part}": value}
    write_quantized(tmp_path, TINY, random_weights(TINY), kind, extra=extra)
    with pytest.raises(DamagedModelError) as caught:
        open_checkpoint(tmp_path)
    assert problem in str(caught.value)


@pytest.mark.parametrize("value", [np.inf, np.nan, -np.inf])
def test_scales_that_are_not_finite(tmp_path: Path, value: float) -> None:
    scales = {f"{PREFIX}.scales": array(5, 96, kind=np.float16, fill=value)}
    write_quantized(tmp_path / "hf", TINY, random_weights(TINY), Kind(), extra=scales)
    with pytest.raises(DamagedModelError, match="scale of row 0, group 0 is not a number"):
        convert(tmp_path / "hf", tmp_path / "m.qedge", tokenizer=BLOB)
    assert not (tmp_path / "m.qedge").exists()


def test_what_awq_does_not_know(tmp_path: Path) -> None:
    extra = {f"{PREFIX}.g_idx": array(160)}
    write_quantized(tmp_path, TINY, random_weights(TINY), Kind("awq"), extra=extra)
    with pytest.raises(DamagedModelError, match="which AWQ does not know"):
        open_checkpoint(tmp_path)


GPTQ, AWQ = Kind().settings(), Kind("awq").settings()


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (GPTQ | {"bits": 3}, "uses GPTQ weights of 3 bits, which is not supported"),
        (GPTQ | {"bits": "4"}, "its quantization's bits is '4', not a number"),
        (GPTQ | {"bits": True}, "its quantization's bits is True, not a number"),
        (GPTQ | {"bits": None}, "its quantization's bits is None, not a number"),
        (GPTQ | {"bits": 8}, "q_proj.qweight is (12, 96), not (24, 96)"),
        (GPTQ | {"group_size": 0}, "its quantization's group_size is 0"),
        (GPTQ | {"group_size": -2}, "its quantization's group_size is -2"),
        (GPTQ | {"group_size": 2**40}, "its quantization's group_size is"),
        (GPTQ | {"group_size": [32]}, "its quantization's group_size is [32], not a number"),
        (GPTQ | {"group_size": 64}, "(3, 12), not (2, 12)"),
        (GPTQ | {"checkpoint_format": "marlin"}, "uses the GPTQ format 'marlin'"),
        (GPTQ | {"checkpoint_format": ["gptq"]}, "uses the GPTQ format ['gptq']"),
        (GPTQ | {"is_marlin_format": True}, "uses the GPTQ format"),
        (GPTQ | {"pack_dtype": "int16"}, "uses GPTQ weights packed into 'int16'"),
        (GPTQ | {"quant_method": "aqlm"}, "quantized by the unsupported method 'aqlm'"),
        (GPTQ | {"quant_method": None}, "quantized by the unsupported method None"),
        (AWQ | {"version": "gemv"}, "uses the AWQ layout 'gemv', which is not supported"),
        (AWQ | {"version": "gemv_fast"}, "uses the AWQ layout 'gemv_fast'"),
        (AWQ | {"version": 4}, "uses the AWQ layout 4"),
        (AWQ | {"bits": 8}, "uses AWQ weights of 8 bits, which is not supported"),
        (AWQ | {"group_size": None}, "(3, 12), not (1, 12)"),
    ],
)
def test_settings_that_are_not_read(tmp_path: Path, table: dict[str, Any], problem: str) -> None:
    kind = Kind("awq" if table["quant_method"] == "awq" else "gptq")
    write_quantized(tmp_path, TINY, random_weights(TINY), kind, quantization_config=table)
    with pytest.raises(DamagedModelError) as caught:
        open_checkpoint(tmp_path)
    assert problem in str(caught.value)
    assert caught.value.hint


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(
    kind=KINDS,
    table=st.dictionaries(
        st.sampled_from(sorted((GPTQ | AWQ).keys() | {"dynamic", "format", "is_marlin_format"})),
        ANYTHING,
        min_size=1,
    ),
)
def test_any_settings_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: Kind, table: dict[str, Any]
) -> None:
    matrix = random_grouped(kind, 16, 256, 0)
    folder = tmp_path_factory.mktemp("any")
    save_file(packed(PREFIX, matrix, kind), folder / "model.safetensors")
    read = awq_tensors if kind.method == "awq" else gptq_tensors
    problem = ""
    with SafetensorsReader(folder) as reader:
        try:
            found = read(kind.settings() | table, {NAME: (16, 256)}, reader.tensors)[NAME]
            read_rows(found, 16)
        except (UnusableError, UnsupportedError) as error:
            problem = str(error)
    assert problem.isprintable()
    assert len(problem) < 300


@pytest.mark.parametrize("kind", [Kind("awq"), Kind(act_order=True)])
def test_calibration_has_nothing_to_do(tmp_path: Path, kind: Kind) -> None:
    """All but the embedding is taken over, and that goes to 8 bits."""
    write_quantized(tmp_path / "hf", TINY, random_weights(TINY), kind)
    for method in ("nearest", "aware"):
        convert(tmp_path / "hf", tmp_path / f"{method}.qedge", tokenizer=BLOB, method=method)
    assert (tmp_path / "aware.qedge").read_bytes() == (tmp_path / "nearest.qedge").read_bytes()


def test_a_quantized_head(tmp_path: Path) -> None:
    untied = replace(TINY, tied=False, vocab_size=264)
    kind = Kind()
    head = random_grouped(kind, 264, 96, 5)
    head.scales[:] = 0.01
    extra = packed("lm_head", head, kind) | {"lm_head.weight": None}
    write_quantized(tmp_path / "a", untied, random_weights(untied), kind, extra=extra)
    with open_checkpoint(tmp_path / "a") as checkpoint:
        tensor = checkpoint.tensors["lm_head.weight"]
        assert tensor.held == WeightFormat("q4", 32, True, UINT4, True)
        assert np.array_equal(read_rows(tensor, 64), head.values())
    # A head has no order of its own, and a tied one is the embedding.
    kind = Kind(act_order=True)
    head = random_grouped(kind, 264, 96, 5)
    extra = packed("lm_head", head, kind) | {"lm_head.weight": None}
    write_quantized(tmp_path / "b", untied, random_weights(untied), kind, extra=extra)
    with open_checkpoint(tmp_path / "b") as checkpoint:
        tensor = checkpoint.tensors["lm_head.weight"]
        assert (tensor.held, tensor.order) == (None, None)
        assert np.array_equal(read_rows(tensor, 64), head.values())
    tied = replace(untied, tied=True)
    write_quantized(
        tmp_path / "c", tied, random_weights(tied), kind, extra=packed("lm_head", head, kind)
    )
    with pytest.raises(DamagedModelError, match=r"'lm_head\.\w+' does not belong"):
        open_checkpoint(tmp_path / "c")
