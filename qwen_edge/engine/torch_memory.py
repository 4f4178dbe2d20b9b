"""torch's failures to allocate, as the error that a user is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from qwen_edge.errors import MemoryLimitError

# How torch's allocator, and the libraries under it, word it.
_WORDS = ("DefaultCPUAllocator", "not enough memory", "Cannot allocate memory", "std::bad_alloc")


def is_memory_error(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(word in str(error) for word in _WORDS)
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
