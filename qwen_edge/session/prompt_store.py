"""Computed prompts on disk: a folder of limited size whose least recently used files go first."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from qwen_edge.engine.interface import PrefixEngine
from qwen_edge.engine.prefix_file import (
    PrefixError,
    PrefixFile,
    Problem,
    common_length,
    file_bytes,
    write_prefix,
)
from qwen_edge.host.paths import prompts_folder
from qwen_edge.host.storage import free_bytes
from qwen_edge.native.checksum import checksum

# Tokens in which all prompts agree that one file can help; no file holds fewer.
_BEGINNING = 64
# What is left free is another program's tomorrow.
_SHARE_OF_FREE = 8
# Small models make small files; so many are still listed in a millisecond.
_MOST_FILES = 256
# Files of one model that begin with the same tokens and are looked into, the latest first.
_MOST_CANDIDATES = 8
_SUFFIX = ".kv"


class Usage(NamedTuple):
    """What the folder holds: how many prompts, and bytes."""

    prompts: int
    size: int


class _File(NamedTuple):
    path: Path
    size: int
    used: int


class PromptStore:
    """The folder of computed prompts. Several processes may use it at once.

    A file's name is made of the engine's identity, the first 64 tokens and all tokens, so
    that a look at the folder's list tells the few files that can help. Its time of change is the
    time of its last use.

    Args:
        limit: the most bytes it may hold.
        environ: the environment variables, which say where it is.
    """

    def __init__(self, limit: int, environ: Mapping[str, str] | None = None) -> None:
        self.folder = prompts_folder(environ)
        self.limit = limit

    def load(
        self, engine: PrefixEngine, identity: bytes, ids: Sequence[int], least: int
    ) -> Path | None:
        """Loads the file that has most tokens in common with a prompt into the engine.

        Args:
            engine: its first sequence is replaced if a file is found.
            identity: of the engine.
            ids: the prompt.
            least: the fewest tokens that are worth it.

        Returns:
            The file, or None if there is no such file; a damaged one is removed.

        Raises:
            MemoryLimitError: the keys and values do not fit into memory.
        """
        best, longest = None, least - 1
        with contextlib.ExitStack() as stack:
            for path in self._candidates(identity, ids):
                with _forgetting_damaged(path):
                    file = stack.enter_context(PrefixFile(path))
                    prefix = file.prefix(engine, identity)
                    common = common_length(prefix.ids, ids)
                    if common > longest:
                        best, longest = (file, prefix), common
            if best is None:
                return None
            file, prefix = best
            with _forgetting_damaged(file.path):
                file.load(engine, prefix, longest)
                file.touch()
                return file.path
        return None

    def save(self, engine: PrefixEngine, identity: bytes, length: int) -> None:
        """Keeps the first ``length`` tokens of the engine's first sequence, if there is room.

        Raises:
            QwenEdgeError: the file cannot be written.
            OSError: nor the folder.
        """
        ids = engine.cached_ids()[:length]
        needed = file_bytes(engine, length)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._make_room(needed):
            return
        path = self.folder / f"{_stem(identity, ids)}-{_hash(ids)}{_SUFFIX}"
        # Checksums tell what a power failure left of a file that was never synced, and it can be
        # computed again; waiting for slow flash memory would hold up the end of the answer.
        write_prefix(engine, identity, length, path, durable=False)

    def usage(self) -> Usage:
        """How much the folder holds."""
        files = self._files()
        return Usage(len(files), sum(file.size for file in files))

    def clear(self) -> Usage:
        """Removes all prompts; returns what was removed."""
        from qwen_edge.model.replacing_file import remove_all_leftovers

        remove_all_leftovers(self.folder)
        removed = [file for file in self._files() if _remove(file.path)]
        return Usage(len(removed), sum(file.size for file in removed))

    def _make_room(self, needed: int) -> bool:
        """Removes the least recently used until there is room; returns False if there cannot be."""
        from qwen_edge.model.replacing_file import remove_all_leftovers

        remove_all_leftovers(self.folder)
        files = sorted(self._files(), key=lambda file: file.used)
        held = sum(file.size for file in files)
        free = free_bytes(self.folder)
        limit = self.limit if free is None else min(self.limit, (free + held) // _SHARE_OF_FREE)
        if needed > limit:
            return False
        count = len(files)
        for file in files:
            if held + needed <= limit and count < _MOST_FILES:
                break
            _remove(file.path)
            held, count = held - file.size, count - 1
        return True

    def _files(self, beginning: str = "") -> list[_File]:
        files = []
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if not (entry.name.startswith(beginning) and entry.name.endswith(_SUFFIX)):
                    continue
                # Other processes remove files at any time.
                with contextlib.suppress(OSError):
                    if entry.is_file(follow_symlinks=False):
                        facts = entry.stat(follow_symlinks=False)
                        files.append(_File(Path(entry.path), facts.st_size, facts.st_mtime_ns))
        return files

    def _candidates(self, identity: bytes, ids: Sequence[int]) -> list[Path]:
        found = self._files(_stem(identity, ids) + "-")
        found.sort(key=lambda file: -file.used)
        return [file.path for file in found[:_MOST_CANDIDATES]]


@contextlib.contextmanager
def _forgetting_damaged(path: Path) -> Iterator[None]:
    """Removes a file that turns out to be useless, and goes on."""
    try:
        yield
    except PrefixError as error:
        # One that cannot be read now may be readable once the disk or its rights are mended.
        if error.problem is not Problem.UNREADABLE:
            _remove(path)


def _hash(ids: Sequence[int], seed: int = 0) -> str:
    return f"{checksum(struct.pack(f'<{len(ids)}I', *ids), seed):016x}"


def _stem(identity: bytes, ids: Sequence[int]) -> str:
    return f"{checksum(identity):016x}-{_hash(ids[:_BEGINNING])}"


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
