"""The keys and values of a prompt's first tokens in a file, and how they are trusted.

A header of 64 bytes (magic, version, numbers, identity, two checksums), the token ids as uint32,
the checksums of the payload as uint64, padding, and the payload as ``PrefixEngine.save_prefix``
writes
it; all little-endian. Nothing is taken from the file before it was checked: the numbers in the
header against each other, the engine and the file's size, the tables against a checksum, and the
payload against one for each of its parts while it is read. A forged file with right checksums can
make the model say anything, as a forged prompt could, and nothing worse: no address or size comes
from the payload.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from qwen_edge.engine.interface import PrefixEngine
from qwen_edge.model.closing import Closing
from qwen_edge.native.checksum import checksum

MAGIC = b"qedge-kv"
VERSION = 1
# Magic, version, tokens, checksums, nothing, bytes of the payload, identity, checksum of the
# tables; then the checksum of all that.
_NUMBERS = struct.Struct("<8sIIIIQ16sQ")
_HEADER_BYTES = _NUMBERS.size + 8
_ALIGNMENT = 64
_MOST_TOKENS = 1 << 20


class Problem(Enum):
    """Why a file gives nothing."""

    ABSENT = "absent"
    FOREIGN = "foreign"
    """Something else than a prompt cache."""
    DAMAGED = "damaged"
    OTHER = "other"
    """Of another model, other settings or another version."""
    UNREADABLE = "unreadable"


class PrefixError(Exception):
    """A file gives no keys and values.

    Attributes:
        problem: why.
        reason: the system's words for it, if it said any.
    """

    def __init__(self, problem: Problem, reason: str = "") -> None:
        super().__init__(problem.value)
        self.problem = problem
        self.reason = reason


class Prefix(NamedTuple):
    """What a sound header says.

    Attributes:
        ids: the tokens.
        checksums: of the payload.
        offset: where the payload begins.
    """

    ids: tuple[int, ...]
    checksums: tuple[int, ...]
    offset: int


def _payload_offset(tokens: int, parts: int) -> int:
    end = _HEADER_BYTES + 4 * tokens + 8 * parts
    return -(-end // _ALIGNMENT) * _ALIGNMENT


class PrefixFile(Closing):
    """A file of keys and values, open for reading; use it as a context manager.

    Args:
        path: the file.

    Raises:
        PrefixError: ABSENT, FOREIGN or UNREADABLE. An empty file counts as absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise PrefixError(Problem.ABSENT) from None
        except (OSError, ValueError) as error:
            raise _unreadable(error) from None
        try:
            self._check_kind()
        except BaseException:
            self.close()
            raise

    def _check_kind(self) -> None:
        facts = os.fstat(self._descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise PrefixError(Problem.FOREIGN)
        self._size = facts.st_size
        if self._size == 0:
            raise PrefixError(Problem.ABSENT)
        start = self._read(0, min(self._size, len(MAGIC)))
        if not MAGIC.startswith(start):
            raise PrefixError(Problem.FOREIGN)

    def prefix(self, engine: PrefixEngine, identity: bytes) -> Prefix:
        """Reads and checks the header.

        Args:
            engine: that will load it.
            identity: of the engine, ``PrefixEngine.prefix_identity``.

        Raises:
            PrefixError: DAMAGED, OTHER or UNREADABLE.
        """
        header = self._read(0, _HEADER_BYTES)
        magic, version, tokens, parts, nothing, payload, theirs, tables = _NUMBERS.unpack_from(
            header
        )
        if magic != MAGIC:
            raise PrefixError(Problem.DAMAGED)
        if version != VERSION:
            raise PrefixError(Problem.OTHER)
        (expected,) = struct.unpack_from("<Q", header, _NUMBERS.size)
        if checksum(header[: _NUMBERS.size]) != expected:
            raise PrefixError(Problem.DAMAGED)
        if theirs != identity:
            raise PrefixError(Problem.OTHER)
        offset = _payload_offset(tokens, parts)
        if (
            nothing
            or not 1 <= tokens <= _MOST_TOKENS
            or (payload, parts) != engine.prefix_size(tokens)
            or self._size != offset + payload
        ):
            raise PrefixError(Problem.DAMAGED)
        table = self._read(_HEADER_BYTES, offset - _HEADER_BYTES)
        if checksum(table) != tables:
            raise PrefixError(Problem.DAMAGED)
        ids = struct.unpack_from(f"<{tokens}I", table)
        return Prefix(ids, struct.unpack_from(f"<{parts}Q", table, 4 * tokens), offset)

    def load(self, engine: PrefixEngine, prefix: Prefix, length: int) -> None:
        """Puts the first ``length`` positions into the engine's first sequence.

        Raises:
            PrefixError: DAMAGED or UNREADABLE; the sequence is then empty.
            MemoryLimitError: they do not fit; likewise.
        """
        try:
            engine.load_prefix(
                prefix.ids[:length],
                self._descriptor,
                prefix.offset,
                len(prefix.ids),
                prefix.checksums,
            )
        except ValueError:
            raise PrefixError(Problem.DAMAGED) from None
        except OSError as error:
            raise _unreadable(error) from None

    def touch(self) -> None:
        """Makes now the time of its last change, if that is allowed."""
        with contextlib.suppress(OSError):
            os.utime(self._descriptor)

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self, offset: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                piece = os.pread(self._descriptor, size - len(data), offset + len(data))
            except OSError as error:
                raise _unreadable(error) from None
            if not piece:
                raise PrefixError(Problem.DAMAGED)
            data += piece
        return data


def _unreadable(error: Exception) -> PrefixError:
    reason = error.strerror if isinstance(error, OSError) else None
    return PrefixError(Problem.UNREADABLE, reason or str(error))


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the start."""
    limit = min(len(first), len(second))
    for index in range(limit):
        if first[index] != second[index]:
            return index
    return limit


def file_bytes(engine: PrefixEngine, tokens: int) -> int:
    """Size of the file of so many tokens."""
    payload, parts = engine.prefix_size(tokens)
    return _payload_offset(tokens, parts) + payload


def write_prefix(
    engine: PrefixEngine, identity: bytes, length: int, target: Path, *, durable: bool
) -> None:
    """Saves the first ``length`` positions of the engine's first sequence.

    The file is whole from the moment that it has its name, and readable by its owner only: it holds
    what was said.

    Args:
        engine: holds the keys and values.
        identity: of the engine, ``PrefixEngine.prefix_identity``.
        length: at least 1.
        target: the file; what is there is replaced.
        durable: see ``ReplacingFile``.

    Raises:
        QwenEdgeError: it cannot be written; an existing file is as it was.
    """
    # Most starts of the program read such a file and write none.
    from qwen_edge.model.replacing_file import ReplacingFile

    ids = list(engine.cached_ids())[:length]
    payload, parts = engine.prefix_size(length)
    offset = _payload_offset(length, parts)

    def write(descriptor: int) -> None:
        sums = engine.save_prefix(descriptor, offset, length)
        table = struct.pack(f"<{length}I{parts}Q", *ids, *sums).ljust(offset - _HEADER_BYTES, b"\0")
        numbers = _NUMBERS.pack(
            MAGIC, VERSION, length, parts, 0, payload, identity, checksum(table)
        )
        head = numbers + struct.pack("<Q", checksum(numbers)) + table
        written = 0
        while written < len(head):
            written += os.pwrite(descriptor, head[written:], written)

    with ReplacingFile(target, offset + payload, mode=0o600, durable=durable) as file:
        file.write_with(write)
        file.commit(lambda path: None)
