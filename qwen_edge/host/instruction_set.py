"""Which kernels a processor can run, by what /proc/cpuinfo says of it."""

from __future__ import annotations

from collections.abc import Mapping

from qwen_edge.host.place import Place, read_text

# Kernels, the fastest first, and the features they need by the kernel's names for them.
_ARM: Mapping[str, frozenset[str]] = {
    "neon_i8mm": frozenset({"asimd", "asimddp", "i8mm"}),
    "neon_dotprod": frozenset({"asimd", "asimddp"}),
    "neon": frozenset({"asimd"}),
}
_X86: Mapping[str, frozenset[str]] = {
    "avx512_vnni": frozenset({"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni"}),
    "avx2": frozenset({"avx2", "fma", "f16c"}),
}


def listed_features(place: Place | None = None) -> frozenset[str]:
    """The features that all cores have which /proc/cpuinfo describes; empty if it does not tell.

    A program may find itself on any core, so what one of them lacks counts for nothing.
    """
    place = place or Place()
    common: frozenset[str] | None = None
    for line in (read_text(place.proc / "cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("Features", "flags"):
            features = frozenset(value.split())
            common = features if common is None else common & features
    return common or frozenset()


def likely_kernels(place: Place | None = None) -> str | None:
    """Name of the fastest kernels for this processor; None where nothing is known of it.

    The native library decides by itself, from what the kernel hands every process: under emulation
    /proc/cpuinfo shows the machine outside. This is for where the library does not load, and for
    descriptions of other machines.
    """
    place = place or Place()
    features = listed_features(place)
    if not features:
        return None
    table = {"aarch64": _ARM, "arm64": _ARM, "x86_64": _X86}.get(place.machine, {})
    return next((name for name, needed in table.items() if needed <= features), "scalar")
