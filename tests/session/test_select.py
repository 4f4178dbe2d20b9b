from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.engine.interface import KV_TYPES, EngineConfig
from qwen_edge.errors import MemoryLimitError, UsageError
from qwen_edge.session.footprint import ModelFacts, predict_peak
from qwen_edge.session.profile import DeviceProfile, reserve_for
from qwen_edge.session.reasons import reasons
from qwen_edge.session.recommendation import expected_facts, recommended_model, refusal
from qwen_edge.session.select import (
    TIERS,
    Tier,
    Wishes,
    allowed_bytes,
    drafts_of,
    select,
    tier_of,
)
from qwen_edge.session.setting_table import LOOKUP_MODES
from tests.session.facts import GIB, LARGE, MIB, MIDDLE, SMALL, tiny

PLENTY = DeviceProfile(64 * GIB, 60 * GIB, 0, 8, 2, 6, "neon", False)


def phone(total: float, available: float, swap: float = 1.0) -> DeviceProfile:
    ram, free, swapped = (int(size * GIB) for size in (total, available, swap))
    return DeviceProfile(ram, free, swapped, 8, 2, 6, "neon_dotprod", True)


@pytest.mark.parametrize(
    ("total", "available", "tier", "context", "kv", "answer", "thinking", "reserve"),
    [
        (1.4, 0.55, "<2 GB", 512, "int8", 128, False, 64),
        (1.8, 0.7, "2 GB", 1024, "int8", 256, False, 64),
        (2.7, 1.1, "3 GB", 2048, "int8", 512, False, 86),
        (3.6, 1.4, "4 GB", 4096, "int8", 1024, False, 115),
        (5.5, 2.4, "6 GB", 4096, "f16", 2048, True, 176),
        (7.3, 3.6, "8 GB+", 8192, "f16", 4096, True, 233),
        (15.2, 8.0, "8 GB+", 8192, "f16", 4096, True, 256),
    ],
)
def test_golden_table(
    total: float,
    available: float,
    tier: str,
    context: int,
    kv: str,
    answer: int,
    thinking: bool,
    reserve: int,
) -> None:
    chosen = select(phone(total, available), [SMALL])
    assert (chosen.tier, chosen.context, chosen.kv_type) == (tier, context, kv)
    assert (chosen.max_new_tokens, chosen.thinking) == (answer, thinking)
    assert chosen.reserve // MIB == reserve
    assert (chosen.threads, chosen.prefill_threads) == (2, 8)
    assert (chosen.model, chosen.bits) == ("Qwen3-0.6B", 4)
    sampling = (chosen.temperature, chosen.top_p, chosen.top_k, chosen.min_p)
    assert sampling == ((0.6, 0.95, 20, 0.0) if thinking else (0.7, 0.8, 20, 0.0))


@pytest.mark.parametrize(
    ("total", "available", "model"),
    [
        (1.0, 0.3, None),
        (1.0, 0.8, "Qwen3-0.6B"),
        # Little RAM is slow, even where much of it is free.
        (3.6, 3.2, "Qwen3-0.6B"),
        (5.5, 2.0, "Qwen3-1.7B"),
        (5.5, 1.0, "Qwen3-0.6B"),
        # A phone sold with 8 GB has no room for 4B, and a computer has.
        (7.3, 3.0, "Qwen3-1.7B"),
        (7.3, 4.0, "Qwen3-4B"),
        (7.3, 0.3, None),
        (15.2, 1.2, "Qwen3-0.6B"),
    ],
)
def test_recommended_is_what_has_room(total: float, available: float, model: str | None) -> None:
    assert recommended_model(phone(total, available)) == model


def test_a_model_that_is_not_here_yet_is_judged_by_its_shape_or_name() -> None:
    present = phone(7.3, 2.0)
    for facts in (
        expected_facts("My-Tune", LARGE.config, LARGE.weight_bytes),
        expected_facts("qwen3-4b-instruct-2507-q4_0", None, LARGE.weight_bytes),
    ):
        assert facts is not None
        problem = refusal(present, facts)
        assert problem is not None
        assert problem.values["model"] == facts.name
    small = expected_facts("My-Tune", SMALL.config, SMALL.weight_bytes)
    assert small is not None
    assert refusal(present, small) is None
    assert expected_facts("Another", None, LARGE.weight_bytes) is None


@pytest.mark.parametrize("tier", TIERS[1:], ids=lambda tier: tier.name)
def test_ram_as_marketed_lands_in_its_row(tier: Tier) -> None:
    for share in (1.0, 10**9 / GIB, 0.88):
        assert tier_of(int(tier.gigabytes * GIB * share)) is tier


profiles = st.builds(
    DeviceProfile,
    total_ram=st.integers(256 * MIB, 32 * GIB),
    available_ram=st.integers(0, 32 * GIB),
    swap_free=st.integers(0, 8 * GIB),
    cores=st.integers(1, 16),
    big_cores=st.integers(0, 8),
    little_cores=st.integers(0, 8),
    isa=st.just("neon"),
    android=st.booleans(),
)
wishes = st.builds(
    Wishes,
    context=st.none() | st.integers(1, 256),
    kv_type=st.none() | st.sampled_from(KV_TYPES),
    max_new_tokens=st.none() | st.integers(1, 4096),
    thinking=st.none() | st.booleans(),
    threads=st.none() | st.integers(1, 64),
    prefill_threads=st.none() | st.integers(1, 64),
    lookup=st.none() | st.sampled_from(LOOKUP_MODES),
    reserve=st.none() | st.integers(0, 2 * GIB),
    memory_cap=st.none() | st.integers(1, 8 * GIB),
)
models = st.lists(
    st.sampled_from([SMALL, MIDDLE, LARGE, tiny()]), min_size=1, max_size=3, unique_by=id
)


@given(profiles, models, wishes)
@settings(max_examples=400, deadline=None)
def test_prediction_fits_or_is_refused_with_the_numbers(
    profile: DeviceProfile, candidates: list[ModelFacts], wish: Wishes
) -> None:
    profile = replace(profile, available_ram=min(profile.available_ram, profile.total_ram))
    allowed = allowed_bytes(profile, wish)
    chosen = refusal = None
    try:
        chosen = select(profile, candidates, wish)
    except MemoryLimitError as error:
        refusal = error
    if chosen is None:
        assert refusal is not None
        assert {"needed", "allowed", "available", "reserve"} <= set(refusal.values)
        assert "{" not in str(refusal)
        # Truly nothing fits: not even the shortest context of the smallest candidate.
        for facts in candidates:
            shortest = wish.context or min(512, facts.config.max_positions)
            for kv in [wish.kv_type] if wish.kv_type else KV_TYPES[-1:]:
                threads = wish.threads or profile.big_cores or profile.cores
                ahead = wish.prefill_threads or wish.threads or profile.cores
                drafts = drafts_of(wish.lookup)
                engine = EngineConfig(shortest, kv, threads, ahead, drafts=drafts)
                assert predict_peak(facts, engine) > allowed
        return
    facts = next(facts for facts in candidates if facts.name == chosen.model)
    engine = EngineConfig(
        chosen.context,
        chosen.kv_type,
        chosen.threads,
        chosen.prefill_threads,
        drafts=drafts_of(chosen.lookup),
    )
    assert chosen.predicted_peak == predict_peak(facts, engine) <= allowed
    assert chosen.predicted_peak <= profile.available_ram - chosen.reserve
    assert 1 <= chosen.context <= facts.config.max_positions
    assert chosen.max_new_tokens >= 1
    assert chosen.threads >= 1
    for field, wanted in vars(wish).items():
        if wanted is not None and field not in ("memory_cap", "thinking"):
            assert getattr(chosen, field) == wanted
    assert chosen.thinking in (facts.can_think and bool(wish.thinking), facts.can_think)


@given(st.integers(0, 6 * GIB), st.integers(0, 6 * GIB))
@settings(max_examples=100, deadline=None)
def test_more_memory_never_means_less(first: int, second: int) -> None:
    total = 7 * GIB
    reached = []
    for available in sorted((first, second)):
        try:
            chosen = select(DeviceProfile(total, available, GIB, 8, 4, 4, "", True), [SMALL])
        except MemoryLimitError:
            reached.append((0, 0, 0))
            continue
        # A wider KV type outranks a longer context, as long as half of the context remains.
        exact = KV_TYPES[::-1].index(chosen.kv_type)
        above = 2 * chosen.context >= 8192
        reached.append((1, exact, chosen.context) if above else (0, chosen.context, exact))
    assert reached[0] <= reached[1]


def test_context_shrinks_first_then_the_cache_then_the_model() -> None:
    available = 4 * GIB
    seen: list[tuple[str, str, int]] = []
    while True:
        try:
            chosen = select(phone(7.3, available / GIB), [MIDDLE, SMALL])
        except MemoryLimitError:
            break
        step = (chosen.model, chosen.kv_type, chosen.context)
        if not seen or seen[-1] != step:
            seen.append(step)
        available -= 4 * MIB
    order = [(model, kv) for model, kv, _ in seen]
    assert list(dict.fromkeys(order)) == [
        ("Qwen3-1.7B", "f16"),
        ("Qwen3-1.7B", "int8"),
        ("Qwen3-1.7B", "int4"),
        ("Qwen3-0.6B", "f16"),
        ("Qwen3-0.6B", "int8"),
        ("Qwen3-0.6B", "int4"),
    ]
    f16 = [context for model, kv, context in seen if (model, kv) == ("Qwen3-1.7B", "f16")]
    assert (f16[0], f16[-1]) == (8192, 4096)
    assert f16 == sorted(f16, reverse=True)
    assert seen[-1] == ("Qwen3-0.6B", "int4", 512)


def test_one_gigabyte_phone_still_answers() -> None:
    profile = DeviceProfile(1 * GIB, 500 * MIB, 0, 4, 4, 0, "neon", True)
    chosen = select(profile, [SMALL])
    assert (chosen.context, chosen.max_new_tokens, chosen.kv_type) == (512, 128, "int8")
    assert chosen.predicted_peak <= profile.available_ram - chosen.reserve


def test_int4_cache_is_taken_where_an_int8_cache_would_be_too_short() -> None:
    def kv(profile: DeviceProfile) -> tuple[str, int]:
        chosen = select(profile, [SMALL])
        return chosen.kv_type, chosen.context

    assert kv(phone(1.4, 0.6)) == ("int8", 512)
    assert kv(phone(1.4, 0.44)) == ("int4", 512)
    assert kv(phone(3.6, 1.4)) == ("int8", 4096)
    assert kv(phone(3.6, 0.57))[0] == "int4"
    assert select(phone(1.4, 0.9), [SMALL], kv_types=("f16",)).kv_type == "f16"


def test_wish_that_does_not_fit_is_refused_not_bent() -> None:
    scarce = phone(3.6, 0.9)
    with pytest.raises(MemoryLimitError, match=r"needs .* it may take .* available") as caught:
        select(scarce, [SMALL], Wishes(context=20000))
    hint = caught.value.hint.format(**caught.value.values)
    assert hint == "A --context of 4096 fits."
    assert select(scarce, [SMALL], Wishes(context=4096)).context == 4096
    hopeless = phone(3.6, 0.3)
    with pytest.raises(MemoryLimitError) as refused:
        select(hopeless, [SMALL], Wishes(context=20000))
    assert "--context" not in refused.value.hint
    with pytest.raises(MemoryLimitError, match=r"the cap is 100 MiB") as capped:
        select(PLENTY, [SMALL], Wishes(memory_cap=100 * MIB))
    assert "--memory-cap" in capped.value.hint


def test_wish_out_of_range_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="40960"):
        select(PLENTY, [SMALL], Wishes(context=40961))
    with pytest.raises(UsageError, match="f16, int8"):
        select(PLENTY, [SMALL], Wishes(kv_type="int3"))
    assert select(PLENTY, [SMALL], Wishes(context=40960)).context == 40960


def test_model_without_thinking_keeps_its_own_sampling() -> None:
    chosen = select(PLENTY, [tiny()], Wishes(thinking=True))
    assert not chosen.thinking
    assert (chosen.temperature, chosen.top_k, chosen.top_p) == (0.3, 5, 0.9)
    assert (chosen.context, chosen.max_new_tokens) == (256, 64)


def test_wishes_override_sampling_and_threads() -> None:
    wish = Wishes(temperature=0.0, top_p=0.5, top_k=1, min_p=0.1, threads=3)
    chosen = select(PLENTY, [SMALL], wish)
    assert (chosen.temperature, chosen.top_p, chosen.top_k, chosen.min_p) == (0.0, 0.5, 1, 0.1)
    assert (chosen.threads, chosen.prefill_threads) == (3, 3)
    assert select(PLENTY, [SMALL], Wishes(threads=3, prefill_threads=5)).prefill_threads == 5


def test_reserve_grows_where_swap_is_gone() -> None:
    assert reserve_for(phone(3.6, 1.4, swap=0)) > reserve_for(phone(3.6, 1.4, swap=2))
    pc = replace(phone(3.6, 1.4, swap=0), android=False)
    assert reserve_for(pc) == reserve_for(phone(3.6, 1.4, swap=2))


def test_reasons_name_what_was_shrunk() -> None:
    scarce = phone(7.3, 1.0)
    said = " ".join(map(str, reasons(scarce, SMALL, select(scarce, [SMALL]))))
    assert "8192" in said
    assert "f16" in said
    assert "big cores" in said
    plenty = replace(PLENTY, big_cores=8, little_cores=0)
    assert len(reasons(plenty, SMALL, select(plenty, [SMALL]))) == 1
