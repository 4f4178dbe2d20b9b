"""Why a configuration came out as it did, in sentences."""

from __future__ import annotations

from qwen_edge.host.sizes import format_size
from qwen_edge.session.footprint import ModelFacts
from qwen_edge.session.profile import DeviceProfile
from qwen_edge.session.reason import Reason
from qwen_edge.session.select import RuntimeConfig, tier_of


def reasons(profile: DeviceProfile, facts: ModelFacts, config: RuntimeConfig) -> list[Reason]:
    """Says why a configuration came out as it did."""
    tier = tier_of(profile.total_ram)
    allowed = format_size(max(0, profile.available_ram - config.reserve))
    said = [
        Reason(
            "{ram} of RAM make it a device of the {tier} tier.",
            {"ram": format_size(profile.total_ram), "tier": tier.name},
        )
    ]
    wanted = min(tier.context, facts.config.max_positions)
    if config.context < wanted:
        values = {"context": wanted, "allowed": allowed}
        said.append(Reason("A context of {context} would not fit into {allowed}.", values))
    elif wanted < tier.context:
        said.append(Reason("The model takes at most {context} tokens.", {"context": wanted}))
    if tier.kv_type == "f16" and config.kv_type != "f16":
        said.append(Reason("An f16 cache would not fit into {allowed}.", {"allowed": allowed}))
    if config.calibrated:
        said.append(
            Reason(
                "What is calibrated was measured here, with a model of this shape: "
                "`qwen-edge doctor --calibrate`.",
                {},
            )
        )
    elif profile.little_cores and config.threads == profile.big_cores:
        said.append(
            Reason(
                "Decoding waits for memory, which {cores} big cores keep busy.",
                {"cores": profile.big_cores},
            )
        )
    return said
