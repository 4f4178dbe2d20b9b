"""Standard output and standard error: colour, width, untrusted text, tables, progress."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.cli import answer_view, terminal
from qwen_edge.cli.text_cells import cell_width, fitted, neutralized, padded
from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.sizes import format_size


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    """Standard output and error as one colour terminal of 40 columns."""
    stream = FakeTerminal()
    # Not ``sys.stdout`` itself: pytest puts its own back between fixture and test.
    monkeypatch.setattr(terminal, "sys", SimpleNamespace(stdout=stream, stderr=stream))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LC_ALL", "C")
    for name in ("NO_COLOR", "QWEN_EDGE_LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(terminal, "width", lambda: 40)
    return stream


def test_escape_sequences_of_a_model_die_on_a_terminal(screen: FakeTerminal) -> None:
    terminal.out("\x1b]0;owned\x07\x1b[2Jhi\r\x9b31m\u202ebad\u2066")
    assert screen.getvalue() == "␛]0;owned␇␛[2Jhi\ufffd31mbad\n"


def test_pipes_get_text_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.out("\x1b[31mred\r\n", end="")
    assert capsys.readouterr().out == "\x1b[31mred\r\n"


@given(st.text())
def test_neutralized_text_steers_nothing(text: str) -> None:
    clean = neutralized(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in clean)
    assert not any(0x7F <= ord(c) < 0xA0 for c in clean)
    assert not any(c in clean for c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert neutralized(clean) == clean


def test_thoughts_and_notes_are_dim_on_a_terminal(screen: FakeTerminal) -> None:
    terminal.note("hello {name}", name="\x1b[0mx")
    assert screen.getvalue() == "\x1b[2mhello ␛[0mx\x1b[0m\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "")])
def test_colour_can_be_refused(
    screen: FakeTerminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    terminal.warn("careful")
    assert screen.getvalue() == "warning: careful\n"


def test_an_empty_no_color_counts_as_unset(
    screen: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    terminal.warn("careful")
    assert screen.getvalue() == "\x1b[33mwarning:\x1b[0m careful\n"


def test_errors_are_a_sentence_and_a_hint(screen: FakeTerminal) -> None:
    terminal.show_error(QwenEdgeError("No {thing}.", "Get a {thing}.", thing="{model}"))
    assert screen.getvalue() == (
        "\x1b[31merror:\x1b[0m No {model}.\n\x1b[36mhint:\x1b[0m Get a {model}.\n"
    )


def test_messages_break_between_words_on_a_narrow_terminal(screen: FakeTerminal) -> None:
    terminal.show_error(QwenEdgeError("one two three four five six seven eight nine"))
    assert screen.getvalue() == (
        "\x1b[31merror:\x1b[0m one two three four five six\nseven eight nine\n"
    )


def test_braces_without_values_are_literal(screen: FakeTerminal) -> None:
    terminal.show_error(QwenEdgeError("Write {x} as it is."))
    assert "Write {x} as it is." in screen.getvalue()


def test_a_slip_in_a_template_does_not_hide_the_failure(screen: FakeTerminal) -> None:
    terminal.show_error(QwenEdgeError("A {x}.", "See {nothing}.", x=1))
    assert "A 1." in screen.getvalue()
    assert "See {nothing}." in screen.getvalue()


def test_a_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", FullDisk())
    with pytest.raises(QwenEdgeError, match="No space left on device"):
        terminal.out("text")


def test_standard_error_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", FullDisk())
    terminal.note("hello")
    monkeypatch.setattr(sys, "stderr", None)
    terminal.note("hello")
    with terminal.progress("Working", 3) as bar:
        bar.update(1)


def test_closed_standard_output_is_a_reader_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(BrokenPipeError):
        terminal.out("text")


def test_cell_widths() -> None:
    assert cell_width("abc") == 3
    assert cell_width("世界") == 4
    assert cell_width("e\u0301") == 1
    assert fitted("世界你好", 5) == "世界…"
    assert fitted("abc", 3) == "abc"
    assert fitted("abc", 0) == ""
    assert padded("世", 4) == "世  "


@given(st.text(), st.integers(0, 30))
def test_fitted_text_fits(text: str, cells: int) -> None:
    assert cell_width(fitted(text, cells)) <= cells


def test_tables_align_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table([("世界", 1), ("ab", 22)], ("name", "n"))
    assert capsys.readouterr().out == "name  n\n世界  1\nab    22\n"


def test_a_narrow_terminal_shows_rows_as_blocks(screen: FakeTerminal) -> None:
    terminal.table([("x" * 30, "y" * 30), ("a", "b")], ("first", "second"))
    assert screen.getvalue() == (
        f"first   {'x' * 30}\nsecond  {'y' * 30}\n\nfirst   a\nsecond  b\n"
    )


def test_a_table_that_fits_has_a_bold_head(screen: FakeTerminal) -> None:
    terminal.table([("a", "b")], ("first", "second"))
    assert screen.getvalue() == "\x1b[1mfirst  second\x1b[0m\na      b\n"


def test_an_empty_table_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table([], ("first", "second"))
    terminal.table([])
    assert capsys.readouterr().out == "first  second\n"


@pytest.mark.parametrize("columns", [20, 40, 100])
@pytest.mark.parametrize("label", ["Reading the prompt", "正在读取提示词的全部内容", "x" * 200])
@pytest.mark.parametrize("total", [10, 123_456_789, None])
def test_progress_never_wraps(columns: int, label: str, total: int | None) -> None:
    bar = terminal.progress(label, total)
    for done in (0, 1, 5, 10, 123_456_789):
        for seconds in (0.0, 100.0, 1e6):
            assert cell_width(bar.line(done, seconds, columns)) < columns


def test_progress_tells_share_amounts_and_time_left() -> None:
    bar = terminal.progress("Working", 200, lambda amount: f"{amount} MB")
    line = bar.line(50, 10, 100)
    assert line.startswith("Working [")
    assert " 25%  50 MB/200 MB  0:30" in line
    assert bar.line(500, 10, 100).count("100%") == 1


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_bar_with_speed_never_wraps(columns: int) -> None:
    bar = terminal.progress("正在下载", 8 << 30, format_size, rate=True)
    for speed in (None, 0.0, 1.0, 3e6, 1e12):
        line = bar.line(1 << 30, 100.0, columns, speed)
        assert cell_width(line) < columns
        if columns >= 40 and speed is not None:
            assert f"{format_size(round(speed))}/s" in line


def test_progress_leaves_a_clean_line(screen: FakeTerminal) -> None:
    with terminal.progress("Working", 3) as bar:
        bar.update(1)
    assert "Working [" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_short_work_shows_no_progress(screen: FakeTerminal) -> None:
    with terminal.progress("Working", 3, delay=5) as bar:
        bar.update(1)
    assert screen.getvalue() == ""


def test_reading_a_prompt_shows_a_bar_until_it_is_read(
    screen: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_view, "_PATIENCE", 0.0)
    bar = answer_view.PrefillProgress()
    bar(128, 1000)
    assert "Reading the prompt" in screen.getvalue()
    assert " 13%" in screen.getvalue()
    bar(1000, 1000)
    assert screen.getvalue().endswith("\r\x1b[K")
    bar.clear()


def test_progress_is_absent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress("Working", 3) as bar:
        bar.update(1)
    assert capsys.readouterr().err == ""


def test_progress_is_absent_on_a_dumb_terminal(
    screen: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with terminal.progress("Working", 3) as bar:
        bar.update(1)
    assert screen.getvalue() == ""
