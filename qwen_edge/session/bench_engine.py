"""Measures an engine: prefill, decoding at a depth, batches, the first token of a loaded model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from qwen_edge.engine.bandwidth import read_bandwidth
from qwen_edge.engine.generate import extend
from qwen_edge.engine.interface import Engine, Row, SamplingParams, StretchingEngine
from qwen_edge.engine.memory_estimate import kv_bytes_per_token
from qwen_edge.engine.sampler import Sampler
from qwen_edge.host.memory_facts import own_memory
from qwen_edge.model.config import EMBEDDING, tensor_shapes
from qwen_edge.model.packed import PackedModel
from qwen_edge.session.bench_plan import BATCH_DEPTH, STRETCHED_FROM, Speed
from qwen_edge.session.bench_result import Part
from qwen_edge.session.plan import Plan

Record = Callable[[str, int | None, float], None]

# The most that is computed for a first impression, and for so many seconds.
_IMPRESSION_TOKENS, _IMPRESSION_SECONDS = 64, 1.5
WARM_UP_STEPS = 2
_IMPRESSION_STEPS = 8
# Token ids that every model has.
_IDS = 199


def bytes_per_token(plan: Plan) -> int:
    """Bytes of weights that a decode step reads: all, the embedding only where it is the head."""
    model, tied = plan.model, plan.model.config.tied
    if not isinstance(model, PackedModel):
        embedding = math.prod(tensor_shapes(model.config)[EMBEDDING])
        unread = 0 if tied else embedding * (4 if plan.choice.floats == "f32" else 2)
        return plan.facts.weight_bytes - unread
    return sum(
        tensor.nbytes
        for name, tensor in model.tensors.items()
        if tensor.type != "u8" and (tied or name != "model.embed_tokens.weight")
    )


def time_prefill(engine: Engine, count: int, poll: Callable[[], object]) -> float:
    """Appends positions to the first sequence as a prompt does; returns the seconds."""
    chunk = engine.config.prefill_rows
    start = time.monotonic()
    for begin in range(0, count, chunk):
        ids = [i % _IDS for i in range(begin, min(begin + chunk, count))]
        extend(engine, ids, 0, wants_logits=begin + chunk >= count)
        poll()
    return time.monotonic() - start


def time_decode(engine: Engine, steps: int, poll: Callable[[], object]) -> float:
    """Appends positions to the first sequence one at a time; returns the seconds."""
    position = len(engine.cached_ids())
    start = time.monotonic()
    for i in range(steps):
        engine.forward([Row(0, position + i, i % _IDS, True)])
        poll()
    return time.monotonic() - start


def time_first_token(engine: Engine, prompt: Sequence[int]) -> float:
    """Seconds that a loaded model takes to the first token of an answer."""
    engine.truncate(0)
    start = time.monotonic()
    chunk = engine.config.prefill_rows
    for begin in range(0, len(prompt), chunk):
        part = prompt[begin : begin + chunk]
        logits = extend(engine, part, 0, wants_logits=begin + chunk >= len(prompt))
    Sampler(engine.vocab_size, SamplingParams(temperature=0)).sample(logits[0])
    return time.monotonic() - start


class EngineBench:
    """Takes samples, one at a time.

    Args:
        engine: its sequences are this object's alone.
        plan: that of the engine.
        cores: of the device, for the processor's share.
        buffer_bytes: of the bandwidth measurement.
        prompt: ids whose answer's first token is timed.
        record: called with key, size and value of each sample.
        poll: called between steps; may raise.
    """

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        *,
        cores: int,
        buffer_bytes: int,
        prompt: Sequence[int],
        record: Record,
        poll: Callable[[], None],
    ) -> None:
        self.prompt = list(prompt)
        self.weight_bytes = bytes_per_token(plan)
        self.stretches = isinstance(engine, StretchingEngine)
        self.position_bytes = kv_bytes_per_token(plan.model.config, engine.config.kv_type)
        self._engine = engine
        self._cores = cores
        self._buffer_bytes = buffer_bytes
        self._record = record
        self._poll = poll

    def first_impression(self, guess: float) -> Speed:
        """Warms the engine up and tells roughly how fast it is.

        Args:
            guess: tokens a second of a short prompt.
        """
        first = int(min(max(guess * _IMPRESSION_SECONDS, STRETCHED_FROM), _IMPRESSION_TOKENS))
        first = min(first, self._engine.config.context - _IMPRESSION_STEPS)
        seconds = self._extend(first)
        decoding = self._decode(_IMPRESSION_STEPS)
        start = time.monotonic()
        read_bandwidth(self._buffer_bytes, self._engine.config.threads)
        return Speed(first / seconds, _IMPRESSION_STEPS / decoding, time.monotonic() - start)

    def sample(self, part: Part, steps: int) -> None:
        """Takes one sample of a part; ``steps`` of decoding."""
        size = part.size or 0
        if part.key == "prefill":
            self._engine.truncate(0)
            self._record(part.key, size, size / self._extend(size))
        elif part.key == "decode":
            self._decode_at(size, steps)
        elif part.key == "batch":
            self._batch(size, max(steps // 2, 1))
        else:
            self._first_token()

    def _decode_at(self, depth: int, steps: int) -> None:
        self._reach(depth)
        before = self._bandwidth()
        self._decode(WARM_UP_STEPS)
        processor = time.process_time()
        seconds = self._decode(steps)
        processor = time.process_time() - processor
        rate = steps / seconds
        bandwidth = (before + self._bandwidth()) / 2
        read = self.weight_bytes + (depth + steps / 2) * self.position_bytes
        self._record("decode", depth, rate)
        self._record("decode-share", depth, 100 * rate * read / bandwidth)
        if depth == 0:
            self._record("processor-share", None, 100 * processor / seconds / self._cores)
        memory = own_memory()
        if memory.anonymous is not None and memory.file is not None:
            self._record("memory-at-depth", depth, memory.anonymous + memory.file)
        self._engine.truncate(depth)

    def _bandwidth(self) -> float:
        found = read_bandwidth(self._buffer_bytes, self._engine.config.threads)
        self._record("bandwidth", None, found)
        self._poll()
        return found

    def _reach(self, depth: int) -> None:
        """Makes the first sequence ``depth`` long; most of it are copies where that is possible."""
        held = len(self._engine.cached_ids())
        if depth < held:
            self._engine.truncate(depth)
            return
        engine = self._engine
        first = min(STRETCHED_FROM, depth) if isinstance(engine, StretchingEngine) else depth
        if held < first:
            self._extend(first - held)
        if depth > first and isinstance(engine, StretchingEngine):
            engine.stretch(depth)

    def _extend(self, count: int) -> float:
        return time_prefill(self._engine, count, self._poll)

    def _decode(self, steps: int) -> float:
        return time_decode(self._engine, steps, self._poll)

    def _batch(self, sequences: int, steps: int) -> None:
        engine = self._engine
        engine.truncate(0)
        self._extend(BATCH_DEPTH)
        for other in range(1, sequences):
            engine.fork(0, other, BATCH_DEPTH)
        try:
            # The first step is not counted.
            start = 0.0
            for i in range(steps + 1):
                if i == 1:
                    start = time.monotonic()
                engine.forward([Row(s, BATCH_DEPTH + i, i, True) for s in range(sequences)])
                self._poll()
            self._record("batch", sequences, sequences * steps / (time.monotonic() - start))
        finally:
            for other in range(1, sequences):
                engine.truncate(0, other)

    def _first_token(self) -> None:
        self._record("first-token-warm", None, time_first_token(self._engine, self.prompt))
