"""The torch engine in each of the ways that it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from qwen_edge.engine import torch_engine
from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import Engine, EngineConfig, Row, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.torch_engine import TorchEngine
from qwen_edge.model.packed import PackedModel
from qwen_edge.native.build import CompilerError
from tests.engine.oracle import array

GREEDY = SamplingParams(temperature=0)
COMPILE_MODES = {"compiled": "on", "packaged": "aot"}


@contextlib.contextmanager
def open_engine(kind: str, model: PackedModel, config: EngineConfig) -> Iterator[Engine]:
    """An engine: ``native``, or torch's ``eager``, ``compiled``, ``packaged`` or ``plain``.

    The last one has no compiler for the native operators, and does with plain torch.
    """
    if kind == "native":
        with NativeEngine(model, config) as engine:
            yield engine
        return
    with pytest.MonkeyPatch.context() as patch:
        if kind == "plain":
            patch.setattr(torch_engine, "native_operators", no_operators)
            # Torch's own threads wait for each other where others keep the cores busy.
            config = replace(config, threads=1)
        # What one model had compiled is not to count for another.
        torch._dynamo.reset()
        mode = COMPILE_MODES.get(kind, "off")
        with TorchEngine(model, config, mode) as ours:
            assert ours.compiled == mode
            yield ours


def no_operators() -> None:
    """What the engine is told on a machine without a compiler."""
    raise CompilerError("There is no C++ compiler.")


def compute(engine: Engine, rows: Sequence[Row]) -> np.ndarray:
    """fp32 [rows that want logits, vocab]."""
    return np.stack([array(logits) for logits in engine.forward(rows)])


def answer(engine: Engine, prompt: Sequence[int], tokens: int) -> list[int]:
    """The greedy tokens that follow a prompt."""
    steps = Generation(engine, prompt, GREEDY, max_tokens=tokens, stop_ids=())
    return [step.id for step in steps]
