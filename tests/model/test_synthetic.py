"""Synthetic models: true shapes, random weights, the same bytes for the same seed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwen_edge.errors import UsageError
from qwen_edge.model.config import ModelConfig, parameter_count, tensor_shapes
from qwen_edge.model.packed import open_model
from qwen_edge.model.synthetic import CONFIGS, byte_tokenizer_json, make_synthetic
from qwen_edge.quant.layout import CODEBOOKS
from qwen_edge.quant.packing import dequantize
from qwen_edge.text.tokenizer import Tokenizer

SMALL = replace(CONFIGS["qwen3-0.6b"], hidden_size=160, intermediate_size=96, layers=2, heads=8,
                kv_heads=2, head_dim=32)  # fmt: skip


def test_the_shapes_are_the_true_ones() -> None:
    # Parameters as the model cards count them, without the embedding, and with it.
    cards = {
        "qwen3-0.6b": (0.44e9, 0.596e9),
        "qwen3-1.7b": (1.4e9, 1.72e9),
        "qwen3-4b": (3.6e9, 4.02e9),
    }
    for name, (layers, total) in cards.items():
        config = CONFIGS[name]
        count = parameter_count(config)
        assert count == pytest.approx(total, rel=0.01)
        assert count - config.vocab_size * config.hidden_size == pytest.approx(layers, rel=0.02)
        assert count == sum(math.prod(shape) for shape in tensor_shapes(config).values())
    assert len(tensor_shapes(CONFIGS["qwen3-0.6b"])) == 310


@pytest.mark.parametrize("codebook", ["int4", "iq4_nl"])
def test_weights_and_norms(tmp_path: Path, codebook: str) -> None:
    output = tmp_path / "model.qedge"
    path = make_synthetic("qwen3-0.6b", output, config=SMALL, codebook=codebook)
    with open_model(path) as model:
        assert model.name == "qwen3-0.6b-synthetic"
        assert model.config == SMALL
        assert model.generation.stop_ids == (151645, 151643)
        seen = set()
        for info in model.tensors.values():
            if info.type == "u8":
                continue
            values = np.empty((info.rows, info.cols), np.float32)
            dequantize(info.layout, model.address(info.name), values.ctypes.data)
            if info.type == "f32":
                assert (values == 1).all()
                continue
            assert info.codebook == CODEBOOKS[codebook]
            assert 0.018 < values.std() < 0.022
            assert abs(values.mean()) < 0.002
            seen.add(values[0, :8].tobytes())
        assert len(seen) == 15


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 128), (8, 32)])
def test_the_seed_decides(tmp_path: Path, bits: int, group: int) -> None:
    def make(name: str, seed: int, threads: int) -> bytes:
        path = tmp_path / name
        make_synthetic(
            "qwen3-0.6b", path, bits=bits, group=group, seed=seed, config=SMALL, threads=threads
        )
        return path.read_bytes()

    assert make("a", 1, 1) == make("b", 1, 3)
    assert make("a", 1, 1) != make("c", 2, 1)


def test_the_byte_tokenizer_is_what_the_library_takes_it_for(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library

    path = make_synthetic("qwen3-0.6b", tmp_path / "model.qedge", config=SMALL)
    library = Library.from_str(byte_tokenizer_json().decode())
    text = "Hello <|im_start|>, Grüße!\n 世界 🚀"
    with open_model(path) as model:
        info = model.tensors["tokenizer"]
        ours = Tokenizer.from_blob(model.address("tokenizer"), info.nbytes, model)
        ids = ours.encode(text, allow_special=True)
        assert ids == library.encode(text).ids
        assert ours.decode(ids) == text
        special = ours.special_ids()
        assert (special["<|endoftext|>"], special["<|im_end|>"]) == (151643, 151645)
        assert all(token < model.config.vocab_size for token in special.values())


def test_another_tokenizer(tmp_path: Path) -> None:
    source = tmp_path / "tokenizer.json"
    table = json.loads(byte_tokenizer_json())
    for token in table["added_tokens"][3:]:
        del table["model"]["vocab"][token["content"]]
    del table["added_tokens"][3:]
    source.write_text(json.dumps(table))
    path = make_synthetic("qwen3-0.6b", tmp_path / "m.qedge", config=SMALL, tokenizer_json=source)
    with open_model(path) as model:
        info = model.tensors["tokenizer"]
        tokenizer = Tokenizer.from_blob(model.address("tokenizer"), info.nbytes, model)
        assert tokenizer.vocab_size == 151646
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        make_synthetic("qwen3-0.6b", path, config=SMALL, tokenizer_json=tmp_path / "none")


def test_progress(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    config: ModelConfig = replace(SMALL, vocab_size=200_000)
    make_synthetic(
        "qwen3-0.6b", tmp_path / "m.qedge", config=config, progress=lambda *a: calls.append(a)
    )
    assert calls[0] == (0, calls[0][1], "model.embed_tokens.weight")
    assert calls[-1] == (calls[0][1], calls[0][1], "")
    assert [call[2] for call in calls].count("model.embed_tokens.weight") == 3


@pytest.mark.parametrize(("size", "bits"), [("qwen3-8b", 4), ("qwen3-0.6b", 16), ("", 4)])
def test_what_is_not_offered(tmp_path: Path, size: str, bits: int) -> None:
    with pytest.raises(UsageError, match="There is no synthetic model"):
        make_synthetic(size, tmp_path / "m.qedge", bits=bits)
    assert list(tmp_path.iterdir()) == []
