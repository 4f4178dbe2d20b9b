"""A progress bar for making a file, whose size is known only once the work has begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from qwen_edge.cli.terminal import Progress, progress
from qwen_edge.host.sizes import format_size


@contextmanager
def file_progress(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yields a function of bytes done, bytes in all, and what is being worked on."""
    with ExitStack() as stack:
        bar: Progress | None = None

        def update(done: int, total: int, _name: str) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(progress(label, total, unit=format_size))
            bar.update(done)

        yield update
