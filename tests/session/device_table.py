"""The table of what every recorded device gets, for people to check.

``python -m tests.session.device_table > tests/golden/device_configurations.txt`` makes it anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from qwen_edge.errors import MemoryLimitError
from qwen_edge.host.device import Device, read_device
from qwen_edge.model.packed import open_model
from qwen_edge.session.footprint import ModelFacts, facts_of
from qwen_edge.session.known_models import KNOWN_MODELS
from qwen_edge.session.models import resolve
from qwen_edge.session.profile import DeviceProfile, read_profile, reserve_for
from qwen_edge.session.recommendation import recommended_model
from qwen_edge.session.select import RuntimeConfig, Wishes, allowed_bytes, select, tier_of
from tests.host.recorded import Recorded, recorded, recorded_names

_COLUMNS = "{:<13}{:>8}{:>6}{:>8}{:>10}{:>13}{:>9}{:>9}"
_HEADINGS = (
    "model", "context", "kv", "answer", "thinking", "temperature", "peak", "left",
)  # fmt: skip


class Version(NamedTuple):
    """A device with one of the amounts of RAM that it is sold with; None where that is hidden."""

    device: Recorded
    gigabytes: int | None
    profile: DeviceProfile


def versions() -> Iterator[Version]:
    """All versions of all recorded devices."""
    for name in recorded_names():
        for size in sorted(recorded(name).sold) or [None]:
            device = recorded(name, size)
            yield Version(device, size, read_profile(device.place))


def shapes() -> list[ModelFacts]:
    """The demo and the three Qwen3 models."""
    with contextlib.closing(open_model(resolve("demo").path)) as demo:
        return [facts_of(demo), *KNOWN_MODELS.values()]


def choice_for(version: Version, facts: ModelFacts) -> RuntimeConfig | MemoryLimitError:
    """The configuration chosen without any wishes, or the refusal."""
    try:
        return select(version.profile, [facts])
    except MemoryLimitError as refusal:
        return refusal


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"


def _cores(device: Device) -> str:
    clusters = (
        f"{len(cluster.cores)} {'big' if cluster.big else 'little'} {cluster.name or '?'}"
        for cluster in device.processor.clusters
    )
    return ", ".join(clusters)


def _heading(version: Version) -> list[str]:
    device, profile = read_device(version.device.place), version.profile
    sold = f"{version.gigabytes} GB" if version.gigabytes else "RAM hidden"
    tier = tier_of(profile.total_ram)
    threads, best = (profile.big_cores, profile.cores), recommended_model(profile)
    return [
        f"{version.device.name}, {sold} (tier {tier.name}, recommended: {best or 'the demo'})",
        f"  {device.kernels or 'kernels unknown'}; {_cores(device)}; "
        f"threads {threads[0]} to decode, {threads[1]} to prefill",
        f"  total {_mib(profile.total_ram)}, available {_mib(profile.available_ram)}, "
        f"reserve {_mib(reserve_for(profile))}, cap {_mib(allowed_bytes(profile, Wishes()))}",
    ]


def _row(version: Version, facts: ModelFacts) -> str:
    chosen = choice_for(version, facts)
    if isinstance(chosen, MemoryLimitError):
        return f"  {facts.name:<13} does not fit: the least is {chosen.values['needed']}"
    left = allowed_bytes(version.profile, Wishes()) - chosen.predicted_peak
    cells = (
        facts.name, chosen.context, chosen.kv_type, chosen.max_new_tokens,
        "on" if chosen.thinking else "off", chosen.temperature,
        _mib(chosen.predicted_peak), _mib(left),
    )  # fmt: skip
    return "  " + _COLUMNS.format(*cells)


def table() -> str:
    """The whole table."""
    lines = [
        "What every recorded device (tests/host/devices) gets for each model when nothing is set.",
        "Sizes are in MiB: cap = available - reserve; peak = predicted with a full context;",
        "left = cap - peak. The least is predicted with the shortest context and smallest cache.",
        "Recommended is the largest model, none above what the RAM is made for, that has a useful",
        "context (2,048 tokens, INT8 cache) in three quarters of what is available.",
        "RAM versions other than the recorded one are in proportion to it.",
    ]
    models = shapes()
    for version in versions():
        lines += ["", *_heading(version), "  " + _COLUMNS.format(*_HEADINGS)]
        lines += [_row(version, facts) for facts in models]
    return "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
