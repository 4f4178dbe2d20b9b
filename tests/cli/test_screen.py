"""What a phone's screen shows: 40 columns, wide characters, odd keys, and turning it around."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_edge.cli.text_cells import cell_width, neutralized
from tests.cli.program import ENDLESS, EXACT, SLOWLY, Terminal, terminal
from tests.cli.screen import Screen
from tests.cli.test_chat import CTRL_D, DEMO, PROMPT, begin, questions, saved
from tests.cli.test_pull import REPO, checkpoint, hub
from tests.host.hub_server import HubServer

pytest.importorskip("readline")
# Fixtures are found by their names here.
__all__ = ["checkpoint", "hub"]
# A line of 44 cells.
CHINESE = "请用一句话告诉我今天的天气怎么样，谢谢你了"


class Shown:
    """The program at a terminal, and what the terminal's screen shows."""

    def __init__(self, opened: Terminal, columns: int) -> None:
        self.terminal = opened
        self.screen = Screen(columns)
        self._written = 0

    def look(self) -> list[str]:
        """The rows, now."""
        self.terminal.read_on()
        text = self.terminal.written
        self.screen.write(text[self._written :])
        self._written = len(text)
        return self.screen.lines

    def turn(self, columns: int) -> None:
        """Changes the width, as turning a phone does."""
        self.look()
        self.screen.resize(columns)
        self.terminal.resize(columns)

    def until(self, text: str) -> list[str]:
        """Waits for a text; the rows then."""
        self.terminal.wait_for(text)
        return self.look()


# What the keys of the extra row send, and those of a keyboard that have no meaning here.
KEYS = {
    "ESC ESC": "\x1b\x1b", "TAB": "\t", "TAB TAB": "\t\t", "PGDN": "\x1b[6~",
    "HOME": "\x1b[H", "END": "\x1b[F", "DOWN": "\x1b[B", "LEFT": "\x1b[D", "RIGHT": "\x1b[C",
    "INS": "\x1b[2~", "DEL": "\x1b[3~", "F1": "\x1bOP", "F5": "\x1b[15~", "F12": "\x1b[24~",
    "CTRL UP": "\x1b[1;5A", "CTRL LEFT": "\x1b[1;5D", "SHIFT TAB": "\x1b[Z", "ALT ?": "\x1b?",
    "ALT *": "\x1b*", "ESC TAB": "\x1b\t", "CTRL L": "\x0c", "CTRL T": "\x14", "CTRL Z": "\x1a",
    "CTRL R, CTRL G": "\x12\x07",
}  # fmt: skip


def test_keys_without_a_meaning_do_nothing(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *EXACT, "-n", "1", columns=40) as opened:
        begin(opened)
        shown = Shown(opened, 40)
        for name, key in KEYS.items():
            opened.send(key)
            opened.rest()
            opened.send(f"{name} pressed\r")
            shown.until("\n" + PROMPT)
        assert shown.screen.bells == 0
        opened.send(CTRL_D)
        assert opened.finish() == 0
    assert questions(saved(home)[0]) == [f"{name} pressed" for name in KEYS]


def test_the_tab_key_completes_commands(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *EXACT, columns=40) as opened:
        begin(opened)
        opened.rest()
        opened.send("/thi\t")
        opened.wait_for("/think ")
        opened.send("off\r")
        opened.wait_for("Thinking is off.")
        opened.wait_for(PROMPT)
        opened.send(CTRL_D)
        assert opened.finish() == 0


def test_a_long_chinese_line_while_the_phone_is_turned(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *EXACT, columns=40) as opened:
        begin(opened)
        shown = Shown(opened, 40)
        opened.rest()
        opened.send(CHINESE + "错了")
        opened.wait_for("错了")
        opened.send("\x7f\x7f")
        opened.rest()
        rows = shown.look()
        place = rows.index(PROMPT + CHINESE[:19])
        assert rows[place + 1] == CHINESE[19:]
        for columns in (60, 40, 30):
            shown.turn(columns)
            opened.rest()
            assert "".join(shown.look()).count(CHINESE) == 1
        opened.send("\r")
        shown.until("\n" + PROMPT)
        opened.send(CTRL_D)
        assert opened.finish() == 0
    assert questions(saved(home)[0]) == [CHINESE]


def test_an_answer_while_the_phone_is_turned(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *ENDLESS, columns=80, **SLOWLY) as opened:
        begin(opened)
        shown = Shown(opened, 80)
        opened.send("Go on.\r")
        opened.wait_for("\n")
        for columns in (40, 80, 33):
            opened.wait_for(" ")
            opened.rest()
            shown.turn(columns)
        opened.press_ctrl_c()
        shown.until("Stopped.")
        opened.wait_for(PROMPT)
        opened.send(CTRL_D)
        assert opened.finish() == 0
    rows = shown.look()
    assert all(cell_width(row) <= 33 for row in rows)
    answer = saved(home)[0]["messages"][1]["content"]
    # Spaces at the margin cannot be seen.
    assert "".join(neutralized(answer).split()) in "".join("".join(rows).split())


def test_a_bar_while_the_phone_is_turned(home: Path) -> None:
    prompt = "A long prompt takes a while to read. " * 150
    with terminal(
        home, "run", *DEMO, *EXACT, prompt, columns=80, **SLOWLY, TERMUX_VERSION="0.118.1"
    ) as opened:
        shown = Shown(opened, 80)
        shown.until("[#")
        for columns in (40, 80, 40):
            shown.turn(columns)
            shown.until("[#")
        assert opened.finish() == 0
    rows = shown.look()
    assert not any("[#" in row or "..]" in row for row in rows), rows
    assert rows[0]


def test_a_download_while_the_phone_is_turned(hub: HubServer, tmp_path: Path) -> None:
    hub.slow = 0.03
    variables = {"HF_ENDPOINT": hub.url, "TERMUX_VERSION": "0.118.1"}
    with terminal(tmp_path / "qe", "pull", REPO, columns=80, **variables) as opened:
        shown = Shown(opened, 80)
        for columns in (40, 80, 40):
            shown.until("[")
            opened.wait_for("%")
            shown.turn(columns)
        shown.until("%")
        hub.slow = 0
        assert opened.finish() == 0
    rows = shown.look()
    assert not any("[#" in row or "..]" in row for row in rows), rows
    assert "Tiny-Qwen-int4.qedge" in "".join(rows)


# What is said at 40 columns; the demo's path aside, which is copied in one piece.
TOLD = {
    "run": ["run", *DEMO, *EXACT, "-n", "2", "--stats", "--explain", "Hello!"],
    "models": ["models"],
    "bench": ["bench", *DEMO, "--quick", "--budget", "5"],
    "doctor": ["doctor"],
    "config": ["config"],
    "a mistake": ["pull", "qwen3-0.7b"],
    "a missing model": ["run", "-m", "nothing-here", "Hello!"],
}


@pytest.mark.parametrize("locale", ["C.UTF-8", "zh_CN.UTF-8"])
@pytest.mark.parametrize("name", TOLD)
def test_nothing_is_broken_by_the_margin(home: Path, name: str, locale: str) -> None:
    with terminal(home, *TOLD[name], columns=40, LC_ALL=locale) as opened:
        shown = Shown(opened, 40)
        opened.finish(120)
        shown.look()
    assert shown.screen.lines
    assert [row for row in shown.screen.broken_rows if "/" not in row] == []


@pytest.mark.parametrize("locale", ["C.UTF-8", "zh_CN.UTF-8"])
def test_what_is_told_is_broken_between_words(home: Path, locale: str) -> None:
    with terminal(home, "chat", *DEMO, *EXACT, "--stats", columns=40, LC_ALL=locale) as opened:
        opened.wait_for(PROMPT)
        shown = Shown(opened, 40)
        for line in ("Hello!", "/help", "/stats", "/think on", "/nonsense", "/think maybe"):
            opened.rest()
            opened.send(line + "\r")
            shown.until("\n" + PROMPT)
        opened.send(CTRL_D)
        assert opened.finish() == 0
    answer = saved(home)[0]["messages"][1]["content"]
    broken = [row for row in shown.screen.broken_rows if row not in answer]
    assert broken == []
