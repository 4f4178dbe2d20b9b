"""Which model is worth downloading for a device."""

from __future__ import annotations

from dataclasses import replace

from qwen_edge.errors import MemoryLimitError
from qwen_edge.model.config import ModelConfig
from qwen_edge.session.footprint import ModelFacts
from qwen_edge.session.known_models import KNOWN_MODELS
from qwen_edge.session.profile import DeviceProfile
from qwen_edge.session.select import Wishes, select, tier_of

# A chat of less is hardly one, and a cache coarser than this costs quality.
USEFUL_CONTEXT, USEFUL_KV = 2048, "int8"
# What is available varies with what else runs; a download of gigabytes should fit tomorrow, too.
STEADY_SHARE = 0.75


def recommended_model(profile: DeviceProfile) -> str | None:
    """The largest Qwen3 model that has a useful context in what the device usually has available.

    None is larger than what is made for its RAM: what little RAM goes with is slow.

    Returns:
        Its name, or None if not even the smallest fits.
    """
    tier = tier_of(profile.total_ram)
    usual = replace(profile, available_ram=int(profile.available_ram * STEADY_SHARE))
    wishes = Wishes(context=min(USEFUL_CONTEXT, tier.context), kv_type=USEFUL_KV)
    names = list(KNOWN_MODELS)
    for name in reversed(names[: names.index(tier.largest) + 1]):
        if refusal(usual, KNOWN_MODELS[name], wishes) is None:
            return name
    return None


def expected_facts(name: str, config: ModelConfig | None, size: int) -> ModelFacts | None:
    """The facts of a Qwen3 model that is not here yet.

    Args:
        name: of the model.
        config: its shape; None where it can only be told by the name.
        size: of its file, in bytes.

    Returns:
        None if the shape is not known.
    """
    known = KNOWN_MODELS.values()
    if config is not None:
        return replace(next(iter(known)), name=name, config=config, weight_bytes=size)
    named = (facts for facts in known if facts.name.lower() in name.lower())
    return next((replace(facts, weight_bytes=size) for facts in named), None)


def refusal(
    profile: DeviceProfile, facts: ModelFacts, wishes: Wishes | None = None
) -> MemoryLimitError | None:
    """Why a model would not run on a device as it is now; None if it would."""
    try:
        select(profile, [facts], wishes)
    except MemoryLimitError as error:
        return error
    return None
