"""From a bare Arm Debian to answers: ``python -m tests.arm``; see README.md beside this file."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.native.programs import ARM

from . import mirrors
from .checks import ANDROID_CORE, CheckError, Core, native_programs, native_suite
from .namespace import UnavailableError, inside, mount, run_arm_programs
from .phone import HOME, SOURCE, Phone
from .root import Store

UNAVAILABLE = 77
"""The exit code where this machine cannot do it, as test programs of many projects have it."""


def main() -> int:
    """Builds, installs and checks; the exit code: 0 all is well, 1 something is not, 77 it cannot
    be tried on this machine, and one line says why."""
    parser = argparse.ArgumentParser(prog="python -m tests.arm", description=__doc__)
    parser.add_argument(
        "--root-only", action="store_true", help="build or check the root and stop there"
    )
    parser.add_argument(
        "--borrow", action="store_true", help="let the machine's own clang compile the library"
    )
    parser.add_argument(
        "--release", default="", help="of Debian; otherwise the machine's own (forky: Python 3.14)"
    )
    parser.add_argument("--figures", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    try:
        store = Store(mirrors.debian(other=options.release))
        return inside(lambda: whole(store, options))
    except UnavailableError as error:
        return unavailable(error)


def unavailable(error: UnavailableError) -> int:
    print(f"The Arm root is not tested on this machine: {error}.", flush=True)
    return UNAVAILABLE


def whole(store: Store, options: argparse.Namespace) -> int:
    """All of it, inside a namespace."""
    try:
        with store.mastered():
            prepare(store.folder)
            if options.root_only:
                store.ready()
                return 0
            found = checked(store, options)
    except UnavailableError as error:
        return unavailable(error)
    except (CheckError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    text = json.dumps(found, indent=1)
    print(text)
    if options.figures is not None:
        options.figures.write_text(text + "\n")
    return 0


def prepare(folder: Path) -> None:
    """Lets this namespace run Arm programs, and finds out early whether it may mount /proc.

    Raises:
        UnavailableError: it may not.
    """
    for name in ("binfmt", "proc"):
        (folder / name).mkdir()
    mount("proc", folder / "proc", "proc")
    run_arm_programs(folder / "binfmt")


@contextmanager
def step(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Says how long a part took, and remembers it."""
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)
    print(f"{name}: {seconds[name]} s", flush=True)


def checked(store: Store, options: argparse.Namespace) -> dict[str, object]:
    """Installs the program on a phone and checks it on each core; the figures."""
    seconds: dict[str, float] = {}
    with step("root", seconds):
        root = store.copy("phone")
    with step("phone", seconds):
        phone = Phone(root)
    with step("install", seconds):
        figures = install(phone, phone.borrow_compiler() if options.borrow else {})
    with step("native test programs", seconds):
        native_programs(phone, same_release=not options.release)
    texts, chats = {}, {}
    first: dict[str, float] = {}
    passed: dict[str, int] = {}
    for name, isa in ARM:
        core = Core(phone, name, isa)
        with step(f"{name}{', as Android' if name == ANDROID_CORE else ''}", seconds):
            answer = core.run()
            texts[answer.out] = name
            first[name] = round(answer.first, 2)
            chats[core.chat()] = name
            core.doctor()
            core.bench()
            if core.android:
                core.calibrate()
            core.slept()
        with step(f"{name}, native suite", seconds):
            passed[name] = native_suite(core)
    if len(texts) > 1 or len(chats) > 1:
        raise CheckError(f"the cores answer differently: {texts} {chats}")
    figures |= {"first streamed token, s": first, "native checks": passed, "seconds": seconds}
    return figures


def install(phone: Phone, environment: Mapping[str, str]) -> dict[str, object]:
    """Runs ``install.sh`` as a user does, with more variables if wanted; what it took."""
    log, pip_log = phone.root / "install.log", HOME / "pip.log"
    installer = ["sh", str(SOURCE / "termux" / "install.sh")]
    more = {**environment, "PIP_LOG": str(pip_log)}
    result = phone.run(installer, more, user=0, log=log)
    said = log.read_text(errors="replace")
    if result.code:
        full = phone.path(pip_log)
        more_said = full.read_text(errors="replace")[-4000:] if full.exists() else ""
        raise CheckError(f"install.sh fails with {result.code}:\n{said[-3000:]}{more_said}")
    if "demo model" not in said:
        raise CheckError(f"install.sh does not try the program out:\n{said[-6000:]}")
    again = phone.run(installer, user=0)
    if again.code or "from the same sources" not in again.out:
        raise CheckError(f"a second install.sh does it all over:\n{again.out}{again.err}")
    phone.give_away()
    return counted(said, phone.path(pip_log).read_text(errors="replace"))


def counted(apt: str, pip: str) -> dict[str, object]:
    """Packages and bytes in what apt said and in pip's log."""
    packages = sum(int(number) for number in re.findall(r"(\d+) newly installed", apt))
    needed = re.findall(r"Need to get ([\d,.]+) (k?M?)B", apt)
    loaded = dict(re.findall(r"Downloading (?:\S+/)?(\S+\.(?:whl|gz)) \(([\d.]+ \S+)\)", pip))
    # An index in a folder of this machine is not downloaded here, but elsewhere it would be.
    local = {Path(name) for name in re.findall(r"Processing (/\S+\.whl)", pip)}
    local = {path for path in local if path.exists() and "pip-ephem" not in str(path)}
    sizes = [size.split() for size in loaded.values()]
    return {
        "apt packages": packages,
        "apt MB": round(sum(map(megabytes, needed)), 2),
        "pip packages": len(loaded) + len(local),
        "pip MB": round(
            sum(map(megabytes, sizes)) + sum(path.stat().st_size for path in local) / 1e6, 2
        ),
    }


def megabytes(size: Sequence[str]) -> float:
    """A number as apt and pip write it, with its unit, in MB."""
    number, unit = size
    scale = {"k": 1e3, "M": 1e6}.get(unit[:1], 1)
    return float(number.replace(",", "")) * scale / 1e6


if __name__ == "__main__":
    sys.exit(main())
