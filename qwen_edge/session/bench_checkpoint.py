"""A model's weights as a checkpoint's folder, for as long as a benchmark takes."""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.limits import uncapped_children
from qwen_edge.host.sizes import format_size
from qwen_edge.host.storage import free_bytes, not_written
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.conversion import Progress
from qwen_edge.model.export_checkpoint import export_checkpoint
from qwen_edge.model.packed import PackedModel

# Tokenizer and the like, and what others may write meanwhile.
_MORE_BYTES = 128 << 20
# Deletes a folder once nobody holds the other end of its standard input any more.
_GUARD = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"


@contextlib.contextmanager
def temporary_checkpoint(
    model: PackedModel, folder: Path, progress: Progress | None = None
) -> Iterator[Path]:
    """Writes a model as a bf16 checkpoint that is deleted at the end.

    A small process of its own sees to that even if this one is killed.

    Args:
        model: an open one.
        folder: where; made if need be.
        progress: as ``export_checkpoint`` takes it; may raise.

    Raises:
        QwenEdgeError: there is too little space on the disk, or it cannot be written.
    """
    needed = 2 * sum(map(math.prod, tensor_shapes(model.config).values())) + _MORE_BYTES
    free = free_bytes(folder)
    if free is not None and free < needed:
        raise QwenEdgeError(
            "its weights take {needed} on the disk, and {free} are free.",
            needed=format_size(needed),
            free=format_size(free),
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=folder, prefix="bench-"))
    except OSError as error:
        raise not_written(folder, error) from None
    with _deleted_at_last(place):
        export_checkpoint(model, place / model.name, progress=progress)
        yield place / model.name


@contextlib.contextmanager
def _deleted_at_last(folder: Path) -> Iterator[None]:
    try:
        with uncapped_children():
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _GUARD, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C at a terminal is not for it.
                start_new_session=True,
            )
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise not_written(folder, error) from None
    try:
        yield
    finally:
        guard.communicate()
        shutil.rmtree(folder, ignore_errors=True)
