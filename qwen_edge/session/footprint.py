"""How much memory a model will take, before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.memory_estimate import estimate
from qwen_edge.model.packed import GenerationDefaults, ModelConfig, PackedModel

# KV types the engine offers, from wide to narrow.
KV_TYPES = ("f16", "int8", "int4")

# What the process holds beside weights, cache and scratch: interpreter, command line, template
# engine, native library and its tokenizer's working memory. Measured by
# benchmarks/predicted_peak.py.
INTERPRETER_BYTES = 28 << 20

_BITS = {"q4": 4, "q8": 8, "f16": 16, "bf16": 16, "f32": 32}


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without computing with it.

    Attributes:
        name: for people.
        config: its shape.
        weight_bytes: size of its file: the pages that become resident once every weight was read.
        bits: of a weight, nominally.
        can_think: whether its chat template has a thinking mode.
        generation: the sampling its authors recommend.
        adapter_bytes: what an adapter beside it takes.
    """

    name: str
    config: ModelConfig
    weight_bytes: int
    bits: int
    can_think: bool
    generation: GenerationDefaults
    adapter_bytes: int = 0


def facts_of(model: PackedModel) -> ModelFacts:
    """Takes the facts from an open model."""
    # The feed-forward layers are the bulk of the weights; embeddings may be finer.
    bulk = model.tensors["model.layers.0.mlp.down_proj.weight"].type
    return ModelFacts(
        name=model.name,
        config=model.config,
        weight_bytes=model.size,
        bits=_BITS[bulk],
        can_think="enable_thinking" in model.chat_template,
        generation=model.generation,
    )


def predict_peak(facts: ModelFacts, engine: EngineConfig, filled: int | None = None) -> int:
    """Predicts the peak resident size in bytes.

    Args:
        facts: the model.
        engine: how the engine is set up.
        filled: positions in use; the whole context by default.

    Returns:
        Weights (every page of the file), adapter, KV cache, scratch memory and interpreter
        together.
    """
    memory = estimate(facts.config, engine, engine.context if filled is None else filled)
    engine_bytes = memory.kv_bytes + memory.scratch_bytes + facts.adapter_bytes
    return facts.weight_bytes + engine_bytes + INTERPRETER_BYTES
