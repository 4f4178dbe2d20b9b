"""Operators of torch over the native kernels: built on first use, kept, and loaded once.

``torch.ops.qwen_edge`` then has the operators that a Qwen3 is made of; their arguments are
described in operators_torch.py, which has the same in pure torch, for machines without a compiler
and as a witness in tests.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch

from qwen_edge.model import operator_shapes
from qwen_edge.model.operators_file import build_operators
from qwen_edge.native.library import check, load


class _Functions(ctypes.Structure):
    """``Functions`` of native/torch/operators.cpp."""

    _fields_ = tuple((f"qe_{name}", ctypes.c_void_p) for name in (
        "operator_linear", "operator_embedding", "operator_rms_norm", "operator_rotate",
        "operator_silu_mul", "operator_attention", "last_error",
    ))  # fmt: skip


def set_threads(threads: int, prefill_threads: int) -> None:
    """How many threads share a call of one row, and one of several.

    Args:
        threads: 1 to 254, likewise ``prefill_threads``.

    Raises:
        UsageError: a number is out of range.
    """
    check(load().qe_operators_threads(threads, prefill_threads))


@cache
def native_operators() -> Any:
    """The namespace of operators over the native kernels.

    Raises:
        CompilerError: they are not built yet, and there is no usable compiler.
        OSError: what was built cannot be stored or loaded.
    """
    path = _loaded_file()
    library = load()
    names = (name for name, *_ in _Functions._fields_)
    functions = _Functions(*(ctypes.cast(library[name], ctypes.c_void_p) for name in names))
    # Compiled layers call the operators by their names.
    bind = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL).qwen_edge_bind
    bind.restype = None
    bind(ctypes.byref(functions))
    operator_shapes.register("qwen_edge")
    return torch.ops.qwen_edge


def _loaded_file() -> Path:
    """Builds and loads the operators' library; one that is damaged is built once more."""
    path = build_operators()
    try:
        torch.ops.load_library(str(path))
    except OSError:
        path.unlink()
        path = build_operators()
        torch.ops.load_library(str(path))
    return path
