"""How many bytes the native engine will hold: the formulas behind the memory budget."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_edge.engine.interface import EngineConfig
from qwen_edge.model.packed import ModelConfig

CHUNK_POSITIONS = 256
"""Positions of a KV chunk; memory is taken from the system a page at a time inside it."""
KV_BLOCK = 16
"""Positions of a block of the KV cache: kKvBlock of native/isa/isa.h."""
BLOCK_ROWS = 32
"""Rows of one sequence that a thread attends from together: kBlockRows of session_limits.h."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by purpose.

    Attributes:
        kv_bytes: KV cache of the filled positions.
        scratch_bytes: activations, scores and logits.
    """

    kv_bytes: int
    scratch_bytes: int


def kv_vector_bytes(head_dim: int, kv_type: str) -> int:
    """Bytes of one position's key, or value, in one head."""
    # INT8 has a scale a vector, INT4 one for each 32 dims.
    return {
        "f32": 4 * head_dim,
        "f16": 2 * head_dim,
        "bf16": 2 * head_dim,
        "int8": head_dim + 2,
        "int4": head_dim // 32 * 18,
    }[kv_type]


def kv_bytes_per_token(config: ModelConfig, kv_type: str) -> int:
    """Bytes of keys and values that one position takes in all layers."""
    return config.layers * config.kv_heads * 2 * kv_vector_bytes(config.head_dim, kv_type)


def estimate(config: ModelConfig, engine: EngineConfig, filled: int) -> MemoryEstimate:
    """Estimates the engine's memory with ``filled`` positions in each sequence.

    Mirrors the allocations of native/session.cpp.
    """
    rows, threads = engine.prefill_rows, max(engine.threads, engine.prefill_threads, 1)

    def activations(n: int, cols: int) -> int:
        padded = -(-cols // 128) * 128
        return n * (padded * 5 + padded // 4)

    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shared = (
        2 * activations(rows, config.hidden_size)
        + activations(rows, queries)
        + activations(rows, config.intermediate_size)
        + 4 * rows * (queries + 2 * keys + config.hidden_size + config.head_dim)
    )
    block_queries = min(rows, BLOCK_ROWS) * config.heads // config.kv_heads
    own = (
        activations(1, config.hidden_size)
        + 4 * rows * 64
        + block_queries * (config.head_dim * 14 + 4 * CHUNK_POSITIONS)
    )
    logits = 4 * config.vocab_size * max(engine.sequences, 1 + engine.drafts)
    positions = filled * engine.sequences
    return MemoryEstimate(
        kv_bytes=positions * kv_bytes_per_token(config, engine.kv_type),
        scratch_bytes=shared + threads * own + logits,
    )
