"""Adapters beside a model, against transformers with the adapter merged into its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qwen_edge.engine.adapter import MOST_RANK, adapter_bytes
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.native import NativeEngine
from qwen_edge.errors import DamagedModelError, QwenEdgeError
from qwen_edge.model.adapter import open_adapter
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from tests.engine.oracle import (
    SHAPES,
    array,
    engine_logits,
    oracle_logits,
    random_model,
    relative_error,
    save_checkpoint,
    take_weights,
)
from tests.engine.test_logits import FP32_LIMIT, INT8_CACHE_LIMIT, INT8_LIMIT, tokens
from tests.engine.test_quantized_logits import FLOATS, model_config, set_weights
from tests.model.adapters import PROJECTIONS, random_pairs, write_adapter
from tests.model.files import BLOB
from tests.model.grouped import Kind, write_quantized

COUNT = 60


def loaded(shape: str, folder: Path, **options: Any) -> tuple[Any, PackedModel]:
    """A random model as transformers and as we have it, with the very same weights."""
    oracle = random_model(SHAPES[shape])
    save_checkpoint(oracle, folder / "hf")
    convert(folder / "hf", folder / "model.qedge", **options)
    packed = open_model(folder / "model.qedge")
    take_weights(oracle, packed)
    return oracle, packed


def merge(oracle: Any, pairs: dict[str, Any], scale: float) -> None:
    """Adds scale * B A to the weights, as PEFT's merge does."""
    with torch.no_grad():
        for name, (a, b) in pairs.items():
            weight = oracle.get_submodule(name).weight
            weight += scale * (torch.from_numpy(b) @ torch.from_numpy(a))


def logits(
    packed: PackedModel, adapter: Path | None, factor: float = 1.0, chunk: int = 64, **config: Any
) -> np.ndarray:
    ids = tokens(packed, COUNT)
    settings = {"context": COUNT, "threads": 2, "prefill_rows": 64} | config
    with NativeEngine(packed, EngineConfig(**settings)) as engine:
        if adapter is not None:
            with open_adapter(adapter, packed.config, MOST_RANK) as opened:
                engine.set_adapter(opened, factor)
        return engine_logits(engine, ids, chunk)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 5, 16, 64])
def test_all_projections(shape: str, rank: int, tmp_path: Path) -> None:
    oracle, packed = loaded(shape, tmp_path)
    with packed:
        plain = oracle_logits(oracle, tokens(packed, COUNT))
        pairs = random_pairs(packed.config, rank)
        adapter = write_adapter(tmp_path / "mine", pairs, rank, lora_alpha=2 * rank)
        merge(oracle, pairs, 1.0)
        truth = oracle_logits(oracle, tokens(packed, COUNT))
        assert relative_error(plain, truth) > 0.2, "the adapter changes the model"
        exact = logits(packed, adapter, 0.5, activations="f32", kv_type="f32")
        assert relative_error(exact, truth) <= FP32_LIMIT
        for kv_type, limit in (("f16", INT8_LIMIT), ("int8", INT8_CACHE_LIMIT)):
            assert relative_error(logits(packed, adapter, 0.5, kv_type=kv_type), truth) <= limit


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_one_projection_of_some_layers(projection: str, tmp_path: Path) -> None:
    oracle, packed = loaded("untied", tmp_path, bits=8)
    with packed:
        pairs = random_pairs(packed.config, 7, projections=[projection], layers=[0, 3], size=3)
        adapter = write_adapter(tmp_path / "mine", pairs, 7)
        merge(oracle, pairs, 1.0)
        truth = oracle_logits(oracle, tokens(packed, COUNT))
        exact = logits(packed, adapter, activations="f32", kv_type="f32")
        assert relative_error(exact, truth) <= FP32_LIMIT
        assert relative_error(logits(packed, adapter, kv_type="f16"), truth) <= INT8_LIMIT


def test_beside_dense_weights(tmp_path: Path) -> None:
    oracle, packed = loaded("one-layer", tmp_path, bits=16)
    with packed:
        pairs = random_pairs(packed.config, 12)
        adapter = write_adapter(tmp_path / "mine", pairs, 12)
        merge(oracle, pairs, 1.0)
        truth = oracle_logits(oracle, tokens(packed, COUNT))
        assert relative_error(logits(packed, adapter, kv_type="f16"), truth) <= 2e-3


@pytest.mark.parametrize("size", [1e-12, 1e9])
def test_sizes_far_from_one(size: float, tmp_path: Path) -> None:
    """Tiny A and huge B, and the other way round: half precision holds either."""
    oracle, packed = loaded("narrow", tmp_path)
    with packed:
        ordinary = random_pairs(packed.config, 4)
        power = np.float32(2.0 ** round(np.log2(size)))
        pairs = {name: (a * power, b / power) for name, (a, b) in ordinary.items()}
        adapter = write_adapter(tmp_path / "mine", pairs, 4)
        merge(oracle, ordinary, 1.0)
        truth = oracle_logits(oracle, tokens(packed, COUNT))
        exact = logits(packed, adapter, activations="f32", kv_type="f32")
        assert relative_error(exact, truth) <= FP32_LIMIT


@pytest.mark.parametrize("activations", ["int8", "f32"])
def test_rows_do_not_depend_on_what_is_beside_them(activations: str, tmp_path: Path) -> None:
    _, packed = loaded("narrow", tmp_path)
    with packed:
        adapter = write_adapter(tmp_path / "mine", random_pairs(packed.config, 13), 13)
        settings = {"activations": activations, "kv_type": "f16"}
        whole = logits(packed, adapter, **settings)
        for chunk in (1, 2, 7, 33):
            for threads in (1, 2, 3):
                other = logits(packed, adapter, chunk=chunk, threads=threads, **settings)
                assert np.array_equal(other, whole), (chunk, threads)


def test_two_sequences_in_one_call(tmp_path: Path) -> None:
    _, packed = loaded("narrow", tmp_path)
    with packed:
        adapter = write_adapter(tmp_path / "mine", random_pairs(packed.config, 6), 6)
        whole = logits(packed, adapter, kv_type="int8")
        ids = tokens(packed, COUNT)
        with NativeEngine(packed, EngineConfig(context=COUNT, sequences=2, threads=2)) as engine:
            with open_adapter(adapter, packed.config) as opened:
                engine.set_adapter(opened)
            engine.forward([Row(1, i, ids[i]) for i in range(20)])
            for i in range(20):
                first, second = engine.forward(
                    [Row(0, i, ids[i], True), Row(1, 20 + i, ids[20 + i], True)]
                )
                assert np.array_equal(array(first), whole[i])
                assert np.array_equal(array(second), whole[20 + i])


def test_switching_forgets_and_goes_back(tmp_path: Path) -> None:
    _, packed = loaded("untied", tmp_path)
    with packed:
        paths = [
            write_adapter(tmp_path / str(seed), random_pairs(packed.config, rank, seed), rank)
            for seed, rank in ((1, 4), (2, 33))
        ]
        plain, *adapted = (logits(packed, path, kv_type="int8") for path in (None, *paths))
        ids = tokens(packed, COUNT)
        with NativeEngine(packed, EngineConfig(context=COUNT, threads=2)) as engine:
            identities = []
            for path, expected in ((None, plain), *zip(paths, adapted, strict=True), (None, plain)):
                if path is None:
                    engine.set_adapter(None)
                else:
                    with open_adapter(path, packed.config) as opened:
                        engine.set_adapter(opened)
                assert not engine.cached_ids()
                identities.append(engine.prefix_identity())
                assert np.array_equal(engine_logits(engine, ids), expected)
                assert list(engine.cached_ids()) == ids
        assert identities[0] == identities[3]
        assert len(set(identities)) == 3


def test_identity_follows_weights_and_scale(tmp_path: Path) -> None:
    _, packed = loaded("one-layer", tmp_path)
    with packed, NativeEngine(packed, EngineConfig(context=8)) as engine:
        identities = [engine.prefix_identity()]
        for seed, alpha, factor in ((1, 4, 1.0), (2, 4, 1.0), (1, 8, 1.0), (1, 4, 0.5)):
            pairs = random_pairs(packed.config, 4, seed)
            folder = write_adapter(tmp_path / "mine", pairs, 4, lora_alpha=alpha)
            with open_adapter(folder, packed.config) as opened:
                engine.set_adapter(opened, factor)
            identities.append(engine.prefix_identity())
        assert len(set(identities)) == 5


def test_memory_is_as_predicted(tmp_path: Path) -> None:
    _, packed = loaded("untied", tmp_path)
    with packed, NativeEngine(packed, EngineConfig(context=8, prefill_rows=16)) as engine:
        before = engine.scratch_bytes()
        for number, (rank, projections) in enumerate(
            [(5, PROJECTIONS), (64, PROJECTIONS), (17, PROJECTIONS[2:4])]
        ):
            pairs = random_pairs(packed.config, rank, projections=projections)
            folder = write_adapter(tmp_path / str(number), pairs, rank)
            with open_adapter(folder, packed.config) as opened:
                engine.set_adapter(opened)
                assert engine.scratch_bytes() - before == adapter_bytes(opened, 16)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_and_changes_nothing(value: float, tmp_path: Path) -> None:
    _, packed = loaded("one-layer", tmp_path)
    with packed, NativeEngine(packed, EngineConfig(context=COUNT)) as engine:
        good = write_adapter(tmp_path / "good", random_pairs(packed.config, 4), 4)
        with open_adapter(good, packed.config) as opened:
            engine.set_adapter(opened)
        ids = tokens(packed, COUNT)
        before, identity = engine_logits(engine, ids), engine.prefix_identity()
        pairs = random_pairs(packed.config, 4)
        pairs["model.layers.0.mlp.up_proj"][0][3, 95] = value
        bad = write_adapter(tmp_path / "bad", pairs, 4)
        refused = pytest.raises(DamagedModelError, match="not finite")
        with open_adapter(bad, packed.config) as opened, refused:
            engine.set_adapter(opened)
        assert list(engine.cached_ids()) == ids
        assert engine.prefix_identity() == identity
        assert np.array_equal(engine_logits(engine, ids), before)
        with pytest.raises(QwenEdgeError):
            open_adapter(tmp_path / "none", packed.config)


@pytest.mark.parametrize("act_order", [True, False])
def test_beside_and_into_gptq(act_order: bool, tmp_path: Path) -> None:
    """Columns in an order of the checkpoint's own: A's columns follow."""
    oracle = random_model(SHAPES["untied"])
    config = model_config(SHAPES["untied"])
    weights = {name: p.detach().numpy() for name, p in oracle.named_parameters()}
    kind = Kind(group=32, act_order=act_order)
    set_weights(oracle, write_quantized(tmp_path / "q", config, weights, kind))
    pairs = random_pairs(config, 6)
    adapter = write_adapter(tmp_path / "mine", pairs, 6)
    merge(oracle, pairs, 1.0)
    exact = {"activations": "f32", "kv_type": "f32"}
    floats: Any = {"overrides": [("model.embed*", FLOATS), ("lm_head*", FLOATS)], "tokenizer": BLOB}
    convert(tmp_path / "q", tmp_path / "q.qedge", **floats)
    with open_model(tmp_path / "q.qedge") as packed:
        truth = oracle_logits(oracle, tokens(packed, COUNT))
        assert relative_error(logits(packed, adapter, **exact), truth) <= FP32_LIMIT
    into = tmp_path / "into.qedge"
    convert(tmp_path / "q", into, bits=16, adapters=[(adapter, 1.0)], **floats)
    with open_model(into) as packed:
        assert relative_error(logits(packed, None, **exact), truth) <= INT8_LIMIT
