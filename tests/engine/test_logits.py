"""Logits of the native engine against transformers on the same, dequantized, weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.native import NativeEngine
from qwen_edge.errors import UsageError
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.model.synthetic import make_synthetic
from tests.engine.oracle import (
    SHAPES,
    engine_logits,
    native_logits,
    oracle_logits,
    random_model,
    relative_error,
    save_checkpoint,
    take_weights,
)

FP32_LIMIT = 1e-4
INT8_LIMIT = 2e-2
# The cache's own rounding comes on top of the activations'.
INT8_CACHE_LIMIT = 2.5e-2
# Random weights pass the cache's error on undiminished: 0.05 to 0.19 were measured.
INT4_CACHE_LIMIT = 0.25


def converted(shape: str, directory: Path, **options: int) -> tuple[PackedModel, np.ndarray]:
    """A random model of the shape, converted, and 150 tokens' logits of the oracle."""
    oracle = random_model(SHAPES[shape])
    save_checkpoint(oracle, directory / "hf")
    convert(directory / "hf", directory / "model.qedge", **options)
    packed = open_model(directory / "model.qedge")
    take_weights(oracle, packed)
    return packed, oracle_logits(oracle, tokens(packed))


def tokens(packed: PackedModel, count: int = 150) -> list[int]:
    random = np.random.default_rng(5)
    return [int(i) for i in random.integers(0, packed.config.vocab_size, count)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 64), (4, 128), (8, 32), (16, 32)])
def test_against_transformers(shape: str, bits: int, group: int, tmp_path: Path) -> None:
    packed, truth = converted(shape, tmp_path, bits=bits, group=group)
    with packed:
        ids = tokens(packed)
        exact = native_logits(packed, ids, activations="f32", kv_type="f32")
        assert relative_error(exact, truth) <= FP32_LIMIT
        for kv_type, limit in (("f16", INT8_LIMIT), ("int8", INT8_CACHE_LIMIT)):
            fast = native_logits(packed, ids, kv_type=kv_type)
            assert relative_error(fast, truth) <= limit
        coarse = native_logits(packed, ids, kv_type="int4")
        assert relative_error(coarse, truth) <= INT4_CACHE_LIMIT


def test_uneven_keys_do_not_spoil_a_quantized_cache(tmp_path: Path) -> None:
    """Some dimensions' keys are large and their queries small: the same products."""
    oracle = random_model(SHAPES["wide-heads"])
    with torch.no_grad():
        for layer in oracle.model.layers:
            for d in (5, 5 + 64):
                layer.self_attn.k_norm.weight[d] *= 64
                layer.self_attn.q_norm.weight[d] /= 64
    save_checkpoint(oracle, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "model.qedge", bits=8)
    with open_model(tmp_path / "model.qedge") as packed:
        take_weights(oracle, packed)
        ids = tokens(packed)
        truth = oracle_logits(oracle, ids)
        exact = native_logits(packed, ids, activations="f32", kv_type="f32")
        assert relative_error(exact, truth) <= FP32_LIMIT
        assert relative_error(native_logits(packed, ids, kv_type="int8"), truth) <= INT8_LIMIT
        coarse = native_logits(packed, ids, kv_type="int4")
        assert relative_error(coarse, truth) <= INT4_CACHE_LIMIT


def test_one_token(tmp_path: Path) -> None:
    packed, truth = converted("untied", tmp_path)
    with packed:
        exact = native_logits(packed, tokens(packed)[:1], activations="f32", kv_type="f32")
    assert relative_error(exact[0], truth[0]) <= FP32_LIMIT


def test_rows_spread_over_calls_in_any_way(tmp_path: Path) -> None:
    packed, _ = converted("wide-heads", tmp_path)
    with packed:
        ids = tokens(packed)
        settings = EngineConfig(context=150, prefill_rows=150, kv_type="int8", threads=2)
        with NativeEngine(packed, settings) as engine:
            whole = engine_logits(engine, ids)
            for chunk in (1, 13, 64):
                assert relative_error(engine_logits(engine, ids, chunk), whole) <= 6e-3
            engine.truncate(70)
            assert list(engine.cached_ids()) == ids[:70]
            rows = [Row(0, i, ids[i], i == 149) for i in range(70, 150)]
            engine.forward(rows)
            assert list(engine.cached_ids()) == ids


def test_what_the_engine_refuses(tmp_path: Path) -> None:
    packed, _ = converted("one-layer", tmp_path)
    with packed:
        for bad in (
            EngineConfig(kv_type="int3"),
            EngineConfig(kv_type="f32"),
            EngineConfig(activations="int4"),
            EngineConfig(context=0),
            EngineConfig(context=4097),
            EngineConfig(threads=255),
            EngineConfig(prefill_rows=0),
            EngineConfig(sequences=0),
        ):
            with pytest.raises(UsageError):
                NativeEngine(packed, bad)
        with NativeEngine(packed, EngineConfig(context=8, prefill_rows=4)) as engine:
            for rows in (
                [Row(0, 1, 5)],
                [Row(1, 0, 5)],
                [Row(0, 0, 1003)],
                [Row(0, 0, -1)],
                [],
                [Row(0, i, 1) for i in range(5)],
            ):
                with pytest.raises(UsageError):
                    engine.forward(rows)
            assert not engine.cached_ids()
            engine.forward([Row(0, i, 1) for i in range(4)])
            engine.forward([Row(0, 4 + i, 1) for i in range(4)])
            with pytest.raises(UsageError, match="full"):
                engine.forward([Row(0, 8, 1)])
        with pytest.raises(UsageError, match="closed"):
            engine.forward([Row(0, 0, 1)])


def test_real_shape(tmp_path: Path) -> None:
    """Qwen3-0.6B's own dimensions; the vocabulary's end is cut so that the oracle fits in CI."""
    from qwen_edge.model.packed import ModelConfig

    config = ModelConfig(
        hidden_size=1024, intermediate_size=3072, layers=28, heads=16, kv_heads=8, head_dim=128,
        vocab_size=16_003, max_positions=40_960, rms_norm_eps=1e-6, rope_theta=1e6, tied=True,
    )  # fmt: skip
    path = make_synthetic("qwen3-0.6b", tmp_path / "model.qedge", config=config)
    oracle = random_model(
        {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
         "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
         "vocab_size": 16_003, "tie_word_embeddings": True}
    )  # fmt: skip
    with open_model(path) as packed:
        take_weights(oracle, packed)
        ids = tokens(packed, 12)
        truth = oracle_logits(oracle, ids)
        exact = native_logits(packed, ids, activations="f32", kv_type="f32")
        assert relative_error(exact, truth) <= FP32_LIMIT
        assert relative_error(native_logits(packed, ids, kv_type="f16"), truth) <= INT8_LIMIT
        assert relative_error(native_logits(packed, ids, kv_type="int8"), truth) <= INT8_CACHE_LIMIT
