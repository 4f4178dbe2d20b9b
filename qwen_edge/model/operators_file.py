"""The library of torch operators as a file: where it is, and how it is built. Needs no torch."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from qwen_edge.host.limits import uncapped_children
from qwen_edge.host.paths import torch_folder
from qwen_edge.model.replacing_file import put_in_place
from qwen_edge.native.build import SOURCE_DIR, CompilerError, find_compiler

_SOURCE = SOURCE_DIR / "torch" / "operators.cpp"
# The stable interface of torch 2.10: what is built with it serves later versions, too.
_FLAGS = (
    "-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-DNDEBUG",
    "-DTORCH_TARGET_VERSION=0x020a000000000000", "-Wl,-z,max-page-size=16384",
)  # fmt: skip
_SECONDS = 600


def operators_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where the library is, or would be, for these sources, this compiler and this torch.

    Args:
        environ: the environment variables, which say where the cache is.

    Raises:
        OSError: torch is not installed, or not as usual.
    """
    return torch_folder(environ) / "operators" / f"operators-{operators_key()}.so"


def build_operators() -> Path:
    """The operators' library, compiled if that was not done yet for these sources and this torch.

    Raises:
        CompilerError: there is no usable compiler.
        OSError: the result cannot be stored.
    """
    target = operators_path()
    folder = target.parent
    if is_own(target):
        return target
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The compiler's own temporary files are in there, too: whatever ends it, nothing is left.
    work = Path(tempfile.mkdtemp(suffix=".partial", dir=folder))
    try:
        partial = work / target.name
        _compile(partial)
        # Two programs that start together build the same twice, and neither sees half of it.
        put_in_place(partial, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for other in folder.glob("operators-*.so"):
        if other != target:
            with contextlib.suppress(OSError):
                other.unlink()
    return target


def operators_key() -> str:
    """Tells sources, flags, compiler and torch apart.

    Raises:
        OSError: torch is not installed, or not as usual.
    """
    digest = hashlib.sha256()
    torch = _torch_package()
    own = (_SOURCE, *sorted(SOURCE_DIR.glob("*.h")), SOURCE_DIR / "isa" / "isa.h")
    for path in (*own, torch / "version.py"):
        digest.update(path.read_bytes())
    compiler = os.environ.get("CXX", "")
    digest.update(repr((_FLAGS, compiler, str(torch))).encode())
    return digest.hexdigest()[:24]


def is_own(path: Path) -> bool:
    """Whether a file is there that nobody but this user can have written: it is to be run."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


@cache
def _torch_package() -> Path:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise FileNotFoundError("torch is not installed")
    return Path(found.origin).parent


def _compile(output: Path) -> None:
    torch = _torch_package()
    try:
        compiler = find_compiler()
    except ValueError as error:
        # Quotes that do not close.
        raise CompilerError(f"$CXX is no command: {error}.") from None
    command = [
        *compiler, *_FLAGS, "-I", str(torch / "include"), str(_SOURCE),
        "-o", str(output), "-L", str(torch / "lib"), "-ltorch_cpu", "-lc10",
    ]  # fmt: skip
    try:
        with uncapped_children():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "TMPDIR": str(output.parent)},
                process_group=0,
            )
    except OSError as error:
        problem = f"The C++ compiler {command[0]} could not be started: {error}."
        raise CompilerError(problem) from None
    try:
        _, errors = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise CompilerError(f"The C++ compiler {command[0]} did not finish.") from None
    finally:
        if process.poll() is None:
            # The whole group: what a compiler starts would outlive it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        first = next((line for line in errors.splitlines() if "error" in line), errors[:200])
        said = first.strip() or f"exit code {process.returncode}"
        raise CompilerError(f"The C++ compiler {command[0]} failed: {said}")
