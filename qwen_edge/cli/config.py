"""``qwen-edge config``: show and change the settings."""

from __future__ import annotations

from typing import Annotated

import typer

from qwen_edge.cli.language import translate
from qwen_edge.cli.report import explained_rows, named_values
from qwen_edge.cli.terminal import note, out, table, warn
from qwen_edge.host.paths import config_file
from qwen_edge.session.config_file import change_file
from qwen_edge.session.setting_table import SETTINGS, setting
from qwen_edge.session.settings import Settings, shown, unknown_variables

app = typer.Typer(
    help="Show and change settings.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Key = Annotated[str, typer.Argument(metavar="KEY", help="Name of a setting.")]


@app.callback(invoke_without_command=True)
def config_command(context: typer.Context) -> None:
    """Show and change settings. Flags and QWEN_EDGE_* variables override the file."""
    if context.invoked_subcommand is None:
        show_command()


@app.command("show")
def show_command(
    explain: Annotated[
        bool,
        typer.Option("--explain", help="All settings with the values in force and their origin."),
    ] = False,
) -> None:
    """Show what is set; with --explain, what a run would use and why."""
    settings = Settings.load()
    for name in unknown_variables():
        warn("{name} is set and means nothing to this program.", name=name)
    if explain:
        _explain()
        return
    if not settings.values:
        note("Nothing is set: everything follows from the device. See --explain.")
    table([(key, shown(key, value.value)) for key, value in settings.values.items()])


def _explain() -> None:
    """Values in force for the model that a run would take."""
    from qwen_edge.session.plan import make_plan

    plan = make_plan()
    plan.model.close()
    named_values(explained_rows(plan.settings.explain(plan.runtime)))
    if plan.choice.reason is not None:
        note(plan.choice.reason.sentence, **plan.choice.reason.values)
    note("For the model {model}.", model=plan.facts.name)


@app.command("set")
def set_command(
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Its new value.")],
) -> None:
    """Write a setting to the file. Put -- before a negative VALUE."""
    known = setting(key)
    change_file(config_file(), known.key, value)
    note("{key} is set in {path}.", key=known.key, path=config_file())


@app.command("unset")
def unset_command(key: Key) -> None:
    """Remove a setting from the file."""
    known = setting(key)
    change_file(config_file(), known.key, None)
    note("{key} is not set in {path}.", key=known.key, path=config_file())


@app.command("keys")
def keys_command() -> None:
    """List all settings with their ranges."""
    rows = []
    for known in SETTINGS.values():
        rows.append((known.key, f"{translate(known.help)} ({translate(known.allowed)})"))
    named_values(rows)


@app.command("path")
def path_command() -> None:
    """Print where the file is."""
    out(str(config_file()))
