"""A model of a terminal's screen: what a user sees of what a program wrote.

It knows what this program and readline write: text with wide and combining characters, line ends,
backspace, moving the cursor, erasing, colours. Lines that were broken at the margin are broken anew
when the width changes, as Termux and most terminals of today do it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from qwen_edge.cli.text_cells import cell_width

_SEQUENCE = re.compile(r"\x1b\[([?>]?)([\d;]*)([A-Za-z])|\x1b[()].|\x1b[=>78]")


@dataclass
class _Row:
    """A row: a string a cell, empty right of a wide character; whether the next one goes on."""

    cells: list[str] = field(default_factory=list)
    goes_on: bool = False

    def put(self, column: int, text: str) -> None:
        self.cells += [" "] * (column + cell_width(text) - len(self.cells))
        self.cells[column] = text
        if cell_width(text) == 2:
            self.cells[column + 1] = ""

    @property
    def text(self) -> str:
        return "".join(self.cells).rstrip()


def _starts(cells: list[str], columns: int) -> list[int]:
    """Where the rows of a line begin; no wide character is broken."""
    starts = [0]
    while len(cells) - starts[-1] > columns:
        next_start = starts[-1] + columns
        starts.append(next_start - (cells[next_start] == ""))
    return starts


class Screen:
    """A screen without a lower end.

    Args:
        columns: its width.

    Attributes:
        bells: how often it rang.
    """

    def __init__(self, columns: int) -> None:
        self.bells = 0
        self._columns = columns
        self._rows = [_Row()]
        self._row = self._column = 0
        self._rest = ""

    def write(self, text: str) -> None:
        """Shows what a program wrote."""
        text, self._rest = self._rest + text, ""
        place = 0
        while place < len(text):
            if text[place] != "\x1b":
                self._character(text[place])
                place += 1
            elif found := _SEQUENCE.match(text, place):
                self._sequence(found[1] or "", found[2] or "", found[3] or "")
                place = found.end()
            elif len(text) - place < 16:
                self._rest = text[place:]
                return
            else:
                raise AssertionError(f"an unknown sequence: {text[place : place + 16]!r}")

    def resize(self, columns: int) -> None:
        """Changes the width."""
        lines: list[list[str]] = [[]]
        cursor = (0, 0)
        for number, row in enumerate(self._rows):
            if number == self._row:
                cursor = (len(lines) - 1, len(lines[-1]) + self._column)
            lines[-1] += row.cells
            if not row.goes_on:
                lines.append([])
        self._columns, self._rows = columns, []
        for number, cells in enumerate(lines[:-1] or lines):
            starts = _starts(cells, columns)
            for start, end in zip(starts, [*starts[1:], len(cells)], strict=True):
                if number == cursor[0] and start <= cursor[1]:
                    self._row, self._column = len(self._rows), min(cursor[1] - start, columns)
                self._rows.append(_Row(cells[start:end], goes_on=end < len(cells)))

    @property
    def lines(self) -> list[str]:
        """The rows, blanks at their ends left out."""
        return [row.text for row in self._rows]

    @property
    def broken_rows(self) -> list[str]:
        """The rows that the margin broke."""
        return [row.text for row in self._rows if row.goes_on]

    @property
    def cursor(self) -> tuple[int, int]:
        """Row and column of the cursor, from 0 on."""
        return self._row, self._column

    def _character(self, character: str) -> None:
        if character == "\n":
            self._go_down()
        elif character == "\r":
            self._column = 0
        elif character == "\b":
            self._column = max(min(self._column, self._columns - 1) - 1, 0)
        elif character == "\a":
            self.bells += 1
        elif character == "\t":
            self._column = min((self._column // 8 + 1) * 8, self._columns - 1)
        elif character >= " ":
            self._show(character)

    def _show(self, character: str) -> None:
        size = cell_width(character)
        row = self._rows[self._row]
        if size == 0:
            if self._column:
                row.cells[self._column - 1] += character
            return
        if self._column + size > self._columns:
            row.goes_on = True
            self._go_down()
            self._column = 0
        self._rows[self._row].put(self._column, character)
        self._column += size

    def _go_down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append(_Row())

    def _sequence(self, private: str, numbers: str, final: str) -> None:
        count = int(numbers.split(";")[0] or 0)
        row = self._rows[self._row]
        if private or final in "mhl" or not final:
            return
        if final == "A":
            self._row = max(self._row - max(count, 1), 0)
        elif final == "B":
            self._row = min(self._row + max(count, 1), len(self._rows) - 1)
        elif final == "C":
            self._column = min(self._column + max(count, 1), self._columns - 1)
        elif final == "D":
            self._column = max(self._column - max(count, 1), 0)
        elif final == "H":
            # What was on the screen before it is cleared stays above, as where one scrolls back.
            self._rows.append(_Row())
            self._row, self._column = len(self._rows) - 1, 0
        elif final == "G":
            self._column = max(count, 1) - 1
        elif final == "K":
            del row.cells[0 if count == 2 else self._column :]
            row.goes_on = False
        elif final == "J":
            del row.cells[self._column :]
            del self._rows[self._row + 1 :]
            row.goes_on = False
        elif final == "P":
            del row.cells[self._column : self._column + max(count, 1)]
        elif final == "@":
            row.cells[self._column : self._column] = [" "] * max(count, 1)
        else:
            raise AssertionError(f"an unknown sequence: CSI {numbers}{final}")
