"""The C functions of models, sessions and adapters as ctypes calls them."""

from __future__ import annotations

import ctypes

from qwen_edge.native.library import load


class SessionParams(ctypes.Structure):
    """Settings of a session."""

    _fields_ = tuple((name, ctypes.c_int32) for name in (
        "context", "sequences", "max_rows", "threads", "prefill_threads", "kv_type",
        "fp32_activations",
    ))  # fmt: skip


class CRow(ctypes.Structure):
    """A row of a call."""

    _fields_ = tuple(
        (name, ctypes.c_int32) for name in ("sequence", "position", "token", "wants_logits")
    )


def engine_library() -> ctypes.CDLL:
    """The native library; raises as ``load`` does."""
    library = load()
    if library.qe_session_logits.restype is not ctypes.c_void_p:
        handle, integer = ctypes.c_void_p, ctypes.c_int32
        library.qe_model_destroy.argtypes = [handle]
        library.qe_model_destroy.restype = None
        library.qe_session_destroy.argtypes = [handle]
        library.qe_session_destroy.restype = None
        library.qe_session_create.argtypes = [handle, handle, handle]
        library.qe_session_forward.argtypes = [handle, handle, integer]
        library.qe_session_place.argtypes = [
            handle, integer, integer, handle, integer, handle, integer,
        ]  # fmt: skip
        library.qe_session_truncate.argtypes = [handle, integer, integer]
        library.qe_session_fork.argtypes = [handle, integer, integer, integer]
        library.qe_session_stretch.argtypes = [handle, integer, integer]
        library.qe_session_scratch_bytes.argtypes = [handle]
        library.qe_session_scratch_bytes.restype = ctypes.c_uint64
        pointer, size = ctypes.c_void_p, ctypes.c_uint64
        library.qe_session_prefix_size.argtypes = [handle, integer, pointer, pointer]
        library.qe_session_save_prefix.argtypes = [
            handle, integer, integer, integer, size, pointer, pointer,
        ]  # fmt: skip
        library.qe_session_load_prefix.argtypes = [
            handle, integer, integer, integer, integer, size, pointer, pointer,
        ]  # fmt: skip
        library.qe_session_set_adapter.argtypes = [handle, handle]
        library.qe_adapter_bytes.argtypes = [handle]
        library.qe_adapter_bytes.restype = ctypes.c_uint64
        library.qe_adapter_destroy.argtypes = [handle]
        library.qe_adapter_destroy.restype = None
        library.qe_session_logits.argtypes = [handle, integer]
        library.qe_session_logits.restype = ctypes.c_void_p
    return library
