"""Help pages in cells of the terminal: wide characters count twice, and 40 columns are enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

from qwen_edge.cli.language import translate
from qwen_edge.cli.terminal import TWO_COLUMNS, width
from qwen_edge.cli.text_cells import cell_width, padded, wrapped

# Typer brings classes of its own or click's, by its version.
_CONTEXT: Any = TyperCommand.context_class
_WIDEST = 80
_LONGEST_TERM = 30
_EXTRAS = re.compile(r"\[(?:default: (.*)|required)\]$", re.DOTALL)


class _Page(_CONTEXT.formatter_class):  # type: ignore[misc]
    """A help page as it is put together; its methods are called by click."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__()
        self.width = min(width(), _WIDEST) - 1

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """The line with the command and what it takes."""
        begin = f"{prefix or translate('Usage: ')}{prog} "
        self._write_lines(begin, args, min(cell_width(begin), 8))

    def write_heading(self, heading: str) -> None:
        """The heading of a list."""
        headings = {
            "Options": translate("Options:"),
            "Arguments": translate("Arguments:"),
            "Commands": translate("Commands:"),
        }
        self.write(f"{headings.get(heading, f'{heading}:')}\n")

    def write_text(self, text: str) -> None:
        """Paragraphs."""
        indent = " " * self.current_indent
        paragraphs = [" ".join(each.split()) for each in text.split("\n\n")]
        lines = [wrapped(each, self.width - len(indent)) for each in paragraphs]
        self.write("\n\n".join("\n".join(f"{indent}{line}" for line in each) for each in lines))
        self.write("\n")

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Options, arguments or commands, and what they are."""
        indent = " " * self.current_indent
        longest = max((cell_width(term) for term, _ in rows), default=0)
        column = min(longest, _LONGEST_TERM) + 2
        for term, text in rows:
            told = _explained(text)
            if self.width < TWO_COLUMNS:
                self.write(f"{indent}{term}\n")
                if told:
                    self._write_lines(f"{indent}    ", told, len(indent) + 4)
            elif cell_width(term) > _LONGEST_TERM:
                self.write(f"{indent}{term}\n")
                self._write_lines(" " * (len(indent) + column), told, len(indent) + column)
            else:
                self._write_lines(indent + padded(term, column), told, len(indent) + column)

    def _write_lines(self, begin: str, text: str, indent: int) -> None:
        """A text behind a beginning, its further lines indented."""
        room = max(self.width - indent, 10)
        first, *rest = wrapped("\0" * (cell_width(begin) - indent) + text, room)
        self.write(f"{begin}{first.lstrip(chr(0))}".rstrip() + "\n")
        for line in rest:
            self.write(f"{' ' * indent}{line}\n")


def _explained(text: str) -> str:
    """The explanation of an option in the user's language, with what click adds to it."""
    match = _EXTRAS.search(text)
    if match is None:
        return translate(text)
    own = text[: match.start()].rstrip()
    value = match[1]
    extra = translate("[required]") if value is None else translate("[default: {value}]")
    space = "" if cell_width(extra[0]) > 1 else " "
    return f"{translate(own)}{space}{extra.replace('{value}', value or '')}".strip()


class _Context(_CONTEXT):  # type: ignore[misc]
    """A call of a command, whose help is laid out here."""

    formatter_class = _Page


def with_fitting_help(command: Any) -> Any:
    """Has a command lay out its help for the terminal it is read on; returns it."""
    command.context_class = _Context
    # In a list of commands, too, the first paragraph is wrapped instead of cut.
    command.get_short_help_str = lambda limit=0: (command.help or "").partition("\n\n")[0]
    return command
