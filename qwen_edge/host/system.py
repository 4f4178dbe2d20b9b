"""The operating system: Android or not, Termux, proot, and what a Python upgrade left behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

from qwen_edge.host.android_properties import read_properties
from qwen_edge.host.place import Place, printable, read_text


class System(NamedTuple):
    """What the program runs on.

    Attributes:
        android: whether the kernel is Android's, under proot too.
        termux: whether it runs in Termux.
        proot: whether it runs in a Linux distribution under proot.
        android_version: ``11`` say, or None.
        api_level: Android's API number, or None.
        device: maker and model, or None.
        chip: name of the system on a chip, or None.
        low_ram: whether Android calls itself a low-memory device.
        kernel: release of the kernel, or None.
    """

    android: bool
    termux: bool
    proot: bool
    android_version: str | None
    api_level: int | None
    device: str | None
    chip: str | None
    low_ram: bool
    kernel: str | None


def is_android(place: Place | None = None) -> bool:
    """Whether this is Android: its own Python, or Termux's variables in any Python."""
    place = place or Place()
    return place.platform == "android" or any(
        name in place.environ for name in ("ANDROID_ROOT", "ANDROID_DATA", "TERMUX_VERSION")
    )


def is_termux(place: Place | None = None) -> bool:
    """Whether this is Termux or a distribution started from it."""
    place = place or Place()
    environ = place.environ
    return "TERMUX_VERSION" in environ or "com.termux" in environ.get("PREFIX", "")


def is_proot(place: Place | None = None) -> bool:
    """Whether system calls pass through proot, which also fakes parts of /proc."""
    place = place or Place()
    if any(name.startswith("PROOT_") for name in place.environ):
        return True
    if "PRoot" in (read_text(place.proc / "version") or ""):
        return True
    # proot traces its processes; on Android hardly anything else does.
    status = read_text(place.proc / "self" / "status") or ""
    tracer = next((line for line in status.splitlines() if line.startswith("TracerPid:")), "")
    return is_android(place) and tracer.partition(":")[2].strip() not in ("", "0")


def read_system(place: Place | None = None) -> System:
    """Gathers the facts; on Android it starts getprop once."""
    place = place or Place()
    android = is_android(place)
    properties = (place.properties or read_properties)() if android else {}

    def known(*names: str) -> str | None:
        found = (printable(properties.get(name, "").strip()) for name in names)
        return next((value for value in found if value), None)

    maker, model = known("ro.product.manufacturer"), known("ro.product.model")
    level = known("ro.build.version.sdk")
    kernel = read_text(place.proc / "sys" / "kernel" / "osrelease")
    return System(
        android=android,
        termux=is_termux(place),
        proot=is_proot(place),
        android_version=known("ro.build.version.release"),
        api_level=int(level) if level and re.fullmatch("[0-9]{1,4}", level) else None,
        device=" ".join(part for part in (maker, model) if part) or None,
        chip=known("ro.soc.model", "ro.hardware.chipname", "ro.board.platform"),
        low_ram=known("ro.config.low_ram") == "true",
        kernel=(printable(kernel.strip()) or None) if kernel else None,
    )


def packages_left_behind(
    names: tuple[str, ...], prefix: Path | None = None, version: str | None = None
) -> dict[str, tuple[str, ...]]:
    """Finds packages that lie in the folder of another Python version only.

    When Termux upgrades Python from 3.x to 3.y, what pip installed stays under ``lib/python3.x``,
    where the new one does not look: the user meets it as "it stopped working".

    Args:
        names: import names to look for.
        prefix: the installation, ``sys.prefix`` by default.
        version: the running version, ``3.14`` say.

    Returns:
        Python version -> the names found there and not in the running one.
    """
    prefix = prefix or Path(sys.prefix)
    version = version or f"{sys.version_info.major}.{sys.version_info.minor}"
    library = prefix / "lib"

    def present(name: str, packages: Path) -> bool:
        return (packages / name).exists() or (packages / f"{name}.py").exists()

    here = library / f"python{version}" / "site-packages"
    missing = [name for name in names if not present(name, here)]
    left: dict[str, tuple[str, ...]] = {}
    try:
        folders = sorted(library.glob("python3.*"))
    except OSError:
        return left
    for folder in folders:
        other = folder.name.removeprefix("python")
        found = tuple(name for name in missing if present(name, folder / "site-packages"))
        if other != version and found:
            left[other] = found
    return left
