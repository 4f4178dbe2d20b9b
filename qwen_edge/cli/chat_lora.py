"""``/lora`` in a chat."""

from __future__ import annotations

from pathlib import Path

from qwen_edge.cli.terminal import note, show_error
from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.sizes import format_size
from qwen_edge.session.loaded import LoadedModel


def set_lora(loaded: LoadedModel, argument: str, *, again: bool) -> None:
    """Carries out ``/lora``: takes an adapter, goes without, or tells which there is.

    Args:
        loaded: the model.
        argument: a path, ``off``, or nothing.
        again: whether something was said already, which is computed anew then.
    """
    if not argument:
        _tell_of_lora(loaded)
        return
    scale = loaded.plan.settings.get("lora-scale")
    try:
        lora = loaded.set_lora(
            None if argument == "off" else Path(argument),
            scale if isinstance(scale, float) else 1.0,
        )
    except QwenEdgeError as error:
        show_error(error)
        return
    if lora is None:
        note(
            "No adapter from here on; the conversation is read anew without it."
            if again
            else "No adapter from here on."
        )
    else:
        note(
            "The adapter {name}, rank {rank}, from here on; the conversation is read anew with it."
            if again
            else "The adapter {name}, rank {rank}, from here on.",
            name=lora.name,
            rank=lora.rank,
        )


def _tell_of_lora(loaded: LoadedModel) -> None:
    lora = loaded.lora
    if lora is None:
        note("There is no adapter; write /lora PATH.")
    else:
        note(
            "The adapter {name}, rank {rank}, takes {size}; /lora off goes without it.",
            name=lora.name,
            rank=lora.rank,
            size=format_size(lora.memory),
        )
