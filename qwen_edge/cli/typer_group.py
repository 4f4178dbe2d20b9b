"""The typer group that imports a command when it is called, not when it is listed."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from qwen_edge.cli.commands import COMMANDS, PROGRAM, SUMMARY, load_command
from qwen_edge.cli.help_view import with_fitting_help
from qwen_edge.cli.language import translate
from qwen_edge.errors import UsageError


class LazyGroup(TyperGroup):
    """A group over the table of commands."""

    # While true, commands are only listed: their names and help come from the table.
    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; a stand-in with its help while listing.

        Raises:
            UsageError: there is no such command.
        """
        if cmd_name in COMMANDS:
            if self._listing:
                listed = TyperCommand(cmd_name, help=translate(COMMANDS[cmd_name]))
                return with_fitting_help(listed)
            return _translated(load_command(cmd_name))
        if ctx.resilient_parsing or cmd_name.startswith("-"):
            return None
        import difflib

        near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
        raise UsageError(
            "There is no command {name}.",
            "Did you mean {near}?" if near else "Commands: {known}.",
            name=cmd_name,
            near=near[0] if near else "",
            known=", ".join(COMMANDS),
        )

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists the commands in the help."""
        self._listing = True
        try:
            super().format_commands(ctx, formatter)
        finally:
            self._listing = False

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Completes a command's name."""
        self._listing = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self._listing = False


def _translated(command: Any) -> Any:
    """Puts the help of a command, its parameters and its subcommands into the user's language."""
    with_fitting_help(command)
    if command.help:
        command.help = translate(command.help)
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = translate(parameter.help)
    for subcommand in getattr(command, "commands", {}).values():
        _translated(subcommand)
    return command


def _show_version(value: bool) -> None:
    if value:
        from qwen_edge import __version__

        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def build_group() -> Any:
    """The whole command line as a typer group."""
    app = typer.Typer(
        cls=LazyGroup,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help=translate(SUMMARY),
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def program(
        version: bool = typer.Option(
            False,
            "--version",
            callback=_show_version,
            is_eager=True,
            help=translate("Show the version."),
        ),
    ) -> None:
        pass

    return with_fitting_help(typer.main.get_command(app))
