"""How much memory a model will take, before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.memory_estimate import estimate
from qwen_edge.model.packed import GenerationDefaults, ModelConfig, PackedModel
from qwen_edge.session.engine_choice import TORCH, EngineChoice
from qwen_edge.session.opened import Model

if TYPE_CHECKING:
    from qwen_edge.session.folder_memory import FolderMemory

# What the process holds beside weights, cache and scratch: interpreter, command line, template
# engine, native library and its tokenizer's working memory. Measured by
# benchmarks/predicted_peak.py.
INTERPRETER_BYTES = 28 << 20
# What importing the packages of an engine adds to it, measured likewise with torch's wheels for the
# processor alone: torch, and its compiler where that is used; transformers with torch, and
# bitsandbytes where it quantizes.
TORCH_BYTES, COMPILER_BYTES = 225 << 20, 150 << 20
TRANSFORMERS_BYTES, BITSANDBYTES_BYTES = 312 << 20, 45 << 20
# transformers' working memory for a chunk of the prompt, and what its cache takes on top of keys
# and values: layers grow one after the other by copies.
_CHUNK_BYTES, _GROWTH = 20 << 20, 1.25

_BITS = {
    "q4": 4, "nf4": 4, "fp4": 4, "q8": 8, "int8": 8, "f16": 16, "bf16": 16, "f32": 32,
}  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without computing with it.

    Attributes:
        name: for people.
        config: its shape.
        weight_bytes: size of its file: the pages that become resident once every weight was read;
            of a checkpoint's folder, of the weights as transformers holds them.
        bits: of a weight, nominally.
        can_think: whether its chat template has a thinking mode.
        generation: the sampling its authors recommend.
        adapter_bytes: what an adapter beside it takes.
        folder: what a checkpoint's folder takes; None of a model file.
    """

    name: str
    config: ModelConfig
    weight_bytes: int
    bits: int
    can_think: bool
    generation: GenerationDefaults
    adapter_bytes: int = 0
    folder: FolderMemory | None = None

    @property
    def mapped_bytes(self) -> int:
        """Of the weights in use, what is mapped and counts against a memory cap in full."""
        return self.weight_bytes if self.folder is None else self.folder.mapped


def facts_of(model: Model, choice: EngineChoice | None = None) -> ModelFacts:
    """Takes the facts from an open model.

    Args:
        model: a model file, or a checkpoint's folder.
        choice: of the engine; it decides how a folder's weights are held.
    """
    folder = None
    if not isinstance(model, PackedModel):
        assert choice is not None
        from qwen_edge.session.folder_memory import folder_memory

        folder = folder_memory(model, choice)
    return ModelFacts(
        name=model.name,
        config=model.config,
        weight_bytes=model.size if folder is None else folder.weights,
        bits=bits_of(model, choice),
        can_think="enable_thinking" in model.chat_template,
        generation=model.generation,
        folder=folder,
    )


def bits_of(model: Model, choice: EngineChoice | None = None) -> int:
    """Of a weight, nominally; takes what ``facts_of`` does."""
    if isinstance(model, PackedModel):
        # The feed-forward layers are the bulk of the weights; embeddings may be finer.
        return _BITS[model.tensors["model.layers.0.mlp.down_proj.weight"].type]
    assert choice is not None
    return _BITS[choice.weights]


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
    filled = engine.context if filled is None else filled
    memory = estimate(facts.config, engine, filled)
    if facts.folder is not None:
        kv_bytes = memory.kv_bytes if engine.keep_cache else 0
        running = facts.folder.resident + int(_GROWTH * kv_bytes) + _CHUNK_BYTES
        return library_bytes(choice) + max(running, facts.folder.loading)
    engine_bytes = memory.kv_bytes + memory.scratch_bytes + facts.adapter_bytes
    return facts.weight_bytes + engine_bytes + library_bytes(choice)


def library_bytes(choice: EngineChoice | None) -> int:
    """What the process of an engine holds before it has a model, libraries included."""
    held, packages = INTERPRETER_BYTES, choice.packages if choice else ()
    if "transformers" in packages:
        held += TRANSFORMERS_BYTES
        held += BITSANDBYTES_BYTES if "bitsandbytes" in packages else 0
    elif choice and TORCH in packages:
        held += TORCH_BYTES + (0 if choice.compile == "off" else COMPILER_BYTES)
    return held
