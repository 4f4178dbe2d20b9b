"""GGUF files of the gguf package become model files with the very same weights and tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_edge.errors import DamagedModelError, ModelNotFoundError
from qwen_edge.model.chatml import CHATML
from qwen_edge.model.conversion import Conversion
from qwen_edge.model.convert import convert
from qwen_edge.model.gguf import open_gguf
from qwen_edge.model.packed import open_model
from qwen_edge.model.synthetic import byte_tokenizer_json
from qwen_edge.text.pack_tokenizer import pack_tokenizer
from tests.engine.oracle import dequantize

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
from tests.model.gguf_files import CONFIG, FIRST_ADDED, Floats, write_gguf  # noqa: E402

EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4")
EMBEDDING = "model.embed_tokens.weight"


def converted(source: Path, **settings: Any) -> tuple[Conversion, dict[str, Floats], set[str]]:
    """What a conversion said, the weights it made, and the types they have."""
    output = source.with_suffix(".qedge")
    made = convert(source, output, **settings)
    with open_model(output) as model:
        infos = [info for info in model.tensors.values() if info.type != "u8"]
        weights = {info.name: dequantize(model, info) for info in infos}
        return made, weights, {f"{i.type} {i.group} {i.has_min}" for i in infos if i.rows > 1}


@pytest.mark.parametrize("kind", EXACT)
def test_types_that_are_held_exactly(kind: str, tmp_path: Path) -> None:
    truth = write_gguf(tmp_path / "model.gguf", kind)
    made, weights, forms = converted(tmp_path / "model.gguf")
    for name, values in truth.items():
        assert np.array_equal(weights[name], values.reshape(weights[name].shape)), name
    assert made.error.squared_error == 0
    assert made.kept == made.matrices
    expected = {
        "Q4_1": "q4 32 True", "Q5_0": "q8 32 False", "Q5_1": "q8 32 True", "Q8_0": "q8 32 False",
    }  # fmt: skip
    assert forms == {expected.get(kind, "q4 32 False")}


@pytest.mark.parametrize(
    ("kind", "form", "most"),
    [
        ("Q4_K", "q4 32 True", 2**-11), ("IQ4_XS", "q4 32 False", 2**-11),
        ("Q5_K", "q8 32 True", 2**-11),
        ("Q6_K", "q8 32 False", 0.01), ("Q2_K", "q4 32 False", 0.15),
        ("Q3_K", "q4 32 False", 0.15),
    ],
)  # fmt: skip
def test_types_that_go_to_the_nearest(kind: str, form: str, most: float, tmp_path: Path) -> None:
    truth = write_gguf(tmp_path / "model.gguf", kind)
    made, weights, forms = converted(tmp_path / "model.gguf")
    assert forms == {form}
    matrices = [name for name, values in truth.items() if values.ndim > 1]
    error = sum(float(np.square(weights[n] - truth[n], dtype=np.float64).sum()) for n in matrices)
    size = sum(float(np.square(truth[n], dtype=np.float64).sum()) for n in matrices)
    assert made.error.relative == pytest.approx(np.sqrt(error / size), rel=1e-6)
    assert 0 < made.error.relative < most
    assert made.kept == (len(matrices) if kind in ("Q4_K", "Q5_K", "IQ4_XS") else 0)


def test_three_bits_are_exact_in_eight(tmp_path: Path) -> None:
    truth = write_gguf(tmp_path / "model.gguf", "Q3_K")
    made, weights, forms = converted(tmp_path / "model.gguf", bits=8)
    assert forms == {"q8 32 False"}
    assert made.kept == made.matrices
    assert made.error.squared_error == 0
    for name, values in truth.items():
        assert np.array_equal(weights[name], values.reshape(weights[name].shape)), name


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_floats_take_the_bits_that_are_asked_for(kind: str, tmp_path: Path) -> None:
    truth = write_gguf(tmp_path / "model.gguf", kind)
    assert converted(tmp_path / "model.gguf")[2] == {"q4 32 False"}
    assert converted(tmp_path / "model.gguf", bits=8, group=64)[2] == {"q8 64 False"}
    weights = converted(tmp_path / "model.gguf", bits=16)[1]
    assert np.array_equal(weights[EMBEDDING], truth[EMBEDDING])


def test_mixed_files(tmp_path: Path) -> None:
    kinds = dict.fromkeys(
        (name for name in write_gguf(tmp_path / "x.gguf") if "layers.0" in name), "Q4_0"
    )
    truth = write_gguf(tmp_path / "model.gguf", kinds)
    made, weights, forms = converted(tmp_path / "model.gguf")
    assert forms == {"q4 32 False", "q8 32 False"}  # what is left as F16 was worth more bits
    assert made.kept == 7
    assert np.abs(weights[EMBEDDING] - truth[EMBEDDING]).max() < 0.001
    assert converted(tmp_path / "model.gguf", bits=4)[2] == {"q4 32 False"}


def test_shape_template_and_stops(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    with open_gguf(tmp_path / "a.gguf") as source:
        assert source.config == CONFIG
        assert source.chat_template == "{{ messages }}"
        generation = source.generation
    assert (generation.temperature, generation.top_k, generation.top_p) == (0.6, 20, 0.95)
    # <|im_end|> by its key, <|endoftext|> because llama.cpp ends there, too.
    assert generation.stop_ids == (FIRST_ADDED + 2, FIRST_ADDED)

    def change(writer: Any) -> None:
        writer.add_sampling_temp(0.75)
        writer.add_sampling_top_k(-1)
        writer.add_sampling_top_p(0.9)
        writer.kv_data[0].pop("tokenizer.chat_template")
        writer.add_chat_template([{"name": "default", "template": "D"},
                                  {"name": "tools", "template": "T"}])  # fmt: skip

    write_gguf(tmp_path / "b.gguf", change=change)
    with open_gguf(tmp_path / "b.gguf") as source:
        assert source.chat_template == "D"
        generation = source.generation
    assert (generation.temperature, generation.top_k, generation.top_p) == (0.75, 0, 0.9)
    write_gguf(tmp_path / "c.gguf", change=lambda w: w.kv_data[0].pop("tokenizer.chat_template"))
    with open_gguf(tmp_path / "c.gguf") as source:
        assert source.chat_template == CHATML


def test_tokenizer_is_that_of_the_json(tmp_path: Path) -> None:
    definition = json.loads(byte_tokenizer_json())
    vocab = definition["model"]["vocab"]
    for i, token in enumerate(definition["added_tokens"]):
        vocab[token["content"]] = token["id"] = FIRST_ADDED + i
    vocab["ab"] = FIRST_ADDED + len(definition["added_tokens"])
    definition["model"]["merges"] = [["a", "b"]]
    write_gguf(tmp_path / "model.gguf")
    with open_gguf(tmp_path / "model.gguf") as source:
        packed = pack_tokenizer(source.tokenizer_json())
    assert packed == pack_tokenizer(json.dumps(definition).encode())


def test_a_head_of_its_own(tmp_path: Path) -> None:
    from dataclasses import replace

    truth = write_gguf(tmp_path / "model.gguf", config=replace(CONFIG, tied=False))
    weights = converted(tmp_path / "model.gguf")[1]
    assert np.array_equal(weights["lm_head.weight"], truth["lm_head.weight"])


def test_split_files(tmp_path: Path) -> None:
    truth = write_gguf(tmp_path / "model.gguf", split_max_tensors=10)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) == 3
    assert parts[0].name == "model-00001-of-00003.gguf"
    weights = converted(parts[0])[1]
    for name, values in truth.items():
        assert np.array_equal(weights[name], values.reshape(weights[name].shape)), name
    with pytest.raises(DamagedModelError, match="part of a split file"):
        open_gguf(parts[1])
    renamed = parts[0].rename(tmp_path / "first.gguf")
    with pytest.raises(DamagedModelError, match="not the first by its name"):
        open_gguf(renamed)
    renamed.rename(parts[0])
    parts[2].unlink()
    with pytest.raises(DamagedModelError, match="00003-of-00003"):
        open_gguf(parts[0])


def set_key(key: str, value: Any, kind: str = "UINT32") -> Callable[[Any], None]:
    def change(writer: Any) -> None:
        writer.kv_data[0].pop(key, None)
        if value is not None:
            writer.add_key_value(key, value, gguf.GGUFValueType[kind])

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_key("qwen3.embedding_length", None), "hidden_size is None"),
        (set_key("qwen3.embedding_length", 512), "its keys say"),
        (set_key("qwen3.attention.head_count", 3), "heads"),
        (set_key("qwen3.attention.value_length", 32), "attention.value_length is 32"),
        (set_key("qwen3.rope.scaling.type", "yarn", "STRING"), "rope scaling"),
        (set_key("qwen3.attention.sliding_window", 64), "sliding-window"),
        (set_key("qwen3.rope.freq_base", float("nan"), "FLOAT32"), "rope_theta"),
        (set_key("tokenizer.ggml.pre", "llama-bpe", "STRING"), "not Qwen's"),
        (set_key("tokenizer.ggml.model", "llama", "STRING"), "not Qwen's"),
        (set_key("tokenizer.ggml.add_bos_token", True, "BOOL"), "begins every text"),
        (set_key("tokenizer.ggml.eos_token_id", "x", "STRING"), "not a number"),
        (set_key("tokenizer.ggml.eos_token_id", 300), "stop_ids"),
        (set_key("tokenizer.chat_template", 5), "not a text"),
        (set_key("tokenizer.ggml.merges", None), "merges is not a list"),
        (set_key("tokenizer.ggml.token_type", None), "do not go with its tokens"),
        (set_key("general.alignment", 24), "general.alignment is 24"),
        (set_key("general.sampling.top_p", 7.0, "FLOAT32"), "top_p"),
        (lambda w: w.add_tensor("blk.0.attn_q.bias", np.zeros(256, np.float32)), "not belong"),
        (lambda w: w.add_tensor("rope_freqs.weight", np.zeros(32, np.float32)), "not belong"),
    ],
)  # fmt: skip
def test_what_is_not_computed_is_refused(
    change: Callable[[Any], None], problem: str, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "model.gguf", change=change)
    with pytest.raises(DamagedModelError, match="cannot be used") as refusal:
        open_gguf(tmp_path / "model.gguf")
    assert problem in str(refusal.value)


def test_other_architectures_are_refused_by_name(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", architecture="llama")
    with pytest.raises(DamagedModelError, match="architecture 'llama'"):
        open_gguf(tmp_path / "model.gguf")


def test_types_that_are_not_read_are_refused_by_name(tmp_path: Path) -> None:
    data = np.zeros((300, 66), np.uint8)

    def change(writer: Any) -> None:
        writer.add_tensor("x", data, raw_dtype=gguf.GGMLQuantizationType.IQ2_XXS)

    write_gguf(tmp_path / "model.gguf", change=change)
    with pytest.raises(DamagedModelError, match="in IQ2_XXS, which is not read") as refusal:
        open_gguf(tmp_path / "model.gguf")
    assert "Q4_K_M" in refusal.value.hint


def test_missing_tensors_and_files(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        open_gguf(tmp_path / "nothing.gguf")
    with pytest.raises(ModelNotFoundError):
        open_gguf(tmp_path)
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(DamagedModelError, match="does not begin as a GGUF file"):
        open_gguf(tmp_path / "empty.gguf")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")
    with open_gguf(tmp_path / "model.gguf") as source:
        place = source.tensors[EMBEDDING]._begin  # type: ignore[attr-defined]
    with open(tmp_path / "model.gguf", "r+b") as file:
        file.seek(place)
        file.write(b"\x00\x7c")
    with pytest.raises(DamagedModelError, match=r"model.embed_tokens.weight.*not a finite"):
        convert(tmp_path / "model.gguf", tmp_path / "out.qedge")
    assert not (tmp_path / "out.qedge").exists()
