"""Which kernels of the native library this processor can run, and which are in use."""

from __future__ import annotations

import ctypes

from qwen_edge.native.library import check, load

# The environment variable that forces kernels.
ISA_VARIABLE = "QWEN_EDGE_ISA"


def _library() -> ctypes.CDLL:
    library = load()
    library.qe_isa_name.restype = ctypes.c_char_p
    library.qe_isa_list.restype = ctypes.c_char_p
    return library


def isa_name() -> str:
    """Name of the kernels in use, ``avx2`` say."""
    library = _library()
    check(library.qe_isa_select(None))
    return str(library.qe_isa_name().decode())


def available_isas() -> list[str]:
    """Names of the kernels that this processor can run, the fastest first."""
    return str(_library().qe_isa_list().decode()).split(",")
