"""What ``doctor`` tells of Termux: its API, what speaks and listens, and the wake lock."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from qwen_edge.host.paths import wake_lock_folder
from qwen_edge.host.place import Place
from qwen_edge.host.system import is_termux
from qwen_edge.host.wake_lock import State, wake_lock_state

if TYPE_CHECKING:
    from qwen_edge.host.battery import Battery

# What a command is for, in the words of a list.
ABILITIES: Mapping[str, str] = {
    "termux-tts-speak": "speaking",
    "termux-speech-to-text": "listening",
    "termux-clipboard-set": "clipboard",
    "termux-notification": "notifications",
}


class TermuxFacts(NamedTuple):
    """What there is of Termux.

    Attributes:
        api: ``done`` where Termux:API answers, ``absent`` without its package, ``hangs`` mostly
            where its app is missing, ``failed``.
        abilities: values of ``ABILITIES`` whose commands are installed.
        wake_lock: who holds it.
        battery: what Termux:API tells of it; None where it does not.
    """

    api: str
    abilities: tuple[str, ...]
    wake_lock: State
    battery: Battery | None = None


def termux_facts(
    environ: Mapping[str, str] | None = None, place: Place | None = None
) -> TermuxFacts | None:
    """Looks at Termux, which takes up to some seconds; None elsewhere."""
    environ = os.environ if environ is None else environ
    if not is_termux(place or Place()):
        return None
    import shutil

    from qwen_edge.host.battery import answered, ask

    found = [use for name, use in ABILITIES.items() if shutil.which(name)]
    # A question that changes nothing.
    outcome = ask().outcome()
    return TermuxFacts(
        api=outcome.state,
        abilities=tuple(found),
        wake_lock=wake_lock_state(wake_lock_folder(environ)),
        battery=answered(outcome),
    )
