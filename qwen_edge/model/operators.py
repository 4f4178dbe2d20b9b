"""Operators of torch over the native kernels: built on first use, kept, and loaded once.

``torch.ops.qwen_edge`` then has the operators that a Qwen3 is made of; their arguments are
described in operators_torch.py, which has the same in pure torch, for machines without a compiler
and as a witness in tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from qwen_edge.host.limits import uncapped_children
from qwen_edge.host.paths import torch_folder
from qwen_edge.model import operator_shapes
from qwen_edge.native.build import SOURCE_DIR, CompilerError, find_compiler
from qwen_edge.native.library import load

_SOURCE = SOURCE_DIR / "torch" / "operators.cpp"
# The stable interface of torch 2.10: what is built with it serves later versions, too.
_FLAGS = (
    "-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-DNDEBUG",
    "-DTORCH_TARGET_VERSION=0x020a000000000000", "-Wl,-z,max-page-size=16384",
)  # fmt: skip
_SECONDS = 600


class _Functions(ctypes.Structure):
    """``Functions`` of native/torch/operators.cpp."""

    _fields_ = tuple((f"qe_{name}", ctypes.c_void_p) for name in (
        "operator_linear", "operator_embedding", "operator_rms_norm", "operator_rotate",
        "operator_silu_mul", "operator_attention", "last_error",
    ))  # fmt: skip


def set_threads(threads: int, prefill_threads: int) -> None:
    """How many threads share a call of one row, and one of several; 1 to 256 each."""
    from qwen_edge.native.library import check

    check(load().qe_operators_threads(threads, prefill_threads))


@cache
def native_operators() -> Any:
    """The namespace of operators over the native kernels.

    Raises:
        CompilerError: they are not built yet, and there is no usable compiler.
        OSError: what was built cannot be stored or loaded.
    """
    path = build_operators()
    library = load()
    names = (name for name, *_ in _Functions._fields_)
    functions = _Functions(*(ctypes.cast(library[name], ctypes.c_void_p) for name in names))
    torch.ops.load_library(str(path))
    # Compiled layers call the operators by their names.
    bind = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL).qwen_edge_bind
    bind.restype = None
    bind(ctypes.byref(functions))
    operator_shapes.register("qwen_edge")
    return torch.ops.qwen_edge


def build_operators() -> Path:
    """The operators' library, compiled if that was not done yet for these sources and this torch.

    Raises:
        CompilerError: there is no usable compiler.
        OSError: the result cannot be stored.
    """
    folder = torch_folder() / "operators"
    target = folder / f"operators-{operators_key()}.so"
    if is_own(target):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(suffix=".partial", dir=folder)
    os.close(descriptor)
    partial = Path(name)
    try:
        _compile(partial)
        # Two programs that start together build the same twice, and neither sees half of it.
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    for other in folder.glob("operators-*.so"):
        if other != target:
            with contextlib.suppress(OSError):
                other.unlink()
    return target


def operators_key() -> str:
    """Tells sources, flags, compiler and torch apart."""
    digest = hashlib.sha256()
    for path in (_SOURCE, *sorted(SOURCE_DIR.glob("*.h")), SOURCE_DIR / "isa" / "isa.h"):
        digest.update(path.read_bytes())
    compiler = os.environ.get("CXX", "")
    digest.update(repr((_FLAGS, compiler, torch.__version__, torch.__file__)).encode())
    return digest.hexdigest()[:24]


def is_own(path: Path) -> bool:
    """Whether a file is there that nobody but this user can have written: it is to be run."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _compile(output: Path) -> None:
    folder = Path(torch.__file__).parent
    command = [
        *find_compiler(), *_FLAGS, "-I", str(folder / "include"), str(_SOURCE),
        "-o", str(output), "-L", str(folder / "lib"), "-ltorch_cpu", "-lc10",
    ]  # fmt: skip
    try:
        with uncapped_children():
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        _, errors = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise CompilerError(f"The C++ compiler {command[0]} did not finish.") from None
    except OSError as error:
        problem = f"The C++ compiler {command[0]} could not be started: {error}."
        raise CompilerError(problem) from None
    if process.returncode:
        first = next((line for line in errors.splitlines() if "error" in line), errors[:200])
        raise CompilerError(f"The C++ compiler {command[0]} failed: {first.strip()}")
