"""Any engine without its KV cache: whenever logits are wanted, all tokens are computed anew."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_edge.engine.interface import Engine, Logits, Row
from qwen_edge.errors import UsageError


class Uncached:
    """An ``Engine`` that remembers tokens only, and computes them with another one.

    Args:
        engine: its sequences are this object's from now on; ``close`` closes it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.config = engine.config
        self.vocab_size = engine.vocab_size
        self._ids: list[list[int]] = [[] for _ in range(engine.config.sequences)]

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        """See ``Engine.forward``; rows that want no logits cost nothing until others do."""
        if len(rows) > self.config.prefill_rows:
            raise UsageError(
                "A call takes at most {most} rows, not {given}.",
                most=self.config.prefill_rows,
                given=len(rows),
            )
        logits: list[Logits] = []
        if any(row.wants_logits for row in rows):
            for sequence in {row.sequence for row in rows}:
                self._compute_again(sequence)
            logits = self.engine.forward(rows)
        for row in rows:
            self._ids[row.sequence].append(row.token)
        return logits

    def cached_ids(self, sequence: int = 0) -> Sequence[int]:
        """The tokens before the next row; nothing of them is cached."""
        return self._ids[sequence]

    def truncate(self, length: int, sequence: int = 0) -> None:
        """See ``Engine.truncate``."""
        del self._ids[sequence][length:]

    def fork(self, source: int, target: int, length: int) -> None:
        """See ``Engine.fork``."""
        self._ids[target] = self._ids[source][:length]

    def close(self) -> None:
        """See ``Engine.close``."""
        self.engine.close()

    def _compute_again(self, sequence: int) -> None:
        engine, ids, chunk = self.engine, self._ids[sequence], self.config.prefill_rows
        engine.truncate(0, sequence)
        for start in range(0, len(ids), chunk):
            part = ids[start : start + chunk]
            engine.forward([Row(sequence, start + i, token) for i, token in enumerate(part)])


def uncached(engine: Engine) -> Engine:
    """The engine itself, or without its cache where its configuration says so."""
    if engine.config.keep_cache or isinstance(engine, Uncached):
        return engine
    return Uncached(engine)
