"""Compiles the native library with one call of any C++17 compiler.

Run as a script it builds in place: ``python qwen_edge/native/build.py``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE_DIR = Path(__file__).resolve().parent
LIBRARY_NAME = "libqwen_edge.so"
# No -march: each file under isa/ switches its own functions to its instruction set.
FLAGS = (
    "-std=c++17 -O3 -fPIC -shared -pthread -fvisibility=hidden -fno-math-errno -fno-trapping-math "
    "-DNDEBUG -Wall -Wextra"
)


class CompilerError(Exception):
    """No usable compiler, or it refused the sources; the message is one sentence."""


def find_compiler() -> list[str]:
    """Returns the compiler command: ``$CXX``, else the first of c++, clang++, g++ on the path.

    Raises:
        CompilerError: there is none; the message says what to install.
    """
    named = os.environ.get("CXX")
    if named:
        return shlex.split(named)
    for name in ("c++", "clang++", "g++"):
        path = shutil.which(name)
        if path:
            return [path]
    raise CompilerError(
        "qwen-edge needs a C++17 compiler: install one with `pkg install clang` on Termux or "
        "`apt install g++` on Debian and Ubuntu, then run the same command again."
    )


def sources() -> list[Path]:
    """All C++ files of the library, in a fixed order."""
    return sorted(SOURCE_DIR.glob("*.cpp")) + sorted((SOURCE_DIR / "isa").glob("*.cpp"))


def build(
    output: Path, compiler: Sequence[str] | None = None, extra_flags: Sequence[str] = ()
) -> Path:
    """Compiles the library to ``output``, replacing it only when the compiler succeeded.

    Raises:
        CompilerError: no compiler, or the compilation failed.
    """
    command = list(compiler or find_compiler())
    partial = output.with_name(output.name + ".partial")
    arguments = [*command, *shlex.split(FLAGS), *extra_flags, "-I", str(SOURCE_DIR)]
    # Android 15 and later map libraries with 16 KiB pages.
    arguments += ["-Wl,-z,max-page-size=16384", "-o", str(partial), *map(str, sources())]
    try:
        result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    except OSError as error:
        problem = f"The C++ compiler {command[0]} could not be started: {error}."
        raise CompilerError(problem) from None
    if result.returncode:
        partial.unlink(missing_ok=True)
        raise CompilerError(
            f"The C++ compiler {command[0]} failed with exit code {result.returncode}:\n"
            f"{result.stderr[-4000:]}"
        )
    partial.replace(output)
    return output


if __name__ == "__main__":
    try:
        print(build(SOURCE_DIR / LIBRARY_NAME, extra_flags=sys.argv[1:]))
    except CompilerError as error:
        sys.exit(str(error))
