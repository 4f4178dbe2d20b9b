"""How many instructions a phone's clang executes to compile the library, on one core.

``python -m tests.arm.instructions`` needs, beside what README.md names, the package qemu-user: the
qemu of qemu-user-static takes no plugins.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from qwen_edge.native import build

from . import mirrors
from .__main__ import prepare, unavailable
from .namespace import RULE, UnavailableError, inside, register
from .root import Store

PLUGIN = Path(__file__).with_name("count_instructions.c")


def main() -> int:
    """Prints the number; the exit code is as that of ``python -m tests.arm``."""
    try:
        store = Store(mirrors.debian())
        return inside(lambda: counted(store))
    except UnavailableError as error:
        return unavailable(error)


def counted(store: Store) -> int:
    """Compiles under the plugin, inside a namespace."""
    qemu = shutil.which("qemu-aarch64")
    try:
        if qemu is None:
            raise UnavailableError("a qemu with plugins is missing (package qemu-user)")
        with store.mastered():
            prepare(store.folder)
            root = store.ready()
            folder = store.folder / "counting"
            folder.mkdir()
            # Of two rules, the later one holds.
            magic = RULE.read_text().strip().split(":")[2:-2]
            register(store.folder / "binfmt", ":".join(["", "counting", *magic, qemu, ""]))
            plugin = folder / "count.so"
            subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", plugin, PLUGIN], check=True)
            os.environ |= {
                "QEMU_LD_PREFIX": str(root),
                "QEMU_PLUGIN": str(plugin),
                "COUNTS": str(folder / "counts"),
            }
            clang = next(root.glob("usr/lib/llvm-*/bin/clang++"))
            # The machine's linker would be found first.
            linker = root / "usr" / "bin" / "aarch64-linux-gnu-ld"
            compiler = [str(clang), f"--sysroot={root}", f"--ld-path={linker}"]
            start = time.monotonic()
            build.build(folder / "library.so", compiler)
            seconds = time.monotonic() - start
            numbers = [int(line) for line in (folder / "counts").read_text().split()]
    except UnavailableError as error:
        return unavailable(error)
    print(f"{sum(numbers):,} instructions in {len(numbers)} programs, {seconds:.0f} s emulated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
