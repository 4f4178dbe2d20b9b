"""The peers' weights as the quality benchmark reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
from gguf.quants import dequantize, quantize  # noqa: E402

from benchmarks.quality.llama import importance, read_weights, write_floats  # noqa: E402
from benchmarks.quality.score import Scorer  # noqa: E402
from benchmarks.quality.subjects import Subject  # noqa: E402
from qwen_edge.model.gguf_names import gguf_name  # noqa: E402
from tests.engine.oracle import SHAPES, random_model, save_checkpoint  # noqa: E402


@pytest.fixture
def subject(tmp_path):
    folder = save_checkpoint(random_model(SHAPES["wide-heads"]), tmp_path / "hf")
    random = np.random.default_rng(1)
    rows = [([int(i) for i in random.integers(0, 256, n)], [False] + [True] * (n - 1))
            for n in (5, 40, 17, 40)]  # fmt: skip
    return Subject("tiny", "random", folder, rows)


def test_the_floats_are_written_as_they_are(subject, tmp_path):
    write_floats(subject, tmp_path / "f32.gguf")
    names = {gguf_name(name): name for name in subject.weights()}
    weights, bits = read_weights(tmp_path / "f32.gguf", names)
    assert bits == 32
    assert weights.keys() == {k for k, v in subject.weights().items() if v.ndim == 2}
    for name, values in weights.items():
        assert torch.equal(values, subject.weights()[name])


def test_bits_and_values_of_a_quantized_file(tmp_path):
    kind = gguf.GGMLQuantizationType.Q8_0
    values = np.random.default_rng(2).standard_normal((8, 64)).astype(np.float32)
    blocks = quantize(values, kind)
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "qwen3")
    writer.add_tensor("token_embd.weight", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights, bits = read_weights(tmp_path / "q.gguf", {"token_embd.weight": "embedding"})
    assert bits == 8.5
    np.testing.assert_array_equal(weights["embedding"].numpy(), dequantize(blocks, kind))


def test_importance_has_every_matrix(subject):
    found = importance(subject, "some text to calibrate with")
    shapes = {gguf_name(k): v.shape[1] for k, v in subject.weights().items() if v.ndim == 2}
    assert {name: values.size for name, values in found.items()} == shapes
    assert all((values > 0).all() for values in found.values())


def test_scores(subject):
    scorer = Scorer(subject)
    assert scorer.tokens == 4 + 39 + 16 + 39
    same = scorer.score({})
    assert same.perplexity == pytest.approx(scorer.perplexity)
    assert (same.increase, same.divergence, same.agreement) == (0, 0, 1)
    changed = {"model.embed_tokens.weight": subject.weights()["model.embed_tokens.weight"] * 1.5}
    other = scorer.score(changed)
    assert other.divergence > 0
    assert scorer.score({}) == same
    torch.manual_seed(1)
    rows = [torch.tensor(ids)[None] for ids, _ in subject.rows]
    model = subject.model()
    with torch.no_grad():
        losses = [model(ids, labels=ids).loss.item() * (ids.shape[1] - 1) for ids in rows]
    assert np.exp(sum(losses) / scorer.tokens) == pytest.approx(scorer.perplexity, rel=1e-5)
