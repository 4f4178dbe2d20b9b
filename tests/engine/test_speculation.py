"""Drafts: where they come from, and when they are worth computing."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.lookup import LONGEST, TokenLookup
from qwen_edge.engine.speculation import MAX_DRAFTS, CallCosts, Drafter
from tests.engine.drafting import fixed_costs

TEXT = list(range(100, 160))


def agreement(ids: list[int], place: int) -> int:
    """How many tokens before ``place`` equal those at the end."""
    length = 0
    while length < place and ids[place - 1 - length] == ids[-1 - length]:
        length += 1
    return length


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(1, 12))
def test_a_match_is_one(ids: list[int], count: int) -> None:
    lookup = TokenLookup()
    for end, token in enumerate(ids, 1):
        foreseen = lookup.draft(1)
        assert lookup.push(token) == (foreseen == [token])
        before = ids[:end]
        places = [place for place in range(2, end) if agreement(before, place) >= 2]
        draft = lookup.draft(count)
        if not places:
            assert (lookup.length, draft) == (0, [])
            continue
        assert 2 <= lookup.length <= LONGEST
        # Some place agrees that far and goes on like this, again and again if it meets the end.
        followers = []
        for place in places:
            if agreement(before, place) >= lookup.length:
                follower = before[place:]
                while len(follower) < count:
                    follower = follower + before[place:]
                followers.append(follower[:count])
        assert draft in followers


def test_a_new_match_is_the_longest() -> None:
    ids = [1, 2, 3, 4, 50, 9, 2, 3, 4, 60, 8, 8, 3, 4, 70]
    lookup = TokenLookup([*ids, 2, 3, 4])
    assert (lookup.length, lookup.draft(2)) == (3, [60, 8])
    lookup = TokenLookup([*ids, 1, 2, 3, 4])
    assert (lookup.length, lookup.draft(2)) == (4, [50, 9])
    # Equally long: the latest.
    lookup = TokenLookup([*ids, 5, 3, 4])
    assert (lookup.length, lookup.draft(1)) == (2, [70])


def test_nothing_is_drafted_before_a_call_was_measured() -> None:
    costs = CallCosts()
    drafter = Drafter(TEXT + TEXT[:20], MAX_DRAFTS, costs)
    assert drafter.draft(MAX_DRAFTS) == []
    costs.measured(1, 0.05)
    costs.measured(1, 0.01)
    draft = drafter.draft(MAX_DRAFTS)
    assert 3 <= len(draft) <= MAX_DRAFTS
    assert draft == TEXT[20 : 20 + len(draft)]
    assert drafter.draft(2) == TEXT[20:22]
    assert drafter.draft(0) == []
    assert Drafter(TEXT + TEXT[:20], 3, costs).draft(MAX_DRAFTS) == TEXT[20:23]


def test_costly_rows_are_left_alone_but_for_a_trial_now_and_then() -> None:
    costs = fixed_costs(row_cost=1.0)
    drafter = Drafter(TEXT, MAX_DRAFTS, costs)
    trials = 0
    for _ in range(50):
        for token in TEXT:
            drafter.push(token)
            rows = 1 + len(drafter.draft(MAX_DRAFTS))
            trials += rows > 1
            costs.measured(rows, 0.01 * rows)
    # 3,000 tokens foretold without fail, and no gain in any of them.
    assert 1 <= trials <= 10


def test_a_machine_that_becomes_fast_is_noticed() -> None:
    costs = fixed_costs(row_cost=1.0)
    drafter = Drafter(TEXT, MAX_DRAFTS, costs)
    drafted = 0
    for _ in range(20):
        drafted = 0
        for token in TEXT:
            drafter.push(token)
            rows = 1 + len(drafter.draft(MAX_DRAFTS))
            drafted += rows - 1
            costs.measured(rows, 0.01)
    assert drafted == MAX_DRAFTS * len(TEXT)


def test_wrong_guesses_end_and_right_ones_begin_again() -> None:
    costs = fixed_costs(row_cost=0.2)
    noise = random.Random(1)
    # Pairs recur, what follows them does not.
    misleading = [noise.randrange(30) for _ in range(4000)]
    drafter = Drafter([], MAX_DRAFTS, costs)
    drafted = []
    for token in misleading:
        drafter.push(token)
        drafted.append(len(drafter.draft(MAX_DRAFTS)))
    assert sum(drafted[-500:]) < 50
    copied = [drafter.push(token) or len(drafter.draft(MAX_DRAFTS)) for token in misleading[:60]]
    assert copied[-30:] == [MAX_DRAFTS] * 30


def test_one_disturbance_changes_little() -> None:
    costs = fixed_costs(row_cost=0.1)
    before = list(costs.ratios)
    costs.measured(4, 60.0)
    assert costs.ratios[4] < 1.2 * before[4]
    costs.measured(1, 60.0)
    costs.measured(4, 0.013)
    assert costs.ratios[4] < 1.2 * before[4]


def test_rows_never_measured_follow_their_neighbours() -> None:
    costs = CallCosts()
    costs.measured(1, 0.01)
    costs.measured(1, 0.01)
    for _ in range(100):
        costs.measured(5, 0.014)
    assert [round(ratio, 2) for ratio in costs.ratios[1:6]] == [1.0, 1.1, 1.2, 1.3, 1.4]
    assert costs.ratios[8] > costs.ratios[5]
