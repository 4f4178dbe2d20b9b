"""Which tokens the sequences of an engine hold, and which rows may follow on them."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.errors import UsageError


class TokenIds:
    """The token ids of every sequence, in order of position; all are empty at first.

    Args:
        config: how many sequences there are, how long one may be, and how many rows a call has.
        vocab_size: ids are below it.
    """

    def __init__(self, config: EngineConfig, vocab_size: int) -> None:
        self._config = config
        self._vocab_size = vocab_size
        self._ids: list[list[int]] = [[] for _ in range(config.sequences)]

    def __getitem__(self, sequence: int) -> list[int]:
        return self._ids[sequence]

    def check(self, rows: Sequence[Row]) -> None:
        """Raises UsageError unless the rows continue their sequences and are not too many."""
        if not 1 <= len(rows) <= self._config.prefill_rows:
            raise UsageError(
                "A call takes at most {most} rows, not {given}.",
                most=self._config.prefill_rows,
                given=len(rows),
            )
        following = [len(ids) for ids in self._ids]
        for sequence, position, token, _ in rows:
            if not 0 <= sequence < len(following):
                raise UsageError("There is no sequence {sequence}.", sequence=sequence)
            inside = position == following[sequence] < self._config.context
            if not inside or not 0 <= token < self._vocab_size:
                raise UsageError(
                    "The token {token} cannot stand at position {position}.",
                    token=token,
                    position=position,
                )
            following[sequence] += 1

    def append(self, rows: Sequence[Row]) -> None:
        """Adds the tokens of rows that were computed."""
        for row in rows:
            self._ids[row.sequence].append(row.token)

    def truncate(self, length: int, sequence: int) -> None:
        """Forgets all from ``length`` on; raises UsageError where there are fewer."""
        self._check_length(length, sequence)
        del self._ids[sequence][length:]

    def fork(self, source: int, target: int, length: int) -> None:
        """Gives ``target`` the first ``length`` of ``source``; raises likewise."""
        self._check_length(length, source)
        self._ids[target] = self._ids[source][:length]

    def _check_length(self, length: int, sequence: int) -> None:
        if not 0 <= length <= len(self._ids[sequence]):
            raise UsageError("There are no {length} positions to keep.", length=length)
