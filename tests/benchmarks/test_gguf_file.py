"""The GGUF holds the very weights of the .qedge file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qwen_edge.model.packed import open_model
from qwen_edge.model.synthetic import CONFIGS, byte_tokenizer_json, make_synthetic
from qwen_edge.quant.packing import dequantize

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
from gguf.quants import dequantize as ggml_dequantize  # noqa: E402

from benchmarks.peers.gguf_file import GROUP, ggml_name, write_gguf  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("gguf")
    config = replace(
        CONFIGS["qwen3-0.6b"], hidden_size=64, intermediate_size=96, layers=2, heads=2, kv_heads=1,
        head_dim=32,
    )  # fmt: skip
    model = make_synthetic("qwen3-0.6b", folder / "model.qedge", config=config)
    definition = json.loads(byte_tokenizer_json())
    definition["model"]["merges"] = [["a", "b"]]
    outputs = {}
    with open_model(model) as opened:
        for kind in ("q4_0", "f16"):
            outputs[kind] = folder / f"{kind}.gguf"
            write_gguf(opened, definition, outputs[kind], kind)
        weights = {}
        for name, info in opened.tensors.items():
            if name != "tokenizer":
                weights[ggml_name(name)] = np.empty((info.rows, info.cols), np.float32)
                address = weights[ggml_name(name)].ctypes.data
                dequantize(info.layout, opened.address(name), address)
    return outputs, weights


def test_q4_0_is_exact(files):
    outputs, weights = files
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(outputs["q4_0"]).tensors}
    assert tensors.keys() == weights.keys()
    for name, expected in weights.items():
        found = ggml_dequantize(tensors[name].data, tensors[name].tensor_type)
        assert np.array_equal(found.reshape(expected.shape), expected), name
    head = tensors["token_embd.weight"]
    assert head.tensor_type == gguf.GGMLQuantizationType.Q4_0
    assert head.n_bytes == head.n_elements // GROUP * 18


def test_f16_is_rounded_once(files):
    outputs, weights = files
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(outputs["f16"]).tensors}
    for name, expected in weights.items():
        found = np.asarray(tensors[name].data).reshape(expected.shape)
        assert np.array_equal(found, expected.astype(found.dtype)), name


def test_shape_and_tokens(files):
    outputs, _ = files
    fields = gguf.GGUFReader(outputs["q4_0"]).fields
    assert fields["qwen3.block_count"].contents() == 2
    assert fields["qwen3.attention.key_length"].contents() == 32
    assert fields["qwen3.rope.freq_base"].contents() == 1e6
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == 151936
    assert tokens[fields["tokenizer.ggml.eos_token_id"].contents()] == "<|im_end|>"


def test_other_formats_are_refused(tmp_path):
    from dataclasses import replace

    config = replace(
        CONFIGS["qwen3-0.6b"], hidden_size=64, intermediate_size=64, layers=1, heads=1, kv_heads=1,
        head_dim=64,
    )  # fmt: skip
    path = make_synthetic("qwen3-0.6b", tmp_path / "model.qedge", config=config, group=64)
    definition = json.loads(byte_tokenizer_json())
    with open_model(path) as model, pytest.raises(ValueError, match="symmetric INT4"):
        write_gguf(model, definition, tmp_path / "out.gguf", "q4_0")
