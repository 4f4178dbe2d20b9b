"""A progress bar for making a file, whose size is known only once the work has begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from qwen_edge.cli.language import localized, translate
from qwen_edge.cli.terminal import Progress, progress
from qwen_edge.host.sizes import format_size

_LAYERS = "model.layers."


@contextmanager
def file_progress(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yields a function of bytes done, bytes in all, and the tensor that is being worked on."""
    with ExitStack() as stack:
        bar: Progress | None = None

        def update(done: int, total: int, name: str) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(progress(label, total, unit=format_size))
            layer = name.removeprefix(_LAYERS).partition(".")[0]
            if name.startswith(_LAYERS) and layer.isdecimal():
                # The first is layer 1, as people count.
                which = localized("layer {number}", {"number": int(layer) + 1})
                bar.describe(f"{translate(label)}, {which}", total)
            else:
                bar.describe(translate(label), total)
            bar.update(done)

        yield update
