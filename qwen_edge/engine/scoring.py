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


def pack_rows(rows: Sequence[Logits], threads: int = 1) -> bytes:
    """The rows' log probabilities in 16 bits each.

    A code stands for ``lowest + code * step``, where lowest and step are fp32 numbers of the row:
    65,536 even steps from its least to its greatest log probability, so that each is off by half a
    step at most, some 0.0003 nats.

    Returns:
        lowest and step of every row, then the uint16 codes [rows, vocab]; all little-endian.

    Raises:
        DamagedModelError: the logits are not numbers.
    """
    n, vocab = len(rows), rows[0].size
    ranges, codes = (ctypes.c_float * (2 * n))(), (ctypes.c_uint16 * (n * vocab))()
    check(_library().qe_pack_rows(_addresses(rows), n, vocab, threads, ranges, codes))
    return bytes(ranges) + bytes(codes)


class UnpackedRows:
    """Packed rows as logits again.

    Args:
        data: what ``pack_rows`` made of ``n`` rows.
        n: how many.
        vocab: ids in a row.
        threads: that share the rows.

    Attributes:
        rows: valid as long as this object.

    Raises:
        ValueError: the data are of another size.
    """

    def __init__(self, data: bytes, n: int, vocab: int, threads: int = 1) -> None:
        if len(data) != n * (RANGE_BYTES + CODE_BYTES * vocab):
            raise ValueError("packed rows of another size")
        self._values = (ctypes.c_float * (n * vocab))()
        # A bytes object stands still at a multiple of 8, and so do the codes behind the ranges.
        held = ctypes.c_char_p(data)
        address = ctypes.cast(held, ctypes.c_void_p).value or 0
        check(
            _library().qe_unpack_rows(
                address, address + n * RANGE_BYTES, n, vocab, threads, self._values
            )
        )
        start = ctypes.addressof(self._values)
        self.rows = [Logits(start + 4 * i * vocab, vocab) for i in range(n)]
