"""Models on shared storage: the warning, the offer at a terminal, and ``models move``."""

from __future__ import annotations

import contextlib
import resource
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_edge.session.models import demo_path
from tests.cli.program import EXACT, PROGRAM, Terminal, environment, run
from tests.cli.running import too_long_lines

NAME = "it's mine"


@pytest.fixture
def card(home: Path) -> Path:
    """A model where termux-setup-storage links shared storage to."""
    path = home / "storage" / "downloads" / f"{NAME}.qedge"
    path.parent.mkdir(parents=True)
    path.write_bytes(demo_path().read_bytes())
    return path


def at_home(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "QWEN_EDGE_HOME": str(home / "qe")}


def copy_of(home: Path) -> Path:
    return home / "qe" / "models" / f"{NAME}.qedge"


@contextlib.contextmanager
def asked(home: Path, card: Path, *, columns: int = 40, **changes: str) -> Iterator[Terminal]:
    command = (*PROGRAM, "run", "-m", str(card), *EXACT, "Hello!")
    with contextlib.closing(
        Terminal(home, command, columns, **at_home(home), **changes)
    ) as terminal:
        yield terminal


def test_without_a_terminal_it_only_warns(home: Path, card: Path) -> None:
    done = run(home, "run", "-m", str(card), *EXACT, stdin=b"Hello!", changes=at_home(home))
    assert (done.returncode, bool(done.stdout)) == (0, True)
    warning, hint = done.stderr.splitlines()
    assert "lies on shared storage" in warning
    assert not copy_of(home).exists()
    # The command is one that can be pasted.
    command = shlex.split(hint.split("`")[1])
    assert command == ["qwen-edge", "models", "move", str(card)]
    moved = run(home, *command[1:], changes=at_home(home))
    assert (moved.returncode, moved.stdout) == (0, f"{copy_of(home)}\n")
    assert copy_of(home).read_bytes() == card.read_bytes()


def test_yes_copies_and_asks_before_it_deletes(home: Path, card: Path) -> None:
    with asked(home, card) as terminal:
        terminal.wait_for("[y/N] ")
        terminal.send("y\r")
        terminal.wait_for("Delete")
        terminal.wait_for("[y/N] ")
        assert copy_of(home).read_bytes() == card.read_bytes()
        terminal.send("y\r")
        assert terminal.finish() == 0
        assert "Hello! I am" in terminal.screen
    assert not card.exists()
    assert copy_of(home).read_bytes() == demo_path().read_bytes()


def test_the_original_stays_unless_the_user_agrees(home: Path, card: Path) -> None:
    with asked(home, card) as terminal:
        terminal.wait_for("[y/N] ")
        terminal.send("y\r")
        terminal.wait_for("Delete")
        terminal.send("\r")
        assert terminal.finish() == 0
    assert card.exists()
    assert copy_of(home).exists()


def test_no_is_asked_for_once(home: Path, card: Path) -> None:
    with asked(home, card) as terminal:
        terminal.wait_for("[y/N] ")
        terminal.send("n\r")
        assert terminal.finish() == 0
    for _ in range(2):
        with asked(home, card) as terminal:
            assert terminal.finish() == 0
            assert "[y/N]" not in terminal.screen
            assert "shared storage" in terminal.screen.replace("\n", " ")
    assert not copy_of(home).exists()


def test_ctrl_c_and_the_end_of_input_are_no_answer(home: Path, card: Path) -> None:
    with asked(home, card) as terminal:
        terminal.wait_for("[y/N] ")
        terminal.press_ctrl_c()
        assert terminal.finish() == 130
    with asked(home, card) as terminal:
        terminal.wait_for("[y/N] ")
        terminal.send("\x04")
        assert terminal.finish() == 0
    with asked(home, card) as terminal:
        terminal.wait_for("[y/N] ")
        terminal.send("n\r")
        assert terminal.finish() == 0
    assert not copy_of(home).exists()


def test_the_question_fits_a_phone_in_both_languages(home: Path, card: Path) -> None:
    for language in ("en", "zh"):
        with asked(home, card, QWEN_EDGE_LANG=language) as terminal:
            terminal.wait_for("[y/N] ")
            assert not too_long_lines(terminal.screen, 40)
            terminal.kill()


def test_a_copy_that_cannot_be_made_is_told_of_and_the_answer_comes(home: Path, card: Path) -> None:
    copy_of(home).parent.mkdir(parents=True)
    copy_of(home).write_bytes(b"another")
    with asked(home, card) as terminal:
        terminal.wait_for("[y/N] ")
        terminal.send("y\r")
        assert terminal.finish() == 0
        assert "another model" in terminal.screen
        assert "Hello! I am" in terminal.screen
    assert copy_of(home).read_bytes() == b"another"


def test_a_disk_that_fills_up_leaves_nothing_behind(home: Path, card: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "models", "move", str(card), "--yes"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(home, **at_home(home)),
        # More than that does not go into a file.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "error:" in done.stderr
    assert list(copy_of(home).parent.iterdir()) == []
    assert card.read_bytes() == demo_path().read_bytes()


def test_the_command(home: Path, card: Path) -> None:
    def move(*options: str) -> tuple[int, str, str]:
        done = run(home, "models", "move", *options, changes=at_home(home))
        return done.returncode, done.stdout, done.stderr

    code, out, err = move(str(card), "--name", "mine", "--yes")
    target = home / "qe" / "models" / "mine.qedge"
    assert (code, out) == (0, f"{target}\n")
    assert "is deleted" in err
    assert (target.exists(), card.exists()) == (True, False)
    code, out, err = move(str(target), "--yes")
    assert (code, out) == (0, f"{target}\n")
    assert "It is there already." in err
    assert target.exists()
    assert move(str(card))[0] == 3
    assert move(str(target), "--name", "a/b")[0] == 2
