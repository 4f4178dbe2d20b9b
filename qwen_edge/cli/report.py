"""Reports on standard output that read well at any width: headings, named values, paragraphs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from qwen_edge.cli.language import localized, translate
from qwen_edge.cli.terminal import out, shown, width
from qwen_edge.cli.text_cells import cell_width, padded, wrapped
from qwen_edge.session.settings import Explained

# Below this width a value stands under its name rather than beside it.
_NARROW = 60
_INDENT = 2


def heading(template: str) -> None:
    """Writes a line that begins a part of a report."""
    out("")
    out(translate(template), style="bold")


def named_values(rows: Sequence[tuple[str, str]]) -> None:
    """Writes names (templates) and their values, aligned where there is room."""
    names = [translate(name) for name, _ in rows]
    columns = width()
    beside = max(map(cell_width, names), default=0) + _INDENT
    for name, (_, value) in zip(names, rows, strict=True):
        value = shown(value, sys.stdout)
        if columns >= _NARROW:
            first, *rest = wrapped(value, columns - beside)
            _lines(padded(name, beside) + first, rest, beside)
        elif cell_width(name) + _INDENT + cell_width(value) <= columns:
            out(f"{name}  {value}")
        else:
            _lines(name, wrapped(value, columns - _INDENT), _INDENT)


def _lines(first: str, rest: Sequence[str], indent: int) -> None:
    out("\n".join([first, *(" " * indent + line for line in rest)]))


def paragraph(text: str, indent: int = 0, mark: str = "") -> None:
    """Writes a paragraph; ``mark`` stands before its first line."""
    lines = wrapped(shown(text, sys.stdout), width() - indent)
    for number, line in enumerate(lines):
        out((padded(mark, indent) if number == 0 else " " * indent) + line)


def finding(severity: str, sentence: str, hint: str, values: Mapping[str, object]) -> None:
    """Writes one thing that is amiss, with its hint."""
    paragraph(f"{translate(severity)}: {localized(sentence, values)}", 2, "-")
    if hint:
        paragraph(localized(hint, values), 2)


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes a table in Markdown; the titles may have translations."""
    out("| " + " | ".join(map(translate, titles)) + " |")
    out("|---" * len(titles) + "|")
    for row in rows:
        out("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")


def explained_rows(lines: Sequence[Explained]) -> list[tuple[str, str]]:
    """Settings with value and origin, for ``named_values``."""
    return [(line.key, f"{line.value} ({_origin(line.origin)})") for line in lines]


def _origin(origin: str) -> str:
    """The origin of a value in the user's language; names of flags and files stay."""
    kind, _, detail = origin.partition(" ")
    if kind in ("flag", "environment", "file"):
        return f"{translate(kind)} {detail}"
    return translate(origin)
