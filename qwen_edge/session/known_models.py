"""The Qwen3 models this program is made for, as they are before one is downloaded."""

from __future__ import annotations

from collections.abc import Mapping

from qwen_edge.model.config import GenerationDefaults, ModelConfig
from qwen_edge.model.synthetic import CONFIGS
from qwen_edge.session.footprint import ModelFacts

# An INT4 weight in groups of 32 with an fp16 scale each.
_BITS_A_WEIGHT = 4.5
# Tokenizer, norms and header of a model file.
_REST_BYTES = 6_000_000
# Source: generation_config.json of the models, the same in all three.
_GENERATION = GenerationDefaults(temperature=0.6, top_k=20, top_p=0.95, stop_ids=(151645, 151643))


def parameters(config: ModelConfig) -> int:
    """Weights of all matrices; the norms' are left out."""
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    attention = config.hidden_size * (2 * queries + 2 * keys)
    layer = attention + 3 * config.hidden_size * config.intermediate_size
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tied else 2)
    return embeddings + config.layers * layer


def _facts(name: str, config: ModelConfig) -> ModelFacts:
    weight_bytes = int(parameters(config) * _BITS_A_WEIGHT / 8) + _REST_BYTES
    return ModelFacts(name, config, weight_bytes, 4, True, _GENERATION)


KNOWN_MODELS: Mapping[str, ModelFacts] = {
    name: _facts(name, CONFIGS[name.lower()]) for name in ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B")
}
"""By the names of the Hugging Face hub, at INT4, the smallest first."""
