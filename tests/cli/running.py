"""The program with pipes, and a tiny model for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from qwen_edge.model.packed import ModelConfig
from qwen_edge.model.synthetic import make_synthetic
from tests.cli import program

TINY = ModelConfig(
    hidden_size=128,
    intermediate_size=256,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=32,
    vocab_size=151936,
    max_positions=1024,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    tied=True,
)


def run(
    *arguments: object, home: Path, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``qwen-edge``; its own files lie in ``home / "qe"``."""
    result = program.run(
        home / "qe", *map(str, arguments), stdin=stdin.encode(), changes=variables, timeout=120
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


def tiny_model(path: Path, bits: int = 4) -> Path:
    """A model of two small layers with Qwen's vocabulary, some 12 MB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_synthetic("tiny", path, bits=bits, config=TINY)


def too_long_lines(text: str, columns: int) -> list[str]:
    """Lines beyond a width that could have been broken between words."""
    return [line for line in text.splitlines() if len(line) > columns and len(line.split()) > 1]
