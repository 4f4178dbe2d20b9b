"""The processor's caches, as far as the kernel tells."""

from __future__ import annotations

from qwen_edge.host.place import Place, read_text
from qwen_edge.host.sizes import parse_size

_MOST_LEVELS = 8


def largest_cache(place: Place | None = None) -> int | None:
    """Bytes of the largest cache that the first core reaches, or None where that is hidden."""
    place = place or Place()
    folder = place.sysfs / "devices" / "system" / "cpu" / "cpu0" / "cache"
    sizes = []
    for index in range(_MOST_LEVELS):
        text = read_text(folder / f"index{index}" / "size", 64)
        try:
            sizes.append(parse_size((text or "").strip()))
        except ValueError:
            continue
    return max(sizes, default=None)
