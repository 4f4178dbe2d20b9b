"""Where the last tokens stood before: the cheapest guess at what comes next.

An answer that quotes, extracts or rewrites repeats long stretches of the prompt or of itself. What
followed the same tokens the last time is a draft of what follows now. After prompt lookup decoding
(Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

LONGEST = 32
"""Matches are not told apart beyond this length."""

_CANDIDATES = 8
_NOWHERE = -1


class TokenLookup:
    """The tokens so far, and the earlier place that resembles their end most.

    Adding a token takes about a microsecond. A match is followed as long as it foretells the
    tokens; when it fails, the longest among the latest places with the same two last tokens takes
    over.

    Args:
        ids: the tokens to start with.

    Attributes:
        length: how many of the last tokens the place agrees in, at least 2 and at most ``LONGEST``;
            0 if there is no such place.
    """

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self.length = 0
        self._ids: list[int] = []
        self._next = 0  # index of the token that followed the match
        self._latest: dict[int, int] = {}  # pair of tokens -> index after its latest occurrence
        # Likewise after the occurrence before, for every token.
        self._before = array("i")
        for token in ids:
            self.push(token)

    def push(self, token: int) -> bool:
        """Adds a token; tells whether it is the one that the match foretold."""
        ids = self._ids
        foretold = self.length > 0 and ids[self._next] == token
        end = len(ids) + 1
        older = _NOWHERE
        if end > 1:
            pair = ids[-1] << 32 | token
            older = self._latest.get(pair, _NOWHERE)
            self._latest[pair] = end
        ids.append(token)
        self._before.append(older)
        if foretold:
            self._next += 1
            if self.length < LONGEST:
                self.length += 1
        else:
            self.length = 0
            if older != _NOWHERE:
                self._choose(older)
        return foretold

    def draft(self, count: int) -> list[int]:
        """The ``count`` tokens that would follow; empty without a match.

        Where the match reaches the end, the tokens in between are taken to repeat themselves.
        """
        if self.length == 0:
            return []
        draft = self._ids[self._next : self._next + count]
        period = len(draft)
        while len(draft) < count:
            draft.append(draft[-period])
        return draft

    def _choose(self, place: int) -> None:
        """Takes the place that agrees in the most tokens, of several equal ones the latest."""
        for _ in range(_CANDIDATES):
            if place == _NOWHERE:
                return
            length = self._agreement(place)
            if length > self.length:
                self.length, self._next = length, place
            place = self._before[place - 1]

    def _agreement(self, place: int) -> int:
        """How many tokens before ``place`` equal those at the end; two of them are known to."""
        ids, end, length = self._ids, len(self._ids), 2
        longest = min(place, LONGEST)
        while length < longest and ids[place - 1 - length] == ids[end - 1 - length]:
            length += 1
        return length
