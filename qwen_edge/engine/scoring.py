"""How well logits predict: log probabilities, divergences, and rows packed for a file.

All sums are taken in double by native/scoring.cpp, each row's by one thread: the figures are the
same whatever the number of threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from qwen_edge.engine.interface import Logits
from qwen_edge.errors import UsageError
from qwen_edge.native.library import check, load

RANGE_BYTES, CODE_BYTES = 8, 2
"""Bytes of a packed row: its range once, and a code for each id of the vocabulary."""


class RowScore(NamedTuple):
    """What one row of logits says.

    Attributes:
        logprob: natural log probability of the token asked for.
        top: the most likely id.
    """

    logprob: float
    top: int


@cache
def _library() -> ctypes.CDLL:
    library = load()
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    library.qe_score_rows.argtypes = [
        pointer, integer, integer, pointer, integer, pointer, pointer,
    ]  # fmt: skip
    library.qe_compare_rows.argtypes = [pointer, pointer, integer, integer, integer, pointer]
    library.qe_pack_rows.argtypes = [pointer, integer, integer, integer, pointer, pointer]
    library.qe_unpack_rows.argtypes = [pointer, pointer, integer, integer, integer, pointer]
    return library


def _addresses(rows: Sequence[Logits]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(rows))(*(row.address for row in rows))


def score_rows(rows: Sequence[Logits], tokens: Sequence[int], threads: int = 1) -> list[RowScore]:
    """Judges rows of logits.

    Args:
        rows: of one vocabulary.
        tokens: one id for each row, whose probability is asked for.
        threads: that share the rows.

    Raises:
        DamagedModelError: the logits are not numbers.
        UsageError: an id is out of range.
    """
    n = len(rows)
    if n != len(tokens):
        raise ValueError("one token for each row")
    if not n:
        return []
    logprobs, top = (ctypes.c_double * n)(), (ctypes.c_int32 * n)()
    check(
        _library().qe_score_rows(
            _addresses(rows), n, rows[0].size, (ctypes.c_int32 * n)(*tokens), threads, logprobs, top
        )
    )
    return [RowScore(logprobs[i], top[i]) for i in range(n)]


def divergences(truth: Sequence[Logits], rows: Sequence[Logits], threads: int = 1) -> list[float]:
    """The Kullback-Leibler divergence, in nats, of each row from the row of ``truth`` beside it.

    Raises:
        DamagedModelError: the logits are not numbers.
        UsageError: the vocabularies differ.
    """
    n = len(rows)
    if n != len(truth):
        raise ValueError("as many rows as rows of truth")
    if not n:
        return []
    if truth[0].size != rows[0].size:
        raise UsageError("The vocabularies differ.")
    found = (ctypes.c_double * n)()
    check(
        _library().qe_compare_rows(
            _addresses(truth), _addresses(rows), n, rows[0].size, threads, found
        )
    )
    return list(found)


class PackedRows:
    """Rows of log probabilities in 16 bits each, in memory that is used again and again.

    Packed rows are the fp32 numbers ``lowest`` and ``step`` of every row, then the uint16 codes
    [rows, vocab], all little-endian. A code stands for ``lowest + code * step``: 65,536 even steps
    from a row's least to its greatest log probability, so that each is off by half a step at most,
    some 0.0003 nats.

    Args:
        most: rows at a time.
        vocab: ids in a row.
    """

    def __init__(self, most: int, vocab: int) -> None:
        self._vocab = vocab
        self._most = most
        self._packed = (ctypes.c_uint8 * self.size(most))()
        self._values: ctypes.Array[ctypes.c_float] | None = None

    def size(self, n: int) -> int:
        """Bytes of ``n`` packed rows."""
        return n * (RANGE_BYTES + CODE_BYTES * self._vocab)

    def view(self, n: int) -> memoryview:
        """The bytes of ``n`` packed rows, to read or to fill."""
        if not 0 < n <= self._most:
            raise ValueError("more rows than there is room for")
        return memoryview(self._packed).cast("B")[: self.size(n)]

    def pack(self, rows: Sequence[Logits], threads: int = 1) -> memoryview:
        """Packs rows of logits.

        Returns:
            Their bytes, valid until the next call.

        Raises:
            DamagedModelError: the logits are not numbers.
        """
        view = self.view(len(rows))
        check(
            _library().qe_pack_rows(
                _addresses(rows), len(rows), self._vocab, threads, *self._addresses_of(len(rows))
            )
        )
        return view

    def unpack(self, n: int, threads: int = 1) -> list[Logits]:
        """The rows that the first bytes of ``view`` stand for, valid until the next call."""
        self.view(n)
        if self._values is None:
            self._values = (ctypes.c_float * (self._most * self._vocab))()
        check(
            _library().qe_unpack_rows(*self._addresses_of(n), n, self._vocab, threads, self._values)
        )
        start = ctypes.addressof(self._values)
        return [Logits(start + 4 * i * self._vocab, self._vocab) for i in range(n)]

    def _addresses_of(self, n: int) -> tuple[int, int]:
        """Where the ranges and the codes of ``n`` rows lie."""
        start = ctypes.addressof(self._packed)
        return start, start + n * RANGE_BYTES
