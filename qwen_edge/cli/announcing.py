"""A notification of the phone while something takes long; elsewhere nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from qwen_edge.cli.awake import maybe_termux
from qwen_edge.cli.interrupts import uninterrupted
from qwen_edge.cli.language import localized, translate
from qwen_edge.errors import QwenEdgeError


@contextlib.contextmanager
def announced(title: str) -> Iterator[Callable[[str], None]]:
    """Shows what goes on within, and in the end what came of it, if it takes long.

    Breaking off takes the notification away.

    Args:
        title: what is being done.

    Yields:
        A function to tell what goes on.
    """
    if not maybe_termux():
        yield lambda text: None
        return
    from qwen_edge.host.notice import Notice
    from qwen_edge.host.system import is_termux

    if not is_termux():
        yield lambda text: None
        return
    notice, last = Notice(title), ""
    try:
        yield notice.update
        last = translate("Done.")
    except QwenEdgeError as error:
        last = localized(error.sentence, error.values)
        raise
    finally:
        with uninterrupted():
            notice.end(last)
