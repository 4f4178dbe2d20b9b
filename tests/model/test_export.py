"""Exports hold the very weights of the model file, and come back as the same model."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_edge.errors import UsageError
from qwen_edge.model.checkpoint import open_checkpoint
from qwen_edge.model.config import GenerationDefaults, tensor_shapes
from qwen_edge.model.convert import convert
from qwen_edge.model.export_checkpoint import export_checkpoint
from qwen_edge.model.export_gguf import export_gguf
from qwen_edge.model.packed import open_model
from qwen_edge.model.packed_header import TOKENIZER
from qwen_edge.model.packed_writer import Description, PackedWriter
from qwen_edge.model.synthetic import byte_tokenizer_json
from qwen_edge.quant.layout import FP4, INT4, IQ4_NL, NF4, UINT4, Layout, WeightFormat
from qwen_edge.quant.packing import pack_codes
from qwen_edge.session.models import demo_path
from qwen_edge.text.pack_tokenizer import pack_tokenizer
from tests.engine.oracle import dequantize, native_logits, raw_bytes
from tests.model.files import TINY, random_weights, with_header
from tests.model.grouped import Kind, write_quantized

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
from gguf.quants import dequantize as ggml_dequantize  # noqa: E402

from tests.model.gguf_files import ggml_names  # noqa: E402

Arrays = Mapping[str, np.ndarray]


def tokenizer() -> bytes:
    definition = json.loads(byte_tokenizer_json())
    vocab = definition["model"]["vocab"]
    del definition["added_tokens"][3:]
    for token in [t for t in vocab if len(t) > 1]:
        del vocab[token]
    for i, token in enumerate(definition["added_tokens"]):
        vocab[token["content"]] = token["id"] = 256 + i
    definition["model"]["merges"] = [["a", "b"]]
    vocab["ab"] = 259
    return pack_tokenizer(json.dumps(definition).encode())


def write_model(path: Path, form: WeightFormat, powers: bool = False, seed: int = 0) -> Path:
    """A model of random codes; ``powers`` draws scales among the powers of two, and zero."""
    random = np.random.default_rng(seed)
    blob = tokenizer()
    layouts = {
        name: Layout("f32", 1, shape[0]) if len(shape) == 1 else form.layout(shape[0], shape[1])
        for name, shape in tensor_shapes(TINY).items()
    }
    generation = GenerationDefaults(0.7, 30, 0.9, (258, 256))
    description = Description("tiny", TINY, generation, "{{ messages }}", "tests")
    with PackedWriter(path, description, {**layouts, TOKENIZER: Layout("u8", 1, len(blob))}) as w:
        w.write(TOKENIZER, blob)
        for name, layout in layouts.items():
            if not layout.packed:
                size = layout.rows * layout.cols
                values = random.standard_normal(size).astype(np.float32)
                kind = {"f16": np.float16, "f32": np.float32}.get(layout.type, np.float32)
                data = values.astype(kind).tobytes()
                if layout.type == "bf16":
                    data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
                w.write(name, data)
                continue
            codes = random.integers(0, 16 if layout.type == "q4" else 256,
                                    (layout.rows, layout.cols)).astype(np.uint8)  # fmt: skip
            drawn = random.standard_normal((2, layout.rows, layout.groups)) * 0.01
            scales, minimums = drawn.astype(np.float16)
            if powers:
                exponents = random.integers(-14, 5, scales.shape)
                signs = random.choice([-1.0, 0.0, 1.0], scales.shape)
                scales = (signs * np.exp2(exponents)).astype(np.float16)
            packed = bytearray(layout.nbytes)
            target = np.frombuffer(packed, np.uint8)
            pack_codes(layout, codes.ctypes.data, scales.ctypes.data, minimums.ctypes.data,
                       target.ctypes.data)  # fmt: skip
            w.write(name, packed)
        w.finish({"bits": 4})
    return path


def weights(path: Path) -> dict[str, np.ndarray]:
    with open_model(path) as model:
        return {i.name: dequantize(model, i) for i in model.tensors.values() if i.type != "u8"}


def read_gguf(path: Path) -> tuple[dict[str, np.ndarray], set[str], dict[str, Any]]:
    """Weights by Hugging Face's name, the types of the matrices, and the keys."""
    reader = gguf.GGUFReader(path)
    names = {theirs: ours for ours, theirs in ggml_names(TINY).items()}
    found = {}
    for tensor in reader.tensors:
        values = ggml_dequantize(tensor.data, tensor.tensor_type)
        found[names[tensor.name]] = values.reshape(tuple(reversed(tensor.shape.tolist())))
    kinds = {t.tensor_type.name for t in reader.tensors if "norm" not in t.name}
    return found, kinds, {name: field.contents() for name, field in reader.fields.items()}


def same(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name].reshape(values.shape), values), name


@pytest.mark.parametrize(
    ("form", "powers", "kind"),
    [
        (WeightFormat("q4", 32, False, INT4), False, "Q4_0"),
        (WeightFormat("q4", 32, True, UINT4), False, "Q4_1"),
        (WeightFormat("q4", 32, False, IQ4_NL), False, "IQ4_NL"),
        (WeightFormat("q4", 32, False, FP4), True, "MXFP4"),
        (WeightFormat("q4", 32, False, FP4), False, "Q8_0"),
        (WeightFormat("q4", 32, False, NF4), False, "Q8_0"),
        (WeightFormat("q4", 32, False, UINT4), False, "Q8_0"),
        (WeightFormat("q8", 32, False, ()), False, "Q8_0"),
        (WeightFormat("f32", 0, False, ()), False, "F32"),
        (WeightFormat("f16", 0, False, ()), False, "F16"),
        (WeightFormat("bf16", 0, False, ()), False, "BF16"),
    ],
)
def test_formats_that_gguf_holds(
    form: WeightFormat, powers: bool, kind: str, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "a.qedge", form, powers)
    with open_model(path) as model:
        made = export_gguf(model, tmp_path / "a.gguf")
    found, kinds, _ = read_gguf(tmp_path / "a.gguf")
    assert kinds == {kind}
    same(found, weights(path))
    assert made.error.squared_error == 0
    assert made.kept == made.matrices == 15
    assert made.size == (tmp_path / "a.gguf").stat().st_size


@pytest.mark.parametrize("group", [64, 128])
@pytest.mark.parametrize("has_min", [False, True])
def test_larger_groups(group: int, has_min: bool, tmp_path: Path) -> None:
    """Rows of 96 and 160 weights: the last group of 64 or 128 is not whole."""
    form = WeightFormat("q4", group, has_min, UINT4 if has_min else INT4)
    path = write_model(tmp_path / "a.qedge", form)
    with open_model(path) as model:
        export_gguf(model, tmp_path / "a.gguf")
    found, kinds, _ = read_gguf(tmp_path / "a.gguf")
    assert kinds == {"Q4_1" if has_min else "Q4_0"}
    same(found, weights(path))


@pytest.mark.parametrize(
    "form", [WeightFormat("q4", 32, True, NF4), WeightFormat("q8", 64, True, ())]
)
def test_what_gguf_does_not_hold_goes_to_the_nearest(form: WeightFormat, tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.qedge", form)
    with open_model(path) as model:
        made = export_gguf(model, tmp_path / "a.gguf")
    found, kinds, _ = read_gguf(tmp_path / "a.gguf")
    assert kinds == {"Q8_0"}
    assert made.kept == 0
    assert 0 < made.error.relative < 0.01
    name, expected = "model.layers.1.mlp.down_proj.weight", weights(path)
    error = np.linalg.norm(found[name] - expected[name]) / np.linalg.norm(expected[name])
    assert error == pytest.approx(made.error.relative, rel=0.2)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_all_as_floats(kind: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.qedge", WeightFormat("q4", 32, False, INT4))
    with open_model(path) as model:
        export_gguf(model, tmp_path / "a.gguf", floats=kind)
        with pytest.raises(UsageError, match="cannot be written as f8"):
            export_gguf(model, tmp_path / "b.gguf", floats="f8")
    found, kinds, _ = read_gguf(tmp_path / "a.gguf")
    assert kinds == {kind.upper()}
    for name, expected in weights(path).items():
        assert np.allclose(found[name], expected, rtol=2**-8, atol=2**-24), name
        if kind != "bf16" and found[name].ndim > 1:
            precise = np.float16 if kind == "f16" else np.float32
            assert np.array_equal(found[name], expected.astype(precise)), name


def test_keys_and_tokens(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.qedge", WeightFormat("q4", 32, False, INT4))
    with open_model(path) as model:
        export_gguf(model, tmp_path / "a.gguf")
    keys = read_gguf(tmp_path / "a.gguf")[2]
    assert keys["general.architecture"] == "qwen3"
    assert keys["general.file_type"] == 2
    assert keys["qwen3.block_count"] == 2
    assert keys["qwen3.attention.key_length"] == keys["qwen3.attention.value_length"] == 32
    assert keys["qwen3.rope.freq_base"] == 1e6
    assert keys["tokenizer.chat_template"] == "{{ messages }}"
    tokens, kinds = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    assert len(tokens) == len(set(tokens)) == len(kinds) == TINY.vocab_size
    assert tokens[256:] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "ab", "[PAD260]"]
    assert kinds[255:] == [1, 3, 3, 3, 1, 5]
    assert keys["tokenizer.ggml.merges"] == ["a b"]
    assert keys["tokenizer.ggml.eos_token_id"] == 258
    assert keys["tokenizer.ggml.eot_token_id"] == 256
    assert keys["general.sampling.temp"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    "form",
    [
        WeightFormat("q4", 32, False, INT4), WeightFormat("q4", 32, True, UINT4),
        WeightFormat("q4", 32, False, IQ4_NL), WeightFormat("q8", 32, False, ()),
    ],
)  # fmt: skip
def test_gguf_and_back_is_the_same_model(form: WeightFormat, tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.qedge", form)
    with open_model(path) as model:
        export_gguf(model, tmp_path / "a.gguf")
    convert(tmp_path / "a.gguf", tmp_path / "b.qedge")
    with open_model(path) as first, open_model(tmp_path / "b.qedge") as second:
        assert first.config == second.config
        assert first.generation == second.generation
        assert first.chat_template == second.chat_template
        for name, info in first.tensors.items():
            assert info.layout == second.tensors[name].layout
            assert np.array_equal(raw_bytes(first, info), raw_bytes(second, second.tensors[name]))


def test_the_demo_model_comes_back_from_gguf(tmp_path: Path) -> None:
    with open_model(demo_path()) as model:
        made = export_gguf(model, tmp_path / "demo.gguf")
    assert made.error.squared_error == 0
    assert convert(tmp_path / "demo.gguf", tmp_path / "b.qedge").error.squared_error == 0
    with open_model(demo_path()) as first, open_model(tmp_path / "b.qedge") as second:
        assert first.config == second.config
        assert first.generation == second.generation
        assert all(
            np.array_equal(raw_bytes(first, info), raw_bytes(second, second.tensors[name]))
            for name, info in first.tensors.items()
        )


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_checkpoints_hold_the_weights(kind: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = write_model(tmp_path / "a.qedge", WeightFormat("q4", 64, True, UINT4))
    with open_model(path) as model:
        made = export_checkpoint(model, tmp_path / "hf", floats=kind)
    found = {
        n: t.float().numpy() for n, t in load_file(tmp_path / "hf" / "model.safetensors").items()
    }
    expected = weights(path)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if kind == "f32":
            assert np.array_equal(found[name].reshape(values.shape), values), name
        assert np.allclose(found[name].reshape(values.shape), values, rtol=2**-8, atol=2**-24)
    assert (made.error.squared_error == 0) == (kind == "f32")
    assert made.size == sum(f.stat().st_size for f in (tmp_path / "hf").iterdir())
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_transformers_loads_the_demo_model(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from qwen_edge.text.tokenizer import Tokenizer

    with open_model(demo_path()) as model:
        export_checkpoint(model, tmp_path / "hf", floats="f32")
        oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
        theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
        blob = model.tensors[TOKENIZER]
        mine = Tokenizer.from_blob(model.address(TOKENIZER), blob.nbytes, model)
        question = [{"role": "user", "content": "你好! What's  17 + 25?\n\n```x```"}]
        text = theirs.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
        ids = mine.encode(text, allow_special=True)
        assert theirs(text).input_ids == ids
        assert theirs.decode(ids) == text
        assert theirs.eos_token == "<|im_end|>"
        assert list(model.generation.stop_ids) == oracle.generation_config.eos_token_id
        with torch.no_grad():
            expected = oracle(torch.tensor([ids])).logits[0].numpy()
        found = native_logits(model, ids, activations="f32", kv_type="f32")
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    assert np.array_equal(found.argmax(1), expected.argmax(1))


def test_checkpoints_come_back(tmp_path: Path) -> None:
    with open_model(demo_path()) as model:
        export_checkpoint(model, tmp_path / "hf", floats="f32")
    convert(tmp_path / "hf", tmp_path / "b.qedge")
    with open_model(demo_path()) as first, open_model(tmp_path / "b.qedge") as second:
        assert first.config == second.config
        assert first.generation == second.generation
        assert first.chat_template == second.chat_template
        assert all(
            np.array_equal(dequantize(first, info), dequantize(second, second.tensors[name]))
            for name, info in first.tensors.items()
            if info.type != "u8"
        )
        blob = first.tensors[TOKENIZER]
        assert np.array_equal(raw_bytes(first, blob), raw_bytes(second, second.tensors[TOKENIZER]))


def test_folders_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.qedge", WeightFormat("q4", 32, False, INT4))
    target = tmp_path / "hf"
    with open_model(path) as model:
        target.mkdir()
        export_checkpoint(model, target)  # an empty folder is as good as none
        with pytest.raises(UsageError, match="exists already"):
            export_checkpoint(model, target)
        with pytest.raises(UsageError, match="cannot be written as q4"):
            export_checkpoint(model, tmp_path / "x", floats="q4")

        def stop(done: int, total: int, name: str) -> None:
            if name.endswith("layers.1.mlp.up_proj.weight"):
                raise KeyboardInterrupt

        for export in (export_checkpoint, export_gguf):
            with pytest.raises(KeyboardInterrupt):
                export(model, tmp_path / "other", progress=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.qedge", "hf"]


def test_leftovers_of_killed_exports_go(tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.qedge", WeightFormat("q4", 32, False, INT4))
    code = (
        "import os, sys; from pathlib import Path\n"
        "from qwen_edge.model.packed import open_model\n"
        "from qwen_edge.model.export_checkpoint import export_checkpoint\n"
        "stop = lambda done, total, name: os.kill(os.getpid(), 9) if 'layers.1' in name else None\n"
        "export_checkpoint(open_model(Path(sys.argv[1])), Path(sys.argv[2]), progress=stop)\n"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "hf")]
    assert subprocess.run(command, check=False).returncode == -9
    assert len(list(tmp_path.glob(".hf.*.partial"))) == 1
    with open_model(path) as model:
        export_checkpoint(model, tmp_path / "hf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.qedge", "hf"]


def test_damaged_tokenizers_are_refused(tmp_path: Path) -> None:
    from qwen_edge.errors import DamagedModelError

    path = write_model(tmp_path / "a.qedge", WeightFormat("q4", 32, False, INT4))
    with open_model(path) as model:
        place = model.tensors[TOKENIZER].offset
    content = bytearray(path.read_bytes())
    content[place + 8] = 9
    (tmp_path / "b.qedge").write_bytes(content)
    with open_model(with_header(tmp_path / "b.qedge", tmp_path / "c.qedge", lambda h, t: 0)) as m:
        for export in (export_gguf, export_checkpoint):
            with pytest.raises(DamagedModelError, match="tokenizer is damaged"):
                export(m, tmp_path / "out")


@pytest.mark.parametrize("act_order", [False, True])
def test_zero_points_and_column_orders(act_order: bool, tmp_path: Path) -> None:
    kind = Kind(act_order=act_order, symmetric=False)
    truth = write_quantized(tmp_path / "gptq", TINY, random_weights(TINY), kind)
    path = tmp_path / "a.qedge"
    convert(tmp_path / "gptq", path, tokenizer=tokenizer())
    with open_model(path) as model:
        assert any(name.endswith(".order") for name in model.tensors) == act_order
        made = export_gguf(model, tmp_path / "a.gguf")
        export_checkpoint(model, tmp_path / "hf", floats="f32")
    found, kinds, _ = read_gguf(tmp_path / "a.gguf")
    assert kinds == ({"Q8_0"} if act_order else {"Q4_1", "Q8_0"})
    assert 0 < made.error.relative < 0.01
    with open_checkpoint(tmp_path / "hf") as source:
        for name, values in truth.items():
            if not name.endswith("_proj.weight"):
                continue
            rows = source.tensors[name].floats(0, values.shape[0])
            stored = np.ctypeslib.as_array(
                (ctypes.c_float * values.size).from_address(rows.data)
            ).reshape(values.shape)
            assert np.array_equal(stored, values), name
            error = np.linalg.norm(found[name] - values) / np.linalg.norm(values)
            assert error < (0.01 if act_order else 2**-10), name
