"""Standard output and standard error: what goes where, colour, width and progress.

The answer goes to standard output, everything else to standard error. Text may come from a model, a
file or a server, so it never reaches a terminal with its control characters alive.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from qwen_edge.cli.interrupts import Writing, closed_terminal
from qwen_edge.cli.language import localized, translate
from qwen_edge.cli.text_cells import cell_width, fitted, neutralized, padded, wrapped
from qwen_edge.errors import QwenEdgeError

_CODES = {"dim": "2", "bold": "1", "red": "31", "yellow": "33", "cyan": "36"}
_NARROWEST = 20
_ERASE_LINE = "\r\x1b[K"
_LONGEST_CLOCK = 100 * 3600

# On narrower terminals an explanation stands under what it explains.
TWO_COLUMNS = 60


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is there and is a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        # A closed stream.
        return False


def _is_plain() -> bool:
    return os.environ.get("TERM", "") in ("dumb", "")


def has_color(stream: TextIO | None) -> bool:
    """Whether to colour: a terminal that is not dumb, and NO_COLOR is not set (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and not _is_plain()


def _breaks_lines_anew() -> bool:
    """Whether the terminal is known to break its lines anew when its width changes."""
    return any(name in os.environ for name in ("TERMUX_VERSION", "TMUX", "VTE_VERSION"))


def width() -> int:
    """Columns of the terminal at this moment, never less than 20; 80 where there is none."""
    for descriptor in (2, 1, 0):
        try:
            columns = os.get_terminal_size(descriptor).columns
        except OSError:
            continue
        if columns > 0:
            return max(columns, _NARROWEST)
    named = os.environ.get("COLUMNS", "")
    return max(int(named), _NARROWEST) if named.isdigit() and int(named) else 80


def styled(text: str, style: str, stream: TextIO | None) -> str:
    """The text in a style (dim, bold, red, yellow, cyan), if any and if the stream takes colour."""
    if not text or not style or not has_color(stream):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def shown(text: str, stream: TextIO | None) -> str:
    """The text as it may go to a stream: neutralized for a terminal, raw for a pipe or file."""
    return neutralized(text) if is_terminal(stream) else text


def out(text: str, end: str = "\n", style: str = "") -> None:
    """Writes to standard output at once; styles are named as in ``styled``.

    Raises:
        BrokenPipeError: the reader is gone; the program then ends quietly.
        Terminated: the terminal is gone; likewise.
        QwenEdgeError: writing failed, because the disk is full say.
    """
    if sys.stdout is None:
        # Closed by the shell (>&-): nobody wants the output.
        raise BrokenPipeError
    text = shown(text, sys.stdout)
    try:
        _write((styled(text, style, sys.stdout) if style else text) + end, sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as error:
        if _is_hung_up(error, sys.stdout):
            raise closed_terminal() from None
        raise QwenEdgeError(
            "Writing to standard output failed: {reason}.", reason=error.strerror or error
        ) from error


def _write(text: str, stream: TextIO) -> None:
    if Writing.over:
        return
    Writing.count += 1
    Writing.under_way = True
    try:
        stream.write(text)
        stream.flush()
    finally:
        Writing.under_way = False


def _is_hung_up(error: OSError, stream: TextIO) -> bool:
    """Whether writing failed because the terminal was closed, which isatty cannot tell any more."""
    with contextlib.suppress(OSError, ValueError):
        return error.errno == errno.EIO and stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    return False


def err(text: str, end: str = "\n", style: str = "") -> None:
    """Writes to standard error at once; that it cannot be written to stops nothing."""
    if sys.stderr is None:
        return
    text = shown(text, sys.stderr)
    with contextlib.suppress(OSError, ValueError):
        _write((styled(text, style, sys.stderr) if style else text) + end, sys.stderr)


def note(template: str, **values: object) -> None:
    """Tells something in passing, dim; a ``str.format`` template that may have a translation."""
    _tell("", localized(template, values), "dim")


def warn(template: str, **values: object) -> None:
    """Warns; a ``str.format`` template that may have a translation."""
    _tell("warning:", localized(template, values), "yellow")


def show_error(error: QwenEdgeError) -> None:
    """Tells of a failure: its sentence and its hint, in the user's language."""
    _tell("error:", localized(error.sentence, error.values), "red")
    if error.hint:
        _tell("hint:", localized(error.hint, error.values), "cyan")


def _tell(label: str, text: str, style: str) -> None:
    """Writes a message to standard error, broken between words on a terminal.

    The style is the label's, or the text's where there is none.
    """
    label = translate(label)
    if label:
        # The Chinese colon brings its own space.
        text = label + ("" if label.endswith("：") else " ") + text
    lines = wrapped(text, width() - 1) if is_terminal(sys.stderr) else [text]
    if label:
        err(label, end="", style=style)
        lines[0] = lines[0].removeprefix(label)
    for line in lines:
        err(line, style="" if label else style)


def table(
    rows: Sequence[Sequence[object]], headers: Sequence[str] = (), *, aside: bool = False
) -> None:
    """Writes a table to standard output.

    On a terminal that is too narrow for it, each row becomes a block of ``header  value`` lines.

    Args:
        rows: cells of each row, as many as there are headers.
        headers: titles of the columns, or none; they may have translations.
        aside: whether it goes to standard error, since it is not the answer.
    """
    stream = sys.stderr if aside else sys.stdout
    write = err if aside else out
    lines = [[shown(str(cell), stream).replace("\n", " ") for cell in row] for row in rows]
    titles = [translate(title) for title in headers]
    for text, style in _table_lines(lines, titles, width() if is_terminal(stream) else None):
        write(text, style=style)


def _table_lines(
    lines: Sequence[Sequence[str]], titles: Sequence[str], columns: int | None
) -> Iterator[tuple[str, str]]:
    everything = [titles, *lines] if titles else lines
    sizes = [max(map(cell_width, column)) for column in zip(*everything, strict=True)]
    if columns and titles and sum(sizes) + 2 * (len(sizes) - 1) > columns:
        yield from _block_lines(lines, titles)
        return
    for number, line in enumerate(everything):
        style = "bold" if titles and number == 0 else ""
        yield "  ".join(map(padded, line, sizes)).rstrip(), style


def _block_lines(
    lines: Sequence[Sequence[str]], titles: Sequence[str]
) -> Iterator[tuple[str, str]]:
    size = max(map(cell_width, titles))
    for number, line in enumerate(lines):
        if number:
            yield "", ""
        for title, cell in zip(titles, line, strict=True):
            yield f"{padded(title, size)}  {cell}", ""


def progress(
    label: str,
    total: int | None,
    unit: Callable[[int], str] = str,
    delay: float = 0.0,
    rate: bool = False,
) -> Progress:
    """A bar on standard error while something long goes on; nothing where that is no terminal.

    Args:
        label: what is going on; may have a translation.
        total: how much there is to do, above 0; None or 0 where it is not known.
        unit: writes an amount for people, ``format_size`` for bytes say.
        delay: seconds before the bar is drawn at all: short work shows none.
        rate: whether the amount of the last seconds, per second, is shown and tells the time left;
            else that follows from all that was done since the start.
    """
    return Progress(label, total, unit, delay, rate)


class Progress:
    """See ``progress``; a context manager that leaves a clean line behind."""

    INTERVAL = 0.1
    WINDOW = 10.0

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: Callable[[int], str],
        delay: float,
        rate: bool = False,
        style: str = "",
    ) -> None:
        self._style = style
        self._label = translate(label)
        self._total = total
        self._unit = unit
        self._start = time.monotonic()
        self._next = self._start + delay
        self._live = is_terminal(sys.stderr) and not _is_plain()
        # Cells of the bar on the screen.
        self._drawn = 0
        # Time and amount of the draws within the window.
        self._samples: list[tuple[float, int]] | None = [] if rate else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def update(self, done: int) -> None:
        """Tells how much is done by now; draws at most ten times a second."""
        now = time.monotonic()
        if self._live and now >= self._next:
            self._next = now + self.INTERVAL
            columns = width()
            text = self.line(done, now - self._start, columns, self._speed(now, done))
            self._raw(self._erased(columns) + styled(text, self._style, sys.stderr))
            self._drawn = cell_width(text)

    def _speed(self, now: float, done: int) -> float | None:
        """The amount a second lately; None where it is not asked for or not known yet."""
        if self._samples is None:
            return None
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()
        self._samples = [each for each in self._samples if now - each[0] <= self.WINDOW]
        self._samples.append((now, done))
        since, before = self._samples[0]
        return (done - before) / (now - since) if now - since >= 1 else None

    def describe(self, label: str, total: int) -> None:
        """Changes what is going on, in the user's language already, and how much there is to do."""
        self._label, self._total = label, total
        if self._samples:
            self._samples.clear()

    def clear(self) -> None:
        """Takes the bar off the screen; a later update draws it anew."""
        if self._drawn:
            self._raw(self._erased(width()))
            self._drawn = 0

    def _erased(self, columns: int) -> str:
        """Takes the bar off a terminal that may be narrower than when it was drawn."""
        above = (self._drawn - 1) // columns if self._drawn and _breaks_lines_anew() else 0
        return f"\x1b[{above}A\r\x1b[J" if above else _ERASE_LINE

    def line(self, done: int, seconds: float, columns: int, speed: float | None = None) -> str:
        """The bar's text: at most ``columns - 1`` cells, so that it never wraps."""
        room = columns - 1
        name = neutralized(self._label).replace("\n", " ")
        if not self._total:
            return fitted(f"{name}  {self._unit(done)}", room)
        share = min(max(done / self._total, 0.0), 1.0)
        figures = f"{share:4.0%}"
        pace = self._pace(done, share, seconds, speed)
        amounts = f"  {self._unit(done)}/{self._unit(self._total)}{pace}"
        taken = len(figures) + 14
        if cell_width(name) + taken + cell_width(amounts) <= room:
            figures += amounts
        elif self._samples is not None and taken + cell_width(pace) <= room:
            # What goes on has been said before; how fast it goes has not.
            figures += pace
            if cell_width(name) + taken + cell_width(pace) > room:
                name = ""
        if name:
            name = fitted(name, max(room - cell_width(figures) - 4, 4)) + " "
        size = min(room - cell_width(name) - cell_width(figures) - 3, 30)
        if size < 4:
            return fitted(f"{name}{figures}", room)
        filled = int(size * share)
        return f"{name}[{'#' * filled}{'.' * (size - filled)}] {figures}"

    def _pace(self, done: int, share: float, seconds: float, speed: float | None) -> str:
        """Speed and time left, as far as they are known."""
        if self._samples is None:
            return f"  {clock(seconds / share - seconds)}" if seconds > 2 and 0 < share < 1 else ""
        if speed is None:
            return ""
        text = f"  {self._unit(round(speed))}/s"
        left = ((self._total or 0) - done) / speed if speed > 0 else 0
        return f"{text}  {clock(left)}" if 0 < left < _LONGEST_CLOCK else text

    def _raw(self, text: str) -> None:
        try:
            _write(text, sys.stderr)
        except (OSError, ValueError):
            self._live = False


def clock(seconds: float) -> str:
    """Hours, minutes and seconds as on a clock: 0:07, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
