"""Loads the native library and turns its status codes into errors.

Every C function that can fail returns an ``int32_t`` status, 0 for success; the sentence that
explains a failure is kept per thread and read with ``qe_last_error``.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from qwen_edge.errors import DamagedModelError, MemoryLimitError, QwenEdgeError, UsageError

ABI_VERSION = 11
LIBRARY_NAME = "libqwen_edge.so"

STATUS_OK = 0
STATUS_ARGUMENT = 1
STATUS_MEMORY = 2
STATUS_FORMAT = 3
STATUS_IO = 4


def library_path() -> Path:
    """Where the library is."""
    return Path(os.environ.get("QWEN_EDGE_LIBRARY") or Path(__file__).with_name(LIBRARY_NAME))


@cache
def load() -> ctypes.CDLL:
    """Returns the library, loaded once.

    ``QWEN_EDGE_LIBRARY`` names another build of it (a sanitizer build, say).

    Raises:
        QwenEdgeError: the library is absent, does not load, or has another ABI version.
    """
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise QwenEdgeError(
            "The native library {path} does not load: {reason}.",
            "Reinstall with `pip install --force-reinstall --no-deps qwen-edge`; "
            "a C++ compiler is needed (Termux: `pkg install clang`).",
            path=path,
            reason=error,
        ) from error
    library.qe_last_error.restype = ctypes.c_char_p
    library.qe_last_error.argtypes = []
    library.qe_abi_version.restype = ctypes.c_int32
    library.qe_abi_version.argtypes = []
    version = library.qe_abi_version()
    if version != ABI_VERSION:
        raise QwenEdgeError(
            "The native library has interface version {found}, this program needs {needed}.",
            "Reinstall with `pip install --force-reinstall --no-deps qwen-edge`.",
            found=version,
            needed=ABI_VERSION,
        )
    return library


def check(status: int) -> None:
    """Raises the error that a non-zero status of the last call on this thread stands for.

    Raises:
        MemoryLimitError: an allocation failed.
        DamagedModelError: the data handed over is malformed.
        UsageError: an argument is out of its range.
        QwenEdgeError: anything else.
    """
    if status == STATUS_OK:
        return
    message = (load().qe_last_error() or b"unknown failure").decode("utf-8", "replace")
    if status == STATUS_MEMORY:
        raise MemoryLimitError(
            "Out of memory: {reason}.",
            "Use a smaller --context, --kv int4, or raise --memory-cap.",
            reason=message,
        )
    if status == STATUS_FORMAT:
        raise DamagedModelError(
            "The model cannot be used: {reason}.",
            "Download or convert the model again.",
            reason=message,
        )
    if status == STATUS_ARGUMENT:
        raise UsageError("Invalid request: {reason}.", reason=message)
    raise QwenEdgeError("The native library failed: {reason}.", reason=message)
