"""Logits at positions up to 32,767 against transformers, whose rope is computed in fp64 here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, Qwen3ForCausalLM

from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.native import NativeEngine
from qwen_edge.errors import UsageError
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from tests.engine.oracle import array, random_model, relative_error, save_checkpoint, take_weights

CONTEXT = 32_768
BLOCK = 16  # the positions that a stretched sequence repeats
# Rope in fp32 is off by 0.001 radians at the end, and would be seen.
EXACT_LIMIT = 1e-4
LIMITS = {"f16": 2e-2, "int8": 2.5e-2, "int4": 0.25}
TWO_LAYERS = {
    "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 331,
    "tie_word_embeddings": False,
}  # fmt: skip
ONE_LAYER = TWO_LAYERS | {"num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 32,
                          "num_key_value_heads": 1}  # fmt: skip


class ExactRope(torch.nn.Module):
    """transformers' rotary embedding with its angles in fp64."""

    def __init__(self, head_dim: int, theta: float) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
        self.frequency = theta**-exponents

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Cosines and sines [batch, positions, head_dim]."""
        angles = position_ids[..., None].double() * self.frequency
        both = torch.cat([angles, angles], dim=-1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)


def prepared(shape: dict[str, Any], directory: Path) -> tuple[PackedModel, Qwen3ForCausalLM]:
    """A converted random model and the oracle with the same weights."""
    oracle = random_model(shape, max_positions=CONTEXT)
    save_checkpoint(oracle, directory / "hf")
    convert(directory / "hf", directory / "model.qedge", bits=8)
    packed = open_model(directory / "model.qedge")
    take_weights(oracle, packed)
    oracle.model.rotary_emb = ExactRope(packed.config.head_dim, packed.config.rope_theta)
    return packed, oracle


@pytest.fixture(scope="module")
def two_layers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[PackedModel, Qwen3ForCausalLM]]:
    packed, oracle = prepared(TWO_LAYERS, tmp_path_factory.mktemp("model"))
    with packed:
        yield packed, oracle


def tokens(count: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(3).integers(0, 331, count)]


def oracle_at(oracle: Qwen3ForCausalLM, ids: list[int], depth: int) -> np.ndarray:
    """Logits of ids[BLOCK:] from position ``depth`` on, over a cache that repeats ids[:BLOCK]."""
    with torch.no_grad():
        first = oracle(torch.tensor([ids[:BLOCK]]), use_cache=True).past_key_values
        cache = DynamicCache()
        slots = torch.arange(depth) % BLOCK
        for index, layer in enumerate(first.layers):
            cache.update(layer.keys[:, :, slots], layer.values[:, :, slots], index)
        positions = torch.arange(depth, depth + len(ids) - BLOCK)
        logits: np.ndarray = oracle(
            torch.tensor([ids[BLOCK:]]), past_key_values=cache, position_ids=positions[None]
        ).logits[0].numpy()  # fmt: skip
    return logits


def logits_at(packed: PackedModel, ids: list[int], depth: int, **settings: Any) -> np.ndarray:
    """The same of the native engine: the last 5 tokens one at a time, the others in one call."""
    config = EngineConfig(context=CONTEXT, prefill_rows=64, threads=2, **settings)
    with NativeEngine(packed, config) as engine:
        engine.forward([Row(0, i, token) for i, token in enumerate(ids[:BLOCK])])
        engine.stretch(depth)
        rows = [Row(0, depth + i, token, True) for i, token in enumerate(ids[BLOCK:])]
        found = engine.forward(rows[:-5])
        copies = [array(logits) for logits in found]
        for row in rows[-5:]:
            copies.append(array(engine.forward([row])[0]))
    return np.stack(copies)


@pytest.mark.parametrize("depth", [5_000, CONTEXT - 45])
def test_far_positions_against_transformers(
    two_layers: tuple[PackedModel, Qwen3ForCausalLM], depth: int
) -> None:
    packed, oracle = two_layers
    ids = tokens(BLOCK + 45)
    truth = oracle_at(oracle, ids, depth)
    exact = logits_at(packed, ids, depth, activations="f32", kv_type="f32")
    assert relative_error(exact, truth) <= EXACT_LIMIT
    for kv_type, limit in LIMITS.items():
        assert relative_error(logits_at(packed, ids, depth, kv_type=kv_type), truth) <= limit


def test_a_prompt_as_long_as_the_context(tmp_path: Path) -> None:
    """Every position is computed, none repeated; then the context is full."""
    packed, oracle = prepared(ONE_LAYER, tmp_path)
    ids = tokens(CONTEXT)
    with torch.no_grad():
        hidden = oracle.model(torch.tensor([ids])).last_hidden_state[0, -40:]
        truth = oracle.lm_head(hidden).numpy()
    with packed:
        config = EngineConfig(context=CONTEXT, prefill_rows=512, threads=2, kv_type="int8")
        with NativeEngine(packed, config) as engine:
            for begin in range(0, CONTEXT, 512):
                last = begin + 512 == CONTEXT
                found = engine.forward(
                    [Row(0, i, ids[i], last and i >= CONTEXT - 40)
                     for i in range(begin, begin + 512)]
                )  # fmt: skip
            assert relative_error(np.stack([array(row) for row in found]), truth) <= LIMITS["int8"]
            with pytest.raises(UsageError, match="context of 32768 positions is full"):
                engine.forward([Row(0, CONTEXT, 1, True)])
            assert len(engine.cached_ids()) == CONTEXT


def test_no_context_beyond_the_models_own(
    two_layers: tuple[PackedModel, Qwen3ForCausalLM],
) -> None:
    with pytest.raises(UsageError, match="model's maximum"):
        NativeEngine(two_layers[0], EngineConfig(context=CONTEXT + 1))
