"""The torch engine: model/qwen3.py over a KV cache of fixed shape, eager or compiled."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen_edge.engine.interface import EngineConfig, Logits, Row
from qwen_edge.engine.memory_estimate import KV_BLOCK, kv_vector_bytes
from qwen_edge.engine.native import KV_TYPES
from qwen_edge.engine.quiet import quiet
from qwen_edge.engine.token_ids import TokenIds
from qwen_edge.engine.torch_memory import torch_memory_errors
from qwen_edge.engine.watcher import Unwatched, Watcher
from qwen_edge.errors import MemoryLimitError, UsageError
from qwen_edge.model.closing import Closing
from qwen_edge.model.operators import native_operators, set_threads
from qwen_edge.model.operators_file import is_own, operators_path
from qwen_edge.model.packed import PackedModel
from qwen_edge.model.qwen3 import Qwen3, RunLayers, run_layers
from qwen_edge.model.qwen3_loading import load_qwen3
from qwen_edge.native.build import CompilerError
from qwen_edge.quant.packing import usable_threads


class TorchEngine(Closing):
    """An ``Engine`` in PyTorch; use it as a context manager.

    Args:
        model: stays open as long as the engine lives; the engine does not close it.
        config: see ``EngineConfig``.
        compile_mode: ``off`` runs eagerly, ``on`` under torch.compile, ``aot`` from a package that
            is compiled ahead of time, now if that was not done yet. ``auto`` is ``aot``, or ``on``
            where that does not work: a package starts in a second and takes the least time a token.
        watcher: is told of compilations, and of what does not work.

    Attributes:
        compiled: ``off``, ``on`` or ``aot``: what became of it.

    Raises:
        MemoryLimitError: there is no address space for the KV cache.
        UsageError: a setting is out of range.
    """

    def __init__(
        self,
        model: PackedModel,
        config: EngineConfig,
        compile_mode: str = "auto",
        watcher: Watcher | None = None,
    ) -> None:
        if config.kv_type not in KV_TYPES or (config.kv_type == "f32") != (
            config.activations == "f32"
        ):
            raise UsageError("The KV cache type cannot be {value}.", value=config.kv_type)
        watcher = watcher or Unwatched()
        self.config = config
        self.vocab_size = model.config.vocab_size
        operators = _operators(config, watcher)
        self._cache = _new_cache(model, config)
        self._ids = TokenIds(config, self.vocab_size)
        self._logits = torch.empty(0)
        self._network: Qwen3 | None = load_qwen3(
            model, operators, KV_TYPES[config.kv_type], fp32=config.activations == "f32"
        )
        self._run_row: RunLayers = run_layers
        self.compiled = "off"
        # Without a compiler for the operators there is none for the layers.
        if compile_mode != "off" and operators is torch.ops.qwen_edge:
            self._compile(compile_mode, watcher)
        # What importing torch has made stays: to look through it for garbage takes longer than
        # many a token.
        gc.freeze()

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        """See ``Engine.forward``."""
        network = self._open_network()
        self._ids.check(rows)
        sequences, positions, ids, wants = zip(*rows, strict=True)
        wanted = [i for i, wants_logits in enumerate(wants) if wants_logits]
        with torch_memory_errors(), torch.inference_mode():
            # What is handed out is an address into it.
            self._logits = network(
                torch.tensor(ids),
                (torch.tensor(sequences), torch.tensor(positions)),
                self._cache,
                torch.tensor(wanted, dtype=torch.int64),
                self._run_row if len(rows) == 1 else run_layers,
            )
        self._ids.append(rows)
        start, size = self._logits.data_ptr(), self.vocab_size
        return [Logits(start + 4 * size * i, size) for i in range(len(wanted))]

    def cached_ids(self, sequence: int = 0) -> Sequence[int]:
        """See ``Engine.cached_ids``."""
        return self._ids[sequence]

    def truncate(self, length: int, sequence: int = 0) -> None:
        """See ``Engine.truncate``."""
        self._ids.truncate(length, sequence)

    def fork(self, source: int, target: int, length: int) -> None:
        """See ``Engine.fork``."""
        self._ids.fork(source, target, length)
        blocks = -(-length // KV_BLOCK)
        if source != target:
            for layer in self._cache:
                layer[target, :, :, :blocks] = layer[source, :, :, :blocks]

    def stretch(self, length: int, sequence: int = 0) -> None:
        """See ``StretchingEngine.stretch``."""
        held = len(self._ids[sequence])
        if held < KV_BLOCK or not held <= length <= self.config.context:
            raise UsageError("There are no {length} positions to keep.", length=length)
        first = -(-held // KV_BLOCK)
        for layer in self._cache:
            layer[sequence, :, :, first : -(-length // KV_BLOCK)] = layer[sequence, :, :, :1]
        self._ids[sequence].extend(self._ids[sequence][:1] * (length - held))

    def close(self) -> None:
        """See ``Engine.close``."""
        self._network, self._run_row = None, run_layers
        self._cache, self._logits = [], torch.empty(0)

    def _open_network(self) -> Qwen3:
        if self._network is None:
            raise UsageError("The engine is closed.")
        return self._network

    @quiet("torch")
    def make_package(self) -> Path:
        """Compiles the layers ahead of time, for ``aot``; see ``torch_package.make_package``."""
        from qwen_edge.engine.torch_package import make_package

        return make_package(self._open_network(), self._cache)

    @quiet("torch")
    def _compile(self, mode: str, watcher: Watcher) -> None:
        """Has single rows run by compiled layers; whatever goes wrong, the eager ones are there."""
        problem = Exception()
        for way in {"auto": ("aot", "on")}.get(mode, (mode,)):
            try:
                self._run_row = self._packaged(watcher) if way == "aot" else self._traced(watcher)
            except Exception as error:  # a compiler may raise anything
                problem = error
            else:
                self.compiled = way
                return
        watcher.warn(
            "torch's compiler does not work here ({reason}); going on without.",
            reason=short_reason(problem),
        )

    def _packaged(self, watcher: Watcher) -> RunLayers:
        from qwen_edge.engine.torch_package import PackagedLayers, find_package

        network = self._open_network()
        path = find_package(network, self._cache)
        if path is not None:
            try:
                return PackagedLayers(network, self._cache, path)
            except (RuntimeError, ArithmeticError):
                # Damaged on the disk, or of a compiler that erred: another one takes its place.
                path.unlink(missing_ok=True)
        watcher.begin("Compiling the model for torch")
        return PackagedLayers(network, self._cache, self.make_package())

    def _traced(self, watcher: Watcher) -> RunLayers:
        from qwen_edge.engine.torch_compile import compile_layers

        watcher.begin("Compiling the model for torch")
        return compile_layers(self._open_network(), self._cache)


def short_reason(error: Exception) -> str:
    """What a compiler says, cut to its first error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first = next((line for line in lines if " error: " in line), lines[0])
    return first.strip()[:200].rstrip(".")


def load_native(watcher: Watcher) -> Any:
    """The operators over the native kernels; raises as ``native_operators`` does."""
    if not is_own(operators_path()):
        watcher.begin("Building the operators for torch")
    return native_operators()


def load_operators(watcher: Watcher) -> Any | None:
    """The operators over the native kernels; None where they cannot be had, which is told."""
    try:
        return load_native(watcher)
    except (CompilerError, OSError) as error:
        watcher.warn(
            "The operators for torch cannot be built ({reason}); slow ones are used.",
            reason=short_reason(error),
        )
        return None


def _operators(config: EngineConfig, watcher: Watcher) -> Any:
    # Beside native operators only additions are left to torch, less work than to share them out;
    # plain ones gain nothing, and their threads wait long for each other where the cores are busy.
    torch.set_num_threads(1)
    operators = load_operators(watcher)
    if operators is None:
        from qwen_edge.model.operators_torch import torch_operators

        return torch_operators()
    threads = usable_threads(config.threads)
    set_threads(threads, config.prefill_threads or threads)
    return operators


def _new_cache(model: PackedModel, config: EngineConfig) -> list[Tensor]:
    """Of each layer, uint8 [sequences, kv_heads, 2, blocks, bytes of a block], all zeros.

    The pages are the kernel's until they are written to: a long context that is not used costs
    nothing.
    """
    shape = model.config
    block = KV_BLOCK * kv_vector_bytes(shape.head_dim, config.kv_type)
    # Compilers make an exception of what there is one of.
    blocks = max(2, -(-config.context // KV_BLOCK))
    sizes = (config.sequences, shape.kv_heads, 2, blocks, block)
    count = torch.Size(sizes).numel()
    try:
        memory = mmap.mmap(-1, shape.layers * count)
    except (OSError, ValueError, OverflowError):
        raise MemoryLimitError(
            "Out of memory: {reason}.",
            "Use a smaller --context, --kv int4, or raise --memory-cap.",
            reason="there is no address space for the KV cache",
        ) from None
    layers = torch.frombuffer(memory, dtype=torch.uint8).view(shape.layers, *sizes)
    return list(layers)
