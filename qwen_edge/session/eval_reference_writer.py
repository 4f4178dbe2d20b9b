"""Writes references block by block; eval_reference_format.py says what they are."""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Mapping
from pathlib import Path

from qwen_edge.engine.scoring import PackedRows
from qwen_edge.model.closing import Closing
from qwen_edge.model.replacing_file import ReplacingFile
from qwen_edge.native.checksum import checksum
from qwen_edge.session.eval_models import logit_rows
from qwen_edge.session.eval_reference_format import (
    HEADER_BYTES,
    MAGIC,
    NUMBERS,
    SCORE,
    VERSION,
    block_checksum,
    file_bytes,
    tables_end,
)
from qwen_edge.session.eval_text import Judged, Text


class ReferenceWriter(Closing):
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
        self._offset = tables_end(len(text.ids), len(named))
        self._size = file_bytes(self._offset, text.windows, rows, vocab)
        tables = array("I", text.ids).tobytes() + named
        tables = tables.ljust(self._offset - HEADER_BYTES, b"\0")
        numbers = NUMBERS.pack(
            MAGIC, VERSION, vocab, len(text.ids), text.context, text.stride or 0,
            len(text.windows), rows, len(named), identity, checksum(tables),
        )  # fmt: skip
        self._head = numbers + struct.pack("<Q", checksum(numbers)) + tables
        self._packed = PackedRows(rows, vocab)
        self._file = ReplacingFile(path, self._size)

    def close(self) -> None:
        """Leaves nothing behind of a file without its name; a second call does nothing."""
        self._file.close()

    def write(self, judged: Judged) -> None:
        """Writes the next rows.

        Raises:
            QwenEdgeError: the disk is full, or fails.
        """
        scores = b"".join(SCORE.pack(score.logprob, score.top, 0) for score in judged.scores)
        packed = self._packed.pack(judged.rows, self._threads)
        parts = scores, packed, struct.pack("<Q", block_checksum(scores, packed))
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
