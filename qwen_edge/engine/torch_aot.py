"""Compiling the torch engine ahead of time, by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.torch_engine import TorchEngine
from qwen_edge.engine.watcher import Watcher
from qwen_edge.errors import QwenEdgeError
from qwen_edge.model.packed import PackedModel


def build_package(model: PackedModel, config: EngineConfig, watcher: Watcher | None = None) -> Path:
    """Compiles the package with which ``TorchEngine`` starts without tracing.

    It serves every model of these shapes, and any length of the context.

    Args:
        model: an open one.
        config: the type of its KV cache and of activations count, and the number of sequences.
        watcher: is told what takes a while.

    Returns:
        Where the package is.

    Raises:
        QwenEdgeError: the compiler failed, or the model's layers are not all alike.
    """
    # The length is a variable of the package.
    with TorchEngine(model, replace(config, context=64), "off", watcher) as engine:
        if watcher is not None:
            watcher.begin("Compiling the model for torch")
        try:
            return engine.make_package()
        except QwenEdgeError:
            raise
        except Exception as error:  # a compiler may raise anything
            raise QwenEdgeError(
                "torch's compiler does not work here ({reason}).",
                "It needs a C++ compiler: `pkg install clang` on Termux, `apt install g++` "
                "elsewhere.",
                reason=str(error).strip().partition("\n")[0][:200].rstrip("."),
            ) from None
