"""How many threads a device gets by default, also when not all of its cores are there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from qwen_edge.errors import UsageError
from qwen_edge.host.place import Place
from qwen_edge.session.plan import engine_config
from qwen_edge.session.profile import read_profile
from qwen_edge.session.select import RuntimeConfig, Wishes, select
from tests.host.recorded import recorded
from tests.session.facts import GIB, SMALL


def chosen(place: Place, wishes: Wishes | None = None) -> RuntimeConfig:
    profile = replace(read_profile(place, isa="neon"), total_ram=4 * GIB, available_ram=3 * GIB)
    return select(profile, [SMALL], wishes)


def with_cores(name: str, allowed: Collection[int]) -> Place:
    return replace(recorded(name).place, allowed_cores=lambda: allowed)


@pytest.mark.parametrize(
    ("name", "allowed", "decode", "prefill"),
    [
        ("redmi_note_9", range(8), 2, 8),
        # In the background Android leaves an app the little cores, and they are what there is.
        ("redmi_note_9", range(4), 4, 4),
        # One of the two fast cores is offline.
        ("redmi_note_9", [0, 1, 2, 3, 4, 5, 7], 1, 7),
        ("redmi_note_9", [6, 7], 2, 2),
        ("redmi_note_9", [3], 1, 1),
        ("redmi_note_9_proot", range(4), 4, 4),
        ("snapdragon_8_gen_2", range(8), 5, 8),
        # Without its fastest core the middle ones are the big ones.
        ("snapdragon_8_gen_2", range(7), 4, 7),
        ("snapdragon_8_gen_2", range(3), 3, 3),
        ("unknown_parts", range(8), 4, 8),
        ("unknown_parts", [0, 1, 2, 3], 4, 4),
        ("android_go", range(4), 4, 4),
        ("everything_denied", [2, 5], 2, 2),
    ],
)
def test_decode_takes_the_big_cores_that_are_there_and_prefill_all(
    name: str, allowed: Collection[int], decode: int, prefill: int
) -> None:
    config = chosen(with_cores(name, allowed))
    assert (config.threads, config.prefill_threads) == (decode, prefill)


def test_cores_that_come_and_go_are_seen_at_the_next_start() -> None:
    allowed = [range(8), range(4), range(8)]
    place = replace(recorded("redmi_note_9").place, allowed_cores=lambda: allowed.pop())
    assert [chosen(place).threads for _ in range(3)] == [2, 4, 2]


def test_a_wish_overrules_the_table() -> None:
    config = chosen(recorded("redmi_note_9").place, Wishes(threads=3))
    assert (config.threads, config.prefill_threads) == (3, 3)


@pytest.mark.parametrize(
    ("name", "wishes", "threads", "cpus", "prefill_cpus"),
    [
        # The answer is made by the fast cores; the prompt is read by whichever are there.
        ("redmi_note_9", Wishes(), (2, 8), (6, 7), ()),
        ("redmi_note_9", Wishes(threads=1), (1, 1), (6, 7), ()),
        # More threads than fast cores are for all.
        ("redmi_note_9", Wishes(threads=4), (4, 4), (), ()),
        # Where all cores are alike, the system knows better.
        ("android_go", Wishes(), (4, 4), (), ()),
        ("redmi_note_9", Wishes(cpus=(0, 1, 2)), (3, 3), (0, 1, 2), (0, 1, 2)),
        ("redmi_note_9", Wishes(cpus=(5, 6)), (1, 2), (6,), (6, 5)),
        ("redmi_note_9", Wishes(cpus=(5, 6), threads=2), (2, 2), (6, 5), (6, 5)),
        ("redmi_note_9", Wishes(cpus=(7, 8, 9)), (1, 1), (7,), (7,)),
        ("android_go", Wishes(cpus=(1, 3)), (2, 2), (1, 3), (1, 3)),
    ],
)
def test_threads_run_on_the_fast_cores_or_on_those_asked_for(
    name: str,
    wishes: Wishes,
    threads: tuple[int, int],
    cpus: tuple[int, ...],
    prefill_cpus: tuple[int, ...],
) -> None:
    config = chosen(recorded(name).place, wishes)
    assert (config.threads, config.prefill_threads) == threads
    assert (config.cpus, config.prefill_cpus) == (cpus, prefill_cpus)
    assert engine_config(config).cores == cpus


def test_cores_that_the_device_has_not() -> None:
    with pytest.raises(UsageError, match=r"None of the cores 8-9,11 may be used; 0-7 may\."):
        chosen(recorded("redmi_note_9").place, Wishes(cpus=(8, 9, 11)))
