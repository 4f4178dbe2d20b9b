"""A model to measure where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from qwen_edge.errors import QwenEdgeError
from qwen_edge.model.synthetic import make_synthetic
from qwen_edge.session.models import SUFFIX, SYNTHETIC_SUFFIX


@contextlib.contextmanager
def synthetic_model(
    size: str, folder: Path, progress: Callable[[int, int, str], None] | None = None
) -> Iterator[Path]:
    """Makes a model with random weights that is deleted again.

    Args:
        size: as ``make_synthetic`` takes it.
        folder: where; made if need be.
        progress: as ``make_synthetic`` takes it.

    Raises:
        UsageError: there is no such size.
        QwenEdgeError: it cannot be written, for lack of space say.
    """
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(dir=folder, prefix="bench-")
    except OSError as error:
        raise QwenEdgeError(
            "The folder {path} cannot be written to: {reason}.",
            "Set QWEN_EDGE_HOME to a folder that is writable.",
            path=folder,
            reason=error.strerror or error,
        ) from None
    with holder as place:
        yield make_synthetic(
            size, Path(place) / f"{size}{SYNTHETIC_SUFFIX}{SUFFIX}", progress=progress
        )
