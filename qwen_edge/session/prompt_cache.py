"""Prompts that need not be computed twice: what is loaded before an answer, and saved after it.

Two places, of which one is in use at a time. The file that the user names with ``--prompt-cache``
holds the last prompt (of a chat: all that was said), whatever its length. Without one, system
prompts are kept in a folder of limited size (prompt_store.py). Tokens decide what can be reused,
never text: as many of the prompt's first ones as a file holds.

Nothing here may spoil an answer: whatever is wrong with a file, the prompt is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from qwen_edge.engine.interface import PrefixEngine
from qwen_edge.errors import QwenEdgeError, UsageError
from qwen_edge.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from qwen_edge.engine.prefix_file import PrefixError

# What reads and writes files is imported where it is used: a short prompt needs none of it.

SHORTEST = 64
"""System prompts of fewer tokens are not kept: they are computed in a moment, and every file costs
flash memory a write of megabytes."""
_OPENING, _SYSTEM = "<|im_start|>", "<|im_start|>system\n"


class PromptCache(Protocol):
    """The disk behind an engine's first sequence."""

    def load(self, ids: Sequence[int]) -> None:
        """Loads what there is of a prompt, unless the engine holds about as much of it already.

        Raises:
            MemoryLimitError: the KV cache does not fit into memory.
        """
        ...

    def save(self, ids: Sequence[int]) -> None:
        """Saves what is worth it of a prompt that was computed and answered; never raises."""
        ...

    def blame(self) -> QwenEdgeError | None:
        """What to tell when the model's results are not numbers; None if nothing was loaded.

        Only a forged file has right checksums around such keys and values.
        """
        ...

    def close(self) -> None:
        """Saves what an answer that was broken off has left to save; never raises."""
        ...


def is_covered(length: int, common: int) -> bool:
    """Whether a file with ``common`` of a prompt's tokens will do as it is.

    A long text with a new question each time would be written each time otherwise.
    """
    return length - common <= length // 8


def system_length(tokenizer: Tokenizer, ids: Sequence[int]) -> int:
    """How many of a prompt's first tokens are the system message of a ChatML template.

    Only the template can write control tokens, so that no text can forge the message's end. Another
    kind of template gives 0.
    """
    beginning = tokenizer.encode(_SYSTEM, allow_special=True)
    opening = tokenizer.special_ids().get(_OPENING)
    if list(ids[: len(beginning)]) != beginning or beginning[0] != opening:
        return 0
    with contextlib.suppress(ValueError):
        return list(ids).index(opening, 1)
    return 0


class SystemPrompts:
    """A ``PromptCache`` of system prompts in this program's own folder.

    Args:
        engine: whose keys and values are loaded and saved.
        tokenizer: of the same model.
        limit: the most bytes the folder may hold.
    """

    def __init__(self, engine: PrefixEngine, tokenizer: Tokenizer, limit: int) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._limit = limit
        self._identity = b""
        self._pending: Sequence[int] = ()
        self._loaded: Path | None = None
        # The tokens that are on disk, or that were tried in vain to get there.
        self._kept: Sequence[int] = ()

    def load(self, ids: Sequence[int]) -> None:
        """See ``PromptCache.load``."""
        self._pending = ids
        if len(ids) < SHORTEST:
            return
        from qwen_edge.engine.prefix_file import common_length
        from qwen_edge.session.prompt_store import PromptStore

        least = common_length(self._engine.cached_ids(), ids) + SHORTEST
        if least > len(ids) or not self._identify():
            return
        found = PromptStore(self._limit).load(self._engine, self._identity, ids, least)
        if found is not None:
            self._loaded, self._kept = found, tuple(self._engine.cached_ids())

    def save(self, ids: Sequence[int]) -> None:
        """See ``PromptCache.save``."""
        self._pending = ()
        length = system_length(self._tokenizer, ids)
        if length < SHORTEST:
            return
        from qwen_edge.engine.prefix_file import common_length
        from qwen_edge.session.prompt_store import PromptStore

        system = tuple(ids[:length])
        if not self._identify():
            return
        computed = tuple(self._engine.cached_ids()[:length]) == system
        if not computed or is_covered(length, common_length(self._kept, system)):
            return
        self._kept = system
        # A full disk, a folder without rights: the next start computes the prompt as this one did.
        with contextlib.suppress(QwenEdgeError, OSError, MemoryError):
            PromptStore(self._limit).save(self._engine, self._identity, length)

    def blame(self) -> QwenEdgeError | None:
        """See ``PromptCache.blame``."""
        if self._loaded is None:
            return None
        with contextlib.suppress(OSError):
            self._loaded.unlink()
        return QwenEdgeError(
            "A prompt kept on disk led to results that are not numbers.",
            "It is deleted now; ask again.",
        )

    def close(self) -> None:
        """See ``PromptCache.close``."""
        if self._pending:
            self.save(self._pending)

    def _identify(self) -> bool:
        with contextlib.suppress(OSError):
            identity = self._engine.prefix_identity()
            if identity != self._identity:
                # Another adapter: what is on disk is of no use to it.
                self._identity, self._kept = identity, ()
        return bool(self._identity)


class PromptFile:
    """A ``PromptCache`` of one prompt in a file that the user names.

    Args:
        engine: whose keys and values are loaded and saved.
        path: the file; it need not exist.
        everything: whether all that was said is saved in the end, not only the first prompt.

    Attributes:
        problem: why the file was not used, or not written; None as long as all is well.

    Raises:
        UsageError: the file is something else, which must not be overwritten.
    """

    def __init__(self, engine: PrefixEngine, path: Path, *, everything: bool) -> None:
        self.problem: QwenEdgeError | None = None
        self._engine = engine
        self._path = path
        self._everything = everything
        self._identity = b""
        self._pending: Sequence[int] = ()
        self._stored: Sequence[int] = ()
        self._begun = self._loaded = self._read_only = False
        self._refuse_foreign()

    def load(self, ids: Sequence[int]) -> None:
        """See ``PromptCache.load``."""
        from qwen_edge.engine.prefix_file import PrefixError, PrefixFile, common_length

        if self._begun:
            # The engine holds what the file held, and what was said since.
            return
        self._begun, self._pending = True, ids
        try:
            self._identity = self._engine.prefix_identity()
            with PrefixFile(self._path) as file:
                prefix = file.prefix(self._engine, self._identity)
                common = common_length(prefix.ids, ids)
                if common > common_length(self._engine.cached_ids(), ids):
                    file.load(self._engine, prefix, common)
                    self._loaded = True
                self._stored = prefix.ids
        except PrefixError as error:
            self.problem = self._told(error)
        except OSError as error:
            self._read_only, self.problem = True, self._unreadable(error.strerror or str(error))

    def save(self, ids: Sequence[int]) -> None:
        """See ``PromptCache.save``."""
        if self._pending:
            self._pending = ()
            self._write(len(ids))

    def blame(self) -> QwenEdgeError | None:
        """See ``PromptCache.blame``."""
        if not self._loaded:
            return None
        return QwenEdgeError(
            "The prompt cache {path} led to results that are not numbers.",
            "Delete it.",
            path=self._path,
        )

    def close(self) -> None:
        """See ``PromptCache.close``."""
        from qwen_edge.engine.prefix_file import common_length

        held = self._engine.cached_ids()
        length = common_length(self._pending, held)
        self._pending = ()
        if self._everything:
            length = len(held)
        if length:
            self._write(length)

    def _write(self, length: int) -> None:
        from qwen_edge.engine.prefix_file import common_length, write_prefix

        ids = tuple(self._engine.cached_ids()[:length])
        with contextlib.suppress(OSError):
            identity = self._engine.prefix_identity()
            if identity != self._identity:
                # Another adapter: what the file holds is of no use to it.
                self._identity, self._stored = identity, ()
        if self._read_only or is_covered(length, common_length(self._stored, ids)):
            return
        self._stored = ids
        try:
            # It may have become something else in the meantime.
            self._refuse_foreign()
            write_prefix(self._engine, self._identity, length, self._path, durable=True)
        except (QwenEdgeError, MemoryError) as error:
            self._read_only = True
            if isinstance(error, QwenEdgeError):
                self.problem = error

    def _refuse_foreign(self) -> None:
        from qwen_edge.engine.prefix_file import PrefixError, PrefixFile, Problem

        try:
            PrefixFile(self._path).close()
        except PrefixError as error:
            if error.problem is Problem.FOREIGN:
                raise UsageError(
                    "{path} exists and is not a prompt cache; it is left as it is.",
                    "Name a new file, or an old prompt cache.",
                    path=self._path,
                ) from None

    def _told(self, error: PrefixError) -> QwenEdgeError | None:
        from qwen_edge.engine.prefix_file import Problem

        if error.problem is Problem.UNREADABLE:
            self._read_only = True
            return self._unreadable(error.reason)
        if error.problem is Problem.DAMAGED:
            return QwenEdgeError(
                "The prompt cache {path} is damaged; it is made anew.", path=self._path
            )
        if error.problem is Problem.OTHER:
            return QwenEdgeError(
                "The prompt cache {path} is of another model or other settings; it is made anew.",
                path=self._path,
            )
        return None

    def _unreadable(self, reason: str) -> QwenEdgeError:
        return QwenEdgeError(
            "The prompt cache {path} cannot be read: {reason}.", path=self._path, reason=reason
        )
