"""A file of one model's predictions of a text, to hold others against it: its layout.

A header of 64 bytes (magic, version, numbers, two checksums), then the token ids as uint32, a JSON
text that says what the predictions come from, padding to 64 bytes, and a block for each call of
``Judge.judge``: of each of its rows the log probability of the token that came (float64), the most
likely id and nothing (uint32); then the packed rows as ``engine/scoring.py`` has them, 2 bytes for
each id of the vocabulary; then the block's checksum. All little-endian. Which rows a block holds
follows from the windows and the rows of a call, which the header gives, and so does the size of the
file to the byte. Nothing is taken from it before it was checked.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

from qwen_edge.engine.scoring import CODE_BYTES, RANGE_BYTES
from qwen_edge.native.checksum import checksum, checksum_at
from qwen_edge.session.eval_windows import Window, scored_tokens

MAGIC = b"qedge-lp"
VERSION = 1
# Magic, version, vocabulary, tokens, context, stride (0 for halves), windows, rows of a call, bytes
# of the JSON text, identity of the vocabulary, checksum of the tables; then the checksum of that.
NUMBERS = struct.Struct("<8s8IQQ")
HEADER_BYTES = NUMBERS.size + 8
SCORE = struct.Struct("<dII")
_ALIGNMENT = 64


def _block_bytes(rows: int, vocab: int) -> int:
    """Size of a block."""
    return rows * (SCORE.size + RANGE_BYTES + CODE_BYTES * vocab) + 8


def tables_end(tokens: int, about: int) -> int:
    """Offset of the first block, behind so many ids and bytes of the JSON text."""
    end = HEADER_BYTES + 4 * tokens + about
    return -(-end // _ALIGNMENT) * _ALIGNMENT


def block_rows(window: Window, rows: int) -> list[int]:
    """Rows of the blocks that hold a window."""
    scored = window.end - window.scored
    return [min(rows, scored - begin) for begin in range(0, scored, rows)]


def file_bytes(start: int, windows: Sequence[Window], rows: int, vocab: int) -> int:
    """Size of the whole file, whose blocks begin at ``start``."""
    blocks = sum(-(-(window.end - window.scored) // rows) for window in windows)
    return start + scored_tokens(windows) * (_block_bytes(1, vocab) - 8) + 8 * blocks


def block_checksum(scores: bytes, packed: memoryview) -> int:
    """Checksum of a block of these parts."""
    address = ctypes.addressof(ctypes.c_uint8.from_buffer(packed))
    return checksum_at(address, len(packed), checksum(scores))
