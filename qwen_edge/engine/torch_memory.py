"""torch's failures to allocate, as the error that a user is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from qwen_edge.errors import MemoryLimitError
from qwen_edge.native.library import load

# How torch's allocator, and the libraries under it, the native one among them, word it.
_WORDS = (
    "DefaultCPUAllocator", "not enough memory", "Cannot allocate memory", "std::bad_alloc",
    "an allocation failed",
)  # fmt: skip
# All that compiled code says of an operator that failed.
_NAMELESS = "API call failed"


def is_memory_error(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had."""
    text = str(error)
    if _NAMELESS in text:
        text = (load().qe_last_error() or b"").decode("utf-8", "replace")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(word in text for word in _WORDS)
    )


@contextlib.contextmanager
def torch_memory_errors() -> Iterator[None]:
    """Turns what torch raises for want of memory into a ``MemoryLimitError``.

    Raises:
        MemoryLimitError: an allocation failed.
    """
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        if not is_memory_error(error):
            raise
        raise MemoryLimitError(
            "An allocation failed under the memory cap.",
            "Raise --memory-cap, or use a smaller --context.",
        ) from None
