"""How many drafted tokens a decode call should carry: as many as pay, and none where none do.

A call of several rows reads the weights once like a call of one row, but computes more. Whether
that is worth it depends on the machine, which is measured while it works, and on how often drafts
come true in this very answer, which every token shows whether it was drafted or not.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwen_edge.engine.lookup import LONGEST, TokenLookup

MAX_DRAFTS = 7
"""The most drafted tokens of a call; each takes a row of logits, 0.6 MB for Qwen3."""

# A match's length decides how far it is trusted: index of the class, by length.
_CLASSES = tuple(sum(length >= low for low in (3, 4, 6, 9, 16)) for length in range(LONGEST + 1))
# How often a match of each class foretells the token, before anything was seen of the answer.
_ODDS = (0.15, 0.3, 0.5, 0.7, 0.8, 0.9)
_ODDS_MEMORY = 6
# What a further row costs, as a share of a call of one row, before any was measured.
_ROW_COST = 0.25
_COST_MEMORY = 8
# A disturbance counts at most as this multiple of what was expected.
_OUTLIER = 2.0
# Good matches left unused before a call is measured anew; doubled each time that changes nothing.
_PATIENCE, _MOST_PATIENCE = 32, 1024
_GOOD, _TRIAL = 0.5, 3
# Tokens a time, against one row a call; what is less drowns in the noise.
_LEAST_GAIN = 1.03
_UNLIKELY = 0.3


class CallCosts:
    """How long calls of several rows take on this machine, relative to one row.

    Belongs to an engine and lives as long; a few floats. Starts from a guess and follows what is
    measured, so that a machine that computes slowly drafts little and one with a busy neighbour
    recovers.

    Attributes:
        ratios: expected duration by rows, in calls of one row; the first two are 0 and 1.
        calls: how many calls of one row there were.
        latest: seconds that the last of them took.
    """

    def __init__(self) -> None:
        self.ratios = [0.0, *(1 + _ROW_COST * more for more in range(MAX_DRAFTS + 1))]
        self.calls = 0
        self.latest = 0.0
        self._one_row = 0.0
        self._counts = [0] * len(self.ratios)

    @property
    def known(self) -> bool:
        """Whether a call of one row was measured, without which nothing can be compared."""
        return self._counts[1] > 1

    def measured(self, rows: int, seconds: float) -> None:
        """Takes note of a decode call."""
        counts = self._counts
        count = counts[rows] = min(counts[rows] + 1, _COST_MEMORY)
        if rows == 1:
            self.calls += 1
            self.latest = seconds
            # The very first call after a prompt finds cold caches: the second one replaces it.
            if count > 2:
                seconds = min(seconds, _OUTLIER * self._one_row)
                self._one_row += (seconds - self._one_row) / count
            else:
                self._one_row = seconds
        elif self._one_row > 0:
            ratio = min(seconds / self._one_row, _OUTLIER * self.ratios[rows])
            # What was expected counts like a measurement: the first one may be a bad one.
            self.ratios[rows] += (max(ratio, 1.0) - self.ratios[rows]) / (count + 1)
            self._interpolate()

    def forget(self) -> None:
        """Takes the costs of several rows for out of date: new measurements count for more."""
        self._counts[2:] = [0] * (len(self._counts) - 2)

    def _interpolate(self) -> None:
        """Gives rows never measured the cost a row of the nearest number that was."""
        counts, ratios = self._counts, self.ratios
        known = [rows for rows in range(2, len(ratios)) if counts[rows]]
        for rows in range(2, len(ratios)):
            if not counts[rows]:
                near = min(known, key=lambda other: abs(other - rows))
                ratios[rows] = 1 + (ratios[near] - 1) * (rows - 1) / (near - 1)


class Drafter:
    """Drafts for one answer.

    Args:
        ids: the prompt.
        limit: the most tokens of a draft, at most ``MAX_DRAFTS``.
        costs: of the engine that computes the answer.
    """

    def __init__(self, ids: Sequence[int], limit: int, costs: CallCosts) -> None:
        self._lookup = TokenLookup(ids)
        self._limit = min(limit, MAX_DRAFTS)
        self._costs = costs
        self._odds = list(_ODDS)
        self._unused = 0
        self._patience = _PATIENCE

    def push(self, token: int) -> None:
        """Adds a token of the answer."""
        length = self._lookup.length
        foretold = self._lookup.push(token)
        if length:
            kind = _CLASSES[length]
            self._odds[kind] += (foretold - self._odds[kind]) / _ODDS_MEMORY

    def draft(self, most: int) -> list[int]:
        """The tokens to compute along with the next one, ``most`` at most; often none."""
        length = self._lookup.length
        most = min(most, self._limit)
        if length == 0 or most < 1 or not self._costs.known:
            return []
        count = self._worthwhile(length, most)
        if count:
            self._unused, self._patience = 0, _PATIENCE
        elif self._odds[_CLASSES[length]] >= _GOOD:
            self._unused += 1
            if self._unused >= self._patience:
                self._unused, self._patience = 0, min(2 * self._patience, _MOST_PATIENCE)
                self._costs.forget()
                count = min(_TRIAL, most)
        return self._lookup.draft(count) if count else []

    def _worthwhile(self, length: int, most: int) -> int:
        """The length of draft with the most tokens expected in the time; 0 if none gains."""
        ratios, odds = self._costs.ratios, self._odds
        best, best_rate = 0, _LEAST_GAIN
        expected = chance = 1.0
        for count in range(1, most + 1):
            chance *= odds[_CLASSES[min(length + count - 1, LONGEST)]]
            expected += chance
            rate = expected / ratios[count + 1]
            if rate > best_rate:
                best, best_rate = count, rate
            elif chance < _UNLIKELY:
                break
        return best
