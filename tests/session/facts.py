"""Facts of models, for tests that need no file."""

from __future__ import annotations

from qwen_edge.model.packed import GenerationDefaults, ModelConfig
from qwen_edge.session.footprint import ModelFacts
from qwen_edge.session.known_models import KNOWN_MODELS

MIB = 1 << 20
GIB = 1 << 30
SMALL, MIDDLE, LARGE = KNOWN_MODELS.values()


def tiny() -> ModelFacts:
    """A model that cannot think and takes 256 positions."""
    config = ModelConfig(
        hidden_size=128,
        intermediate_size=384,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=32,
        vocab_size=2048,
        max_positions=256,
        rms_norm_eps=1e-6,
        rope_theta=1e4,
        tied=True,
    )
    return ModelFacts("demo", config, 3_000_000, 8, False, GenerationDefaults(0.3, 5, 0.9, (0,)))
