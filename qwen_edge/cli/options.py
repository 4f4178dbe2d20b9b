"""Command-line options as data: one table, read by typer and by a parser that needs no typer.

Importing typer and building a command with it takes 70 ms on a PC and several times that on a
phone, each time a prompt is answered. So a command that has to start fast describes its options
here: ``typer_command`` makes the typer command that knows all about help, completion and mistakes,
and ``parse_plain`` reads a command line without mistakes in microseconds and leaves all others to
typer. Both read the same table, so they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typer.core import TyperCommand


class Option(NamedTuple):
    """One option, or the positional arguments.

    Attributes:
        name: key of its value.
        flags: ``--max-tokens`` say, and short forms; none for the positional arguments.
        help: what it does; may have a translation.
        metavar: stands for the value in the help; empty for a switch, which takes none.
        off: the flag that sets a switch to False; the switch is None until one of both is given.
        many: whether it may be given several times; always so for the positional arguments.
        values: completes a beginning of its value.
    """

    name: str
    flags: tuple[str, ...]
    help: str
    metavar: str = ""
    off: str = ""
    many: bool = False
    values: Callable[[str], list[str]] | None = None


class Values(dict[str, object]):
    """What the command line says, by option name; options that were not given are None or empty."""

    def text(self, name: str) -> str | None:
        """The value of an option, if it was given."""
        value = self[name]
        return None if value is None else str(value)

    def many(self, name: str) -> list[str]:
        """The values of an option that may be given several times."""
        value = self[name]
        return [str(item) for item in value] if isinstance(value, (list, tuple)) else []

    def switch(self, name: str) -> bool:
        """Whether a switch is on; one that was not given is off."""
        return bool(self[name])


def empty_values(options: Sequence[Option]) -> Values:
    """The values of an empty command line."""
    return Values({option.name: [] if option.many else None for option in options})


def parse_plain(argv: Sequence[str], options: Sequence[Option]) -> Values | None:
    """Reads a command line that is plainly right.

    Args:
        argv: the arguments after the command's name.
        options: the command's table.

    Returns:
        The values, or None for whatever is unusual: help, an unknown option, a missing value,
        joined short options. Typer then reads the same line and says what there is to say.
    """
    by_flag = {flag: (option, True) for option in options for flag in option.flags}
    by_flag |= {option.off: (option, False) for option in options if option.off}
    positional = next((option.name for option in options if not option.flags), None)
    values = empty_values(options)
    words = iter(argv)
    for word in words:
        if word == "--":
            rest = [*words]
        elif len(word) > 1 and word[0] == "-":
            if not _read_option(word, words, by_flag, values):
                return None
            continue
        else:
            rest = [word]
        if rest and positional is None:
            return None
        if positional is not None:
            values[positional] = [*values.many(positional), *rest]
    return values


def _read_option(
    word: str,
    words: object,
    by_flag: dict[str, tuple[Option, bool]],
    values: Values,
) -> bool:
    flag, equals, value = word.partition("=")
    option, state = by_flag.get(flag, (None, False))
    if option is None or (equals and not (option.metavar and flag.startswith("--"))):
        return False
    if not option.metavar:
        values[option.name] = state
        return True
    if not equals:
        following = next(words, None)  # type: ignore[call-overload]
        if following is None:
            return False
        value = following
    values[option.name] = [*values.many(option.name), value] if option.many else value
    return True


def typer_command(
    name: str, options: Sequence[Option], run: Callable[[Values], int], text: str
) -> TyperCommand:
    """Makes the typer command of a table.

    Args:
        name: of the command.
        options: its table.
        run: called with the values; returns the exit code.
        text: its help.
    """
    import typer

    def command(**given: object) -> int:
        values = empty_values(options)
        # Typer hands over an empty list or None for a list that was not given, by its version.
        values.update({key: value for key, value in given.items() if value is not None})
        return run(values)

    _declare(command, options)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name=name, help=text)(command)
    built = typer.main.get_command(app)
    built.name = name
    return built  # type: ignore[return-value]


def _declare(command: Callable[..., int], options: Sequence[Option]) -> None:
    """Gives a function the signature that typer reads a command's parameters from."""
    import inspect

    parameters = []
    for option in options:
        kind, default = _typer_parameter(option)
        parameters.append(
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}


def _typer_parameter(option: Option) -> tuple[object, object]:
    """The annotation and the default of one parameter, in typer's words."""
    import typer

    from qwen_edge.cli.language import translate

    kind = bool if not option.metavar else list[str] if option.many else str
    text, metavar = translate(option.help), option.metavar or None
    if not option.flags:
        return kind | None, typer.Argument(None, help=text, metavar=metavar, show_default=False)
    flags = option.flags
    if option.off:
        flags = (*flags[:-1], f"{flags[-1]}/{option.off}")
    return kind | None, typer.Option(
        None, *flags, help=text, metavar=metavar, show_default=False, autocompletion=option.values
    )
