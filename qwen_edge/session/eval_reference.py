"""A file of one model's predictions of a text, to hold others against it.

A header of 64 bytes (magic, version, numbers, two checksums), then the token ids as uint32, a JSON
text that says what the predictions come from, padding to 64 bytes, and a block for each call of
``Judge.judge``: of each of its rows the log probability of the token that came (float64), the most
likely id and nothing (uint32); then the packed rows as ``engine/scoring.py`` has them, 2 bytes for
each id of the vocabulary; then the block's checksum. All little-endian. Which rows a block holds
follows from the windows and the rows of a call, which the header gives, and so does the size of the
file to the byte. Nothing is taken from it before it was checked.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import stat
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from qwen_edge.engine.interface import Logits
from qwen_edge.engine.scoring import CODE_BYTES, RANGE_BYTES, PackedRows, RowScore
from qwen_edge.errors import UsageError
from qwen_edge.model.replacing_file import ReplacingFile
from qwen_edge.native.checksum import checksum, checksum_at
from qwen_edge.session.eval_models import logit_rows
from qwen_edge.session.eval_text import Judged, Text
from qwen_edge.session.eval_windows import Window, plan_windows, scored_tokens

MAGIC = b"qedge-lp"
VERSION = 1
# Magic, version, vocabulary, tokens, context, stride (0 for halves), windows, rows of a call, bytes
# of the JSON text, identity of the vocabulary, checksum of the tables; then the checksum of that.
_NUMBERS = struct.Struct("<8s8IQQ")
_HEADER_BYTES = _NUMBERS.size + 8
_SCORE = struct.Struct("<dII")
_ALIGNMENT = 64
_LARGEST = 1 << 24
_LONGEST_ABOUT = 4096
_PIECE = 1 << 20


def _block_bytes(rows: int, vocab: int) -> int:
    return rows * (_SCORE.size + RANGE_BYTES + CODE_BYTES * vocab) + 8


def _tables_end(tokens: int, about: int) -> int:
    end = _HEADER_BYTES + 4 * tokens + about
    return -(-end // _ALIGNMENT) * _ALIGNMENT


def _block_rows(window: Window, rows: int) -> list[int]:
    """Rows of the blocks that hold a window."""
    scored = window.end - window.scored
    return [min(rows, scored - begin) for begin in range(0, scored, rows)]


def _file_bytes(start: int, windows: Sequence[Window], rows: int, vocab: int) -> int:
    blocks = sum(-(-(window.end - window.scored) // rows) for window in windows)
    return start + scored_tokens(windows) * (_block_bytes(1, vocab) - 8) + 8 * blocks


def _block_checksum(scores: bytes, packed: memoryview) -> int:
    address = ctypes.addressof(ctypes.c_uint8.from_buffer(packed))
    return checksum_at(address, len(packed), checksum(scores))


class ReferenceWriter:
    """Writes a reference; use it as a context manager, and ``finish`` to make the file appear.

    Args:
        path: the file; what is there is replaced in the end.
        text: what is predicted.
        vocab: ids in a row.
        identity: of the vocabulary, ``Words.identity``.
        about: what predicts, in plain types.
        threads: that pack rows.

    Raises:
        QwenEdgeError: it cannot be written, or there is not enough space for all of it.
    """

    def __init__(
        self,
        path: Path,
        text: Text,
        vocab: int,
        identity: int,
        about: Mapping[str, object],
        threads: int = 1,
    ) -> None:
        self._threads = threads
        rows = logit_rows(vocab)
        named = json.dumps(dict(about), ensure_ascii=False).encode()
        self._offset = _tables_end(len(text.ids), len(named))
        self._size = _file_bytes(self._offset, text.windows, rows, vocab)
        tables = array("I", text.ids).tobytes() + named
        tables = tables.ljust(self._offset - _HEADER_BYTES, b"\0")
        numbers = _NUMBERS.pack(
            MAGIC, VERSION, vocab, len(text.ids), text.context, text.stride or 0,
            len(text.windows), rows, len(named), identity, checksum(tables),
        )  # fmt: skip
        self._head = numbers + struct.pack("<Q", checksum(numbers)) + tables
        self._packed = PackedRows(rows, vocab)
        self._file = ReplacingFile(path, self._size)

    def __enter__(self) -> ReferenceWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(None, None, None)

    def write(self, judged: Judged) -> None:
        """Writes the next rows.

        Raises:
            QwenEdgeError: the disk is full, or fails.
        """
        scores = b"".join(_SCORE.pack(score.logprob, score.top, 0) for score in judged.scores)
        packed = self._packed.pack(judged.rows, self._threads)
        parts = scores, packed, struct.pack("<Q", _block_checksum(scores, packed))
        for part in parts:
            self._file.write(part, self._offset)
            self._offset += len(part)

    def finish(self) -> None:
        """Writes the beginning, and gives the file its name.

        Raises:
            QwenEdgeError: the disk fails.
        """
        if self._offset != self._size:
            raise ValueError("not all rows were written")
        self._file.write(self._head, 0)
        self._file.commit(lambda path: None)


class _DamagedError(Exception):
    """What is wrong with a file."""


class Reference:
    """A reference, open for reading; use it as a context manager.

    Args:
        path: the file.
        vocab: ids in a row of the model that is compared with it.
        identity: of its vocabulary, ``Words.identity``.
        limit: the most windows that are used.

    Attributes:
        text: what is predicted.
        about: what predicted it, for people.

    Raises:
        UsageError: it cannot be read, is damaged or something else, or of another vocabulary.
    """

    def __init__(self, path: Path, vocab: int, identity: int, limit: int | None = None) -> None:
        self.path = path
        self._vocab = vocab
        try:
            # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None
        try:
            with self._told():
                self._open(identity, limit)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def judge(self, text: Text, window: Window) -> Iterator[Judged]:
        """See ``Judge.judge``; windows come in their order.

        Raises:
            UsageError: the file is damaged or cannot be read.
        """
        for rows in _block_rows(window, self._rows):
            with self._told():
                scores, logits = self._block(rows)
            yield Judged(logits, scores)

    def _open(self, identity: int, limit: int | None) -> None:
        facts = os.fstat(self._descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size < _HEADER_BYTES:
            raise _foreign(self.path)
        header = self._read(0, _HEADER_BYTES)
        (magic, version, vocab, tokens, context, stride, count, rows, about, theirs, tables) = (
            _NUMBERS.unpack_from(header)
        )
        if magic != MAGIC:
            raise _foreign(self.path)
        if version != VERSION:
            raise UsageError(
                "The reference {path} has version {found}, this program reads {known}.",
                "Write it again with --save-reference.",
                path=self.path, found=version, known=VERSION,
            )  # fmt: skip
        if struct.unpack_from("<Q", header, _NUMBERS.size) != (checksum(header[: _NUMBERS.size]),):
            raise _DamagedError
        if (vocab, theirs) != (self._vocab, identity):
            raise UsageError(
                "The reference {path} is of a model with another vocabulary.",
                "Only models that share their vocabulary can be compared.",
                path=self.path,
            )
        self._check_numbers(facts.st_size, tokens, context, stride, rows, about)
        windows = plan_windows(tokens, context, stride or None)
        self._offset = _tables_end(tokens, about)
        if (
            len(windows) != count
            or windows[-1].end != tokens
            or _file_bytes(self._offset, windows, rows, vocab) != facts.st_size
        ):
            raise _DamagedError
        self._rows = rows
        self._packed = PackedRows(rows, vocab)
        ids = self._tables(tokens, about, tables)
        windows = windows[:limit]
        self.text = Text(ids[: windows[-1].end], windows, context, stride or None)

    def _check_numbers(
        self, size: int, tokens: int, context: int, stride: int, rows: int, about: int
    ) -> None:
        """Bounds all numbers, so that nothing large is made of a small file."""
        scored = tokens - 1 if stride else tokens // max(context, 1) * (context - context // 2 - 1)
        if (
            not 4 <= context <= _LARGEST
            or not 2 <= tokens <= _LARGEST
            or (not stride and tokens < context)
            or stride > context
            or about > _LONGEST_ABOUT
            or rows != logit_rows(self._vocab)
            or scored * CODE_BYTES * self._vocab > size
        ):
            raise _DamagedError

    def _tables(self, tokens: int, about: int, expected: int) -> Sequence[int]:
        data = self._read(_HEADER_BYTES, self._offset - _HEADER_BYTES)
        if checksum(data) != expected:
            raise _DamagedError
        ids = struct.unpack_from(f"<{tokens}I", data)
        if max(ids) >= self._vocab:
            raise _DamagedError
        try:
            found = json.loads(data[4 * tokens : 4 * tokens + about])
        except (ValueError, RecursionError):
            raise _DamagedError from None
        if not isinstance(found, dict):
            raise _DamagedError
        self.about = {str(key): str(value) for key, value in found.items()}
        return array("i", ids)

    def _block(self, rows: int) -> tuple[list[RowScore], list[Logits]]:
        block = self._read(self._offset, rows * _SCORE.size)
        packed = self._packed.view(rows)
        self._read_into(packed, self._offset + len(block))
        self._offset += len(block) + len(packed) + 8
        if self._read(self._offset - 8, 8) != struct.pack("<Q", _block_checksum(block, packed)):
            raise _DamagedError
        scores = [RowScore(logprob, top) for logprob, top, _ in _SCORE.iter_unpack(block)]
        ranges = struct.unpack_from(f"<{2 * rows}f", packed)
        if not all(map(math.isfinite, [*ranges, *(score.logprob for score in scores)])):
            raise _DamagedError
        return scores, self._packed.unpack(rows)

    def _read(self, offset: int, size: int) -> bytes:
        data = bytearray(size)
        self._read_into(memoryview(data), offset)
        return bytes(data)

    def _read_into(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            piece = os.pread(self._descriptor, min(len(view) - done, _PIECE), offset + done)
            if not piece:
                raise _DamagedError
            view[done : done + len(piece)] = piece
            done += len(piece)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what is wrong with the file into what a user is told."""
        try:
            yield
        except _DamagedError:
            raise UsageError(
                "The reference {path} is damaged.",
                "Write it again with --save-reference.",
                path=self.path,
            ) from None
        except OSError as error:
            raise _unreadable(self.path, error) from None


def _foreign(path: Path) -> UsageError:
    return UsageError(
        "{path} is not a reference of this program.",
        "Write one with --save-reference.",
        path=path,
    )


def _unreadable(path: Path, error: Exception) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) else None
    return UsageError(
        "The reference {path} cannot be read: {reason}.", path=path, reason=reason or error
    )
