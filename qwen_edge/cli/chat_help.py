"""The slash commands of ``qwen-edge chat``, and what ``/help`` says of them."""

from __future__ import annotations

import sys
from typing import NamedTuple

from qwen_edge.cli.terminal import TWO_COLUMNS, err, is_terminal, note, width
from qwen_edge.cli.text_cells import wrapped


class Command(NamedTuple):
    """A slash command: how it is written, and what it does."""

    usage: str
    help: str


COMMANDS = {
    "/help": Command("/help", "Show these commands."),
    "/think": Command("/think [on|off]", "Think before answering, or do not."),
    "/lora": Command("/lora [PATH|off]", "Answer with a LoRA adapter, or without."),
    "/copy": Command("/copy", "Put the last answer on the clipboard."),
    "/listen": Command("/listen", "Listen for the next message."),
    "/clear": Command("/clear", "Begin a new conversation."),
    "/stats": Command("/stats", "Show speed and memory of the last answer."),
    "/exit": Command("/exit", "Leave; Ctrl-D does too."),
}


def show_help() -> None:
    """Lists the commands on standard error."""
    from qwen_edge.cli.language import translate

    for command in COMMANDS.values():
        told = translate(command.help)
        if is_terminal(sys.stderr) and width() < TWO_COLUMNS:
            lines = [command.usage, *(f"    {line}" for line in wrapped(told, width() - 5))]
        else:
            lines = [f"{command.usage:<17}{told}"]
        for line in lines:
            err(line, style="dim")
    note('Lines between two lines of """ are one message.')
