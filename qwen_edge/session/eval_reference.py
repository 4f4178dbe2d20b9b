"""Reads references, checking everything first; eval_reference_format.py says what they are."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen_edge.engine.interface import Logits
from qwen_edge.engine.scoring import CODE_BYTES, PackedRows, RowScore
from qwen_edge.errors import UsageError
from qwen_edge.model.closing import Closing
from qwen_edge.native.checksum import checksum
from qwen_edge.session.eval_models import logit_rows
from qwen_edge.session.eval_reference_format import (
    HEADER_BYTES,
    MAGIC,
    NUMBERS,
    SCORE,
    VERSION,
    block_checksum,
    block_rows,
    file_bytes,
    tables_end,
)
from qwen_edge.session.eval_text import Judged, Text
from qwen_edge.session.eval_windows import Window, plan_windows

_LARGEST = 1 << 24
_LONGEST_ABOUT = 4096
_PIECE = 1 << 20


class _DamagedError(Exception):
    """What is wrong with a file."""


class Reference(Closing):
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

    def judge(self, text: Text, window: Window) -> Iterator[Judged]:
        """See ``Judge.judge``; windows come in their order.

        Raises:
            UsageError: the file is damaged or cannot be read.
        """
        for rows in block_rows(window, self._rows):
            with self._told():
                scores, logits = self._block(rows)
            yield Judged(logits, scores)

    def _open(self, identity: int, limit: int | None) -> None:
        facts = os.fstat(self._descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size < HEADER_BYTES:
            raise _foreign(self.path)
        header = self._read(0, HEADER_BYTES)
        (magic, version, vocab, tokens, context, stride, count, rows, about, theirs, tables) = (
            NUMBERS.unpack_from(header)
        )
        if magic != MAGIC:
            raise _foreign(self.path)
        if version != VERSION:
            raise UsageError(
                "The reference {path} has version {found}, this program reads {known}.",
                "Write it again with --save-reference.",
                path=self.path, found=version, known=VERSION,
            )  # fmt: skip
        if struct.unpack_from("<Q", header, NUMBERS.size) != (checksum(header[: NUMBERS.size]),):
            raise _DamagedError
        if (vocab, theirs) != (self._vocab, identity):
            raise UsageError(
                "The reference {path} is of a model with another vocabulary.",
                "Only models that share their vocabulary can be compared.",
                path=self.path,
            )
        self._check_numbers(facts.st_size, tokens, context, stride, rows, about)
        windows = plan_windows(tokens, context, stride or None)
        self._offset = tables_end(tokens, about)
        if (
            len(windows) != count
            or windows[-1].end != tokens
            or file_bytes(self._offset, windows, rows, vocab) != facts.st_size
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
        data = self._read(HEADER_BYTES, self._offset - HEADER_BYTES)
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
        block = self._read(self._offset, rows * SCORE.size)
        packed = self._packed.view(rows)
        self._read_into(packed, self._offset + len(block))
        self._offset += len(block) + len(packed) + 8
        if self._read(self._offset - 8, 8) != struct.pack("<Q", block_checksum(block, packed)):
            raise _DamagedError
        scores = [RowScore(logprob, top) for logprob, top, _ in SCORE.iter_unpack(block)]
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
