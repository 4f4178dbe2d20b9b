"""Any engine without its KV cache: whenever logits are wanted, all tokens are computed anew."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_edge.engine.interface import Engine, Logits, Row
from qwen_edge.engine.token_ids import TokenIds


class Uncached:
    """An ``Engine`` that remembers tokens only, and computes them with another one.

    Args:
        engine: its sequences are this object's from now on; ``close`` closes it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.config = engine.config
        self.vocab_size = engine.vocab_size
        self._ids = TokenIds(engine.config, engine.vocab_size)

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        """See ``Engine.forward``; rows that want no logits cost nothing until others do."""
        self._ids.check(rows)
        logits: list[Logits] = []
        if any(row.wants_logits for row in rows):
            for sequence in {row.sequence for row in rows}:
                self._compute_again(sequence)
            logits = self.engine.forward(rows)
        self._ids.append(rows)
        return logits

    def cached_ids(self, sequence: int = 0) -> Sequence[int]:
        """The tokens before the next row; nothing of them is cached."""
        return self._ids[sequence]

    def truncate(self, length: int, sequence: int = 0) -> None:
        """See ``Engine.truncate``."""
        self._ids.truncate(length, sequence)

    def fork(self, source: int, target: int, length: int) -> None:
        """See ``Engine.fork``."""
        self._ids.fork(source, target, length)

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
