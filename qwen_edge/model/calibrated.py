"""Walks through a model layer by layer, so that each matrix is quantized for the inputs it gets.

The inputs are those of a calibration text, computed in fp32 with the matrices before as they are
once quantized. In memory are the text's hidden states, one layer's quantized matrices, and the
second moments of one matrix's inputs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from qwen_edge.model.config import EMBEDDING, HEAD, ModelConfig
from qwen_edge.model.source import Source
from qwen_edge.quant import layer_rows
from qwen_edge.quant.error_compensation import DAMPING
from qwen_edge.quant.layer_rows import AttentionShape, Floats, floats
from qwen_edge.quant.layout import Layout
from qwen_edge.quant.methods import Guide, inputs
from qwen_edge.quant.packing import dequantize

MOST_TOKENS = 8192
"""Of a calibration text: more cost memory and time and change little."""
_LENGTH = 512  # Positions of a sequence.
_CHUNK = 2 * _LENGTH  # Rows that pass through a layer at a time.
# A tied embedding is looked up as well, which wants rows close to what they were.
_TIED_DAMPING = 1.0
# Interpreter, library, and the slices of source and output that are at work.
_BASE_BYTES = 64 << 20


@dataclass(frozen=True)
class Stored:
    """A tensor as it was written, and its bytes."""

    layout: Layout
    data: bytearray

    @property
    def array(self) -> ctypes.Array[ctypes.c_ubyte]:
        """The bytes as the native functions take them."""
        return (ctypes.c_ubyte * len(self.data)).from_buffer(self.data)


Store = Callable[[str, Guide | None, bool], Stored | None]
"""Quantizes and writes a tensor by name, with a guide; gives its bytes back if the last is true."""


def walk(
    source: Source,
    ids: Sequence[int],
    method: str,
    rounded: Collection[str],
    store: Store,
    threads: int = 0,
) -> None:
    """Has every tensor of a source stored, each once.

    Args:
        source: an open model.
        ids: token ids of the calibration text; the first ``MOST_TOKENS`` count.
        method: ``aware`` or ``gptq``.
        rounded: the matrices that need a guide, by name.
        store: does the writing.
        threads: 0 for all cores.
    """
    _Walk(source, list(ids[:MOST_TOKENS]), method, rounded, store, threads).run()


def _at(array: Floats, row: int, cols: int) -> int:
    return ctypes.addressof(array) + ctypes.sizeof(ctypes.c_float) * row * cols


def _full(name: str) -> str:
    return f"{name}.weight"


def method_within(memory: int | None, config: ModelConfig, method: str, tokens: int) -> str:
    """The method, or the best of those that take less where it takes more than ``memory``."""
    for each in (method, "aware"):
        if memory is None or walk_bytes(config, each, tokens) <= memory:
            return each
    return "nearest"


def walk_bytes(config: ModelConfig, method: str, tokens: int) -> int:
    """About the most that a conversion holds at a time, the interpreter and pages included.

    Args:
        config: of the model.
        method: ``aware`` or ``gptq``.
        tokens: of the calibration text.
    """
    c, n = config, min(tokens, MOST_TOKENS)
    inner = max(c.heads * c.head_dim, c.intermediate_size)
    rows = n * (c.hidden_size + inner) + _CHUNK * (c.hidden_size + c.intermediate_size)
    # Second moments of the widest inputs, and half as many factors; in their place, squares.
    widest = max(inner, c.hidden_size)
    guide = widest * (widest + widest // 2) if method == "gptq" else widest
    # Of a layer, the quantized matrices that are in use together: gate and up, a byte a weight.
    matrices = 2 * c.intermediate_size * c.hidden_size
    return 4 * (rows + guide) + matrices + _BASE_BYTES


class _Walk:
    def __init__(
        self,
        source: Source,
        ids: list[int],
        method: str,
        rounded: Collection[str],
        store: Store,
        threads: int,
    ) -> None:
        c = source.config
        self.source, self.config, self.method, self.threads = source, c, method, threads
        self.rounded, self.store, self.n = rounded, store, len(ids)
        self.wide = c.heads * c.head_dim
        self.hidden = self.embedded(ids)
        # Inputs of o_proj, then of down_proj.
        self.inner = floats(self.n * max(self.wide, c.intermediate_size))
        self.normed = floats(_CHUNK * c.hidden_size)

    def embedded(self, ids: list[int]) -> Floats:
        """The rows of the embedding, not yet quantized: its own guide comes last."""
        cols = self.config.hidden_size
        hidden, tensor = floats(len(ids) * cols), self.source.tensors[EMBEDDING]
        for row, token in enumerate(ids):
            found = tensor.floats(token, 1)
            dequantize(Layout(found.type, 1, cols), found.data, _at(hidden, row, cols), 1)
        tensor.release(0, tensor.rows)
        return hidden

    def run(self) -> None:
        for layer in range(self.config.layers):
            self.attention(f"model.layers.{layer}.")
            self.feed_forward(f"model.layers.{layer}.")
        norm, tied = self.kept("model.norm"), self.config.tied
        head = EMBEDDING if tied else HEAD
        guide = self.guide_of_normed(norm, (head,), _TIED_DAMPING if tied else DAMPING)
        self.store(head, guide, False)
        if not tied:
            self.store(EMBEDDING, None, False)

    def chunks(self) -> Iterator[tuple[int, int]]:
        for begin in range(0, self.n, _CHUNK):
            yield begin, min(_CHUNK, self.n - begin)

    def guide(
        self,
        names: Sequence[str],
        cols: int,
        rows: Callable[[int, int], Floats | int],
        damping: float = DAMPING,
    ) -> Guide | None:
        """For the named matrices, whose inputs [count, cols] ``rows`` gives chunk by chunk."""
        if not any(name in self.rounded for name in names):
            return None
        collected = inputs(self.method, cols, self.threads)
        for begin, count in self.chunks():
            collected.add(rows(begin, count), count)
        return collected.guide(damping)

    def guide_of_normed(
        self, norm: Stored, names: Sequence[str], damping: float = DAMPING
    ) -> Guide | None:
        def rows(begin: int, count: int) -> Floats:
            return self.normalized(norm, begin, count)

        return self.guide(names, self.config.hidden_size, rows, damping)

    def kept(self, name: str, guide: Guide | None = None) -> Stored:
        stored = self.store(_full(name), guide, True)
        assert stored is not None
        return stored

    def normalized(self, norm: Stored, begin: int, count: int) -> Floats:
        c = self.config
        rows = _at(self.hidden, begin, c.hidden_size)
        layer_rows.norm(
            rows, norm.array, count, c.hidden_size, c.rms_norm_eps, self.normed, self.threads
        )
        return self.normed

    def multiply(
        self, matrix: Stored, rows: Floats | int, count: int, out: Floats | int, add: bool = False
    ) -> None:
        layer_rows.linear(
            matrix.layout, matrix.array, rows, count, out, add=add, threads=self.threads
        )

    def add_output(self, name: str, cols: int) -> None:
        """Quantizes the matrix that takes ``inner`` [n, cols]; adds its product to ``hidden``."""
        guide = self.guide((_full(name),), cols, lambda begin, _: _at(self.inner, begin, cols))
        matrix = self.kept(name, guide)
        del guide
        for begin, count in self.chunks():
            hidden = _at(self.hidden, begin, self.config.hidden_size)
            self.multiply(matrix, _at(self.inner, begin, cols), count, hidden, add=True)

    def attention(self, prefix: str) -> None:
        c = self.config
        norm = self.kept(prefix + "input_layernorm")
        names = [f"{prefix}self_attn.{part}_proj" for part in ("q", "k", "v")]
        guide = self.guide_of_normed(norm, [_full(name) for name in names])
        query, key, value = (self.kept(name, guide) for name in names)
        del guide
        query_norm, key_norm = (self.kept(f"{prefix}self_attn.{part}_norm") for part in ("q", "k"))
        shape = AttentionShape(
            c.heads, c.kv_heads, c.head_dim, _LENGTH, c.rms_norm_eps, c.rope_theta
        )
        queries = floats(_CHUNK * self.wide)
        keys, values = (floats(_CHUNK * c.kv_heads * c.head_dim) for _ in range(2))
        for begin, count in self.chunks():
            rows = self.normalized(norm, begin, count)
            for matrix, out in ((query, queries), (key, keys), (value, values)):
                self.multiply(matrix, rows, count, out)
            layer_rows.attention(
                shape,
                count,
                queries,
                keys,
                values,
                query_norm.array,
                key_norm.array,
                _at(self.inner, begin, self.wide),
                self.threads,
            )
        del queries, keys, values
        self.add_output(prefix + "self_attn.o_proj", self.wide)

    def feed_forward(self, prefix: str) -> None:
        cols = self.config.intermediate_size
        norm = self.kept(prefix + "post_attention_layernorm")
        names = [f"{prefix}mlp.{part}_proj" for part in ("gate", "up")]
        guide = self.guide_of_normed(norm, [_full(name) for name in names])
        gate, up = (self.kept(name, guide) for name in names)
        del guide
        raised = floats(_CHUNK * cols)
        for begin, count in self.chunks():
            rows, inner = self.normalized(norm, begin, count), _at(self.inner, begin, cols)
            self.multiply(gate, rows, count, inner)
            self.multiply(up, rows, count, raised)
            layer_rows.silu(inner, raised, count, cols, inner, self.threads)
        del raised
        self.add_output(prefix + "mlp.down_proj", cols)
