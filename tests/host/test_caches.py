"""The largest cache, as /sys tells it."""

from __future__ import annotations

from pathlib import Path

from qwen_edge.host.caches import largest_cache
from qwen_edge.host.place import Place


def test_the_largest_level_counts(tmp_path: Path) -> None:
    assert largest_cache(Place(sysfs=tmp_path)) is None
    for index, size in enumerate(("32K\n", "32K\n", "512K\n", "2M\n", "unknown\n")):
        folder = tmp_path / "devices" / "system" / "cpu" / "cpu0" / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(size)
    assert largest_cache(Place(sysfs=tmp_path)) == 2 << 20
