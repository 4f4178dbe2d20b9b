"""qwen-edge as a measured system: ``python -m benchmarks.peers.serve_qwen_edge``.

Every figure is seconds of calls to the engine, its Python part included. Tokens are arbitrary:
the time does not depend on them.
"""

from __future__ import annotations

import array
import ctypes
import time
from pathlib import Path

from benchmarks.peers.pipe import serve
from qwen_edge.engine.interface import EngineConfig, Row, SamplingParams
from qwen_edge.engine.memory_estimate import kv_bytes_per_token
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.sampler import Sampler
from qwen_edge.model.config import EMBEDDING
from qwen_edge.model.packed import open_model
from qwen_edge.native.instruction_sets import isa_name


class Handlers:
    """The requests; one engine at a time."""

    def __init__(self) -> None:
        self.engine: NativeEngine | None = None

    def open(
        self, model: str, context: int, threads: int, kv: str = "int8", sequences: int = 1
    ) -> dict[str, object]:
        """Opens the model; returns seconds and what is in use."""
        start = time.perf_counter()
        self.model = open_model(Path(model))
        config = EngineConfig(context=context, kv_type=kv, threads=threads, sequences=sequences)
        self.engine = NativeEngine(self.model, config)
        matrices = [t for t in self.model.tensors.values() if t.type in ("q4", "q8")]
        return {
            "seconds": time.perf_counter() - start,
            "isa": isa_name(),
            "weight_bytes": sum(t.nbytes for t in matrices),
            # Those that a prefill multiplies with: the head is for its last token alone.
            "linear_weights": sum(t.rows * t.cols for t in matrices if t.name != EMBEDDING),
            "kv_bytes_per_token": kv_bytes_per_token(self.model.config, kv),
        }

    def _prefill(self, tokens: int, sequence: int = 0) -> None:
        assert self.engine is not None
        begin = len(self.engine.cached_ids(sequence))
        step = self.engine.config.prefill_rows
        for first in range(begin, tokens, step):
            rows = range(first, min(first + step, tokens))
            self.engine.forward([Row(sequence, i, 11 + i % 199, i == tokens - 1) for i in rows])

    def prefill(self, tokens: int) -> float:
        """Seconds of a prompt of so many tokens, from an empty cache."""
        assert self.engine is not None
        self.engine.truncate(0)
        start = time.perf_counter()
        self._prefill(tokens)
        return time.perf_counter() - start

    def fill(self, depth: int) -> None:
        """Makes the cache hold exactly ``depth`` tokens; not a measurement."""
        assert self.engine is not None
        self.engine.truncate(min(depth, len(self.engine.cached_ids())))
        self._prefill(depth)

    def decode(self, depth: int, tokens: int) -> float:
        """Seconds of ``tokens`` steps of one row with logits, after ``depth`` tokens."""
        assert self.engine is not None
        self.fill(depth)
        start = time.perf_counter()
        for i in range(tokens):
            self.engine.forward([Row(0, depth + i, 11 + i, True)])
        return time.perf_counter() - start

    def batch(self, sequences: int, tokens: int) -> float:
        """Seconds of ``tokens`` steps, each with a row of every sequence, from 1 token each."""
        assert self.engine is not None
        for s in range(sequences):
            self.engine.truncate(0, s)
            self.engine.forward([Row(s, 0, 11, False)])
        start = time.perf_counter()
        for i in range(tokens):
            self.engine.forward([Row(s, 1 + i, 11 + i, True) for s in range(sequences)])
        return time.perf_counter() - start

    def sample(self, draws: int) -> float:
        """Seconds a draw with top-k 20 and top-p 0.95 from the logits of one step."""
        assert self.engine is not None
        self.engine.truncate(0)
        logits = self.engine.forward([Row(0, 0, 11, True)])[0]
        sampler = Sampler(self.engine.vocab_size, SamplingParams(0.6, 20, 0.95, seed=1))
        start = time.perf_counter()
        for _ in range(draws):
            sampler.sample(logits)
        return (time.perf_counter() - start) / draws

    def logits(self, ids: list[int], output: str) -> None:
        """Writes the fp32 logits of every position, [len(ids), vocab], to a file."""
        assert self.engine is not None
        self.engine.truncate(0)
        with open(output, "wb") as file:
            for i, token in enumerate(ids):
                found = self.engine.forward([Row(0, i, token, True)])[0]
                row = (ctypes.c_float * found.size).from_address(found.address)
                file.write(array.array("f", row).tobytes())


if __name__ == "__main__":
    handlers = Handlers()
    names = ("open", "prefill", "fill", "decode", "batch", "sample", "logits")
    serve({name: getattr(handlers, name) for name in names})
