"""What every engine offers: rows of token ids in, logits out. No text at this level."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

# Types of the KV cache that users choose from, from wide to narrow.
KV_TYPES = ("f16", "int8", "int4")


class Row(NamedTuple):
    """One token to compute: where it stands and whether its logits are wanted.

    Attributes:
        sequence: which KV cache, 0 <= sequence < EngineConfig.sequences.
        position: index of the token in its sequence; rows of a sequence follow on from its length.
        token: token id, 0 <= token < vocab_size.
        wants_logits: whether logits are computed for this row.
    """

    sequence: int
    position: int
    token: int
    wants_logits: bool = False


@dataclass(frozen=True)
class EngineConfig:
    """How an engine is set up.

    Attributes:
        context: the longest sequence, prompt and answer together, in tokens.
        kv_type: ``f16``, ``int8`` or ``int4``; ``f32`` with ``activations="f32"`` alone. An engine
            that keeps keys and values as its model's floats has no choice, ``bf16`` say.
        threads: worker threads of a decode step, the caller's included; 0 means all allowed cores.
        prefill_threads: likewise for calls of several rows; 0 means ``threads``.
        cores: numbers of the cores that the threads of a decode step run on, as far as an engine
            can be placed; empty: wherever the system puts them.
        prefill_cores: likewise for the further threads of calls of several rows.
        prefill_rows: the most rows computed in one call; longer prompts go in chunks.
        sequences: how many independent KV caches.
        drafts: the most drafted tokens that an answer has computed in one call; 0 for no drafts.
        activations: ``int8`` (fast) or ``f32`` (scalar and slow, the oracle of the tests).
        keep_cache: whether answers use what the KV cache holds from one call to the next; without,
            each token costs the whole sequence, which shows what the cache is worth.
    """

    context: int = 2048
    kv_type: str = "int8"
    threads: int = 0
    prefill_threads: int = 0
    cores: tuple[int, ...] = ()
    prefill_cores: tuple[int, ...] = ()
    prefill_rows: int = 128
    sequences: int = 1
    drafts: int = 0
    activations: str = "int8"
    keep_cache: bool = True


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is drawn from the logits.

    Attributes:
        temperature: 0 means greedy.
        top_k: keep the k most likely, 0 keeps all.
        top_p: keep the smallest set whose probability reaches p, 1 keeps all.
        min_p: drop what is less likely than min_p times the most likely.
        repetition_penalty: divides the positive (multiplies the negative) logits of seen tokens.
        presence_penalty: subtracted from the logits of tokens in the answer so far.
        logit_bias: added to the logits of single ids.
        seed: None draws one from the system.
    """

    temperature: float = 0.7
    top_k: int = 20
    top_p: float = 0.8
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None


class Logits(NamedTuple):
    """Where an engine left one row's logits: ``size`` fp32 values at ``address``.

    They stay valid until the engine's next call.
    """

    address: int
    size: int


class Engine(Protocol):
    """Computes logits and owns the KV cache. Not for concurrent use."""

    config: EngineConfig
    vocab_size: int

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        """Computes the rows in one pass over the weights.

        Args:
            rows: at most ``prefill_rows``; those of a sequence in order of position.

        Returns:
            One entry for each row that wants logits, in row order.

        Raises:
            MemoryLimitError: the KV cache could not grow; the cache is as before the call.
            UsageError: a row is out of range.
        """
        ...

    def cached_ids(self, sequence: int = 0) -> Sequence[int]:
        """The tokens whose keys and values a sequence's KV cache holds, in order of position."""
        ...

    def truncate(self, length: int, sequence: int = 0) -> None:
        """Forgets all positions from ``length`` on."""
        ...

    def fork(self, source: int, target: int, length: int) -> None:
        """Makes ``target`` begin with the first ``length`` positions of ``source``."""
        ...

    def close(self) -> None:
        """Frees the KV cache and stops the threads; a second call does nothing."""
        ...


@runtime_checkable
class PrefixEngine(Engine, Protocol):
    """An engine that writes keys and values to a file and reads them back."""

    def prefix_identity(self) -> bytes:
        """16 bytes that differ wherever the keys and values of the same tokens may differ.

        Raises:
            OSError: what they depend on cannot be read.
        """
        ...

    def prefix_size(self, length: int) -> tuple[int, int]:
        """Bytes and checksums that ``save_prefix`` makes of ``length`` positions.

        Args:
            length: 1 to 2^20; it need not fit into the context.
        """
        ...

    def save_prefix(
        self, descriptor: int, offset: int, length: int, sequence: int = 0
    ) -> tuple[int, ...]:
        """Writes the keys and values of the first ``length`` positions to an open file.

        Returns:
            Checksums of what was written.

        Raises:
            OSError: the disk is full, or fails.
        """
        ...

    def load_prefix(
        self,
        ids: Sequence[int],
        descriptor: int,
        offset: int,
        stored: int,
        checksums: Sequence[int],
        sequence: int = 0,
    ) -> None:
        """Reads back what ``save_prefix`` wrote, in place of what the sequence held.

        Args:
            ids: the tokens of the positions wanted: the first of those that were saved.
            descriptor: a file open for reading.
            offset: where the keys and values begin in it.
            stored: how many positions were saved.
            checksums: of them.
            sequence: which KV cache.

        Raises:
            ValueError: the file is shorter than it should be, or a checksum is wrong.
            OSError: the disk fails.
            MemoryLimitError: the KV cache could not grow. After any error the sequence is empty.
        """
        ...


@runtime_checkable
class PlaceableEngine(Engine, Protocol):
    """An engine whose threads can be told where to run, between two calls."""

    def place(
        self,
        threads: int,
        prefill_threads: int,
        cores: Collection[int] = (),
        prefill_cores: Collection[int] = (),
    ) -> None:
        """Sets the number of threads, and their cores.

        Cores that may not be used, now or later, are left out for as long as that lasts; where
        none of them may, all that may be are used.

        Args:
            threads: of calls of one row, 1 to the most that the engine's configuration has.
            prefill_threads: of calls of several rows, likewise.
            cores: of the first ``threads`` threads; empty: wherever the system puts them.
            prefill_cores: of the other threads, likewise.

        Raises:
            UsageError: a number is out of range.
        """
        ...


@runtime_checkable
class StretchingEngine(Engine, Protocol):
    """An engine that can be measured at a depth that is costly to reach."""

    def stretch(self, length: int, sequence: int = 0) -> None:
        """Lengthens a sequence without computing.

        The new positions hold copies of the first ones in memory of their own: what follows costs
        what it would in earnest, and means nothing.

        Args:
            length: at most the context.
            sequence: which KV cache; it holds at least 16 positions.

        Raises:
            MemoryLimitError: the KV cache could not grow.
            UsageError: a length is out of range.
        """
        ...
