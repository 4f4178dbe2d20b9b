"""The table of commands, and how a command is found in its module.

``--help`` and completion list the commands from the table; a command's module is imported when the
command runs. It holds one of

* ``OPTIONS`` and ``main``: see ``options.py``; its command line is read without typer if possible,
* ``app``: a ``typer.Typer`` with the command or its subcommands.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from typer.core import TyperCommand, TyperGroup

PROGRAM = "qwen-edge"
SUMMARY = "Run INT4 Qwen3 models on this device's CPU, offline."
# Command -> its help. The module has the command's name.
COMMANDS = {
    "chat": "Talk with a model.",
    "run": "Answer one prompt, from arguments or standard input.",
    "bench": "Measure speed and memory on this device.",
    "eval": "Measure how well a model predicts or answers.",
    "models": "List, inspect, move and remove the models on this device.",
    "pull": "Download a model and convert it.",
    "convert": "Turn a checkpoint into a model file.",
    "doctor": "Look at this device and say what it can run.",
    "config": "Show and change settings.",
}


def command_module(name: str) -> ModuleType:
    """Imports the module of a command."""
    return importlib.import_module(f"qwen_edge.cli.{name}")


def load_command(name: str) -> TyperCommand | TyperGroup:
    """Imports a command's module and returns its typer command."""
    import typer.main

    from qwen_edge.cli.options import typer_command

    module = command_module(name)
    if hasattr(module, "OPTIONS"):
        return typer_command(name, module.OPTIONS, module.main, COMMANDS[name])
    command = typer.main.get_command(module.app)
    command.name = name
    return command  # type: ignore[return-value]
