"""How much memory a model will take, before it is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.memory_estimate import estimate
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.packed import GenerationDefaults, ModelConfig, PackedModel
from qwen_edge.session.engine_choice import QUANTIZED, EngineChoice
from qwen_edge.session.opened import Model

if TYPE_CHECKING:
    from qwen_edge.model.checkpoint_folder import CheckpointFolder

# What the process holds beside weights, cache and scratch: interpreter, command line, template
# engine, native library and its tokenizer's working memory. Measured by
# benchmarks/predicted_peak.py.
INTERPRETER_BYTES = 28 << 20

_BITS = {
    "q4": 4, "nf4": 4, "fp4": 4, "q8": 8, "int8": 8, "f16": 16, "bf16": 16, "f32": 32,
}  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without computing with it.

    Attributes:
        name: for people.
        config: its shape.
        weight_bytes: of its file, the pages that become resident once every weight was read; of a
            checkpoint's folder, what transformers makes of the weights.
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


def facts_of(model: Model, choice: EngineChoice | None = None) -> ModelFacts:
    """Takes the facts from an open model.

    Args:
        model: a model file, or a checkpoint's folder.
        choice: of the engine; it decides how a folder's weights are held.
    """
    if isinstance(model, PackedModel):
        # The feed-forward layers are the bulk of the weights; embeddings may be finer.
        bulk = model.tensors["model.layers.0.mlp.down_proj.weight"].type
        weight_bytes = model.size
    else:
        assert choice is not None
        bulk, weight_bytes = choice.weights, folder_weights(model, choice)
    return ModelFacts(
        name=model.name,
        config=model.config,
        weight_bytes=weight_bytes,
        bits=_BITS[bulk],
        can_think="enable_thinking" in model.chat_template,
        generation=model.generation,
    )


def folder_weights(folder: CheckpointFolder, choice: EngineChoice) -> int:
    """Bytes of a folder's weights in transformers' hands, once they are loaded."""
    matrices = rest = rows = 0
    for name, shape in tensor_shapes(folder.config).items():
        if name.startswith("model.layers.") and len(shape) > 1:
            matrices += math.prod(shape)
            rows += shape[0]
        else:
            rest += math.prod(shape)
    floats = 4 if choice.floats == "f32" else 2
    if folder.quantized is not None:
        held = folder.matrix_bytes
    elif choice.weights == "int8":
        held = matrices + 4 * rows
    elif choice.weights in QUANTIZED:
        # A scale for each 64 weights, of fp32, or of 8 bits with one of fp32 for 256 of them.
        scales = matrices / 64
        held = matrices // 2 + round(scales * (1 + 4 / 256) if choice.double_quant else scales * 4)
    else:
        held = matrices * floats
    return held + rest * floats


def predict_peak(
    facts: ModelFacts,
    engine: EngineConfig,
    filled: int | None = None,
    choice: EngineChoice | None = None,
) -> int:
    """Predicts the peak resident size in bytes.

    Args:
        facts: the model.
        engine: how the engine is set up.
        filled: positions in use; the whole context by default.
        choice: of the engine, by default the native one.

    Returns:
        Weights (every page of the file), adapter, KV cache, scratch memory, interpreter and
        libraries together.
    """
    memory = estimate(facts.config, engine, engine.context if filled is None else filled)
    engine_bytes = memory.kv_bytes + memory.scratch_bytes + facts.adapter_bytes
    return facts.weight_bytes + engine_bytes + INTERPRETER_BYTES
