"""The program ended from outside: its terminal closed, asked to end, or killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.program import (
    ENDLESS,
    EXACT,
    PROGRAM,
    SLOWLY,
    Terminal,
    environment,
    piped,
    processes_of,
    processor_seconds,
    run,
    terminal,
)
from tests.cli.test_chat import CTRL_D, DEMO, PROMPT, begin, questions, saved
from tests.termux.commands import WAKE_LOCK, Commands

CLOSED = "closed terminal"
# How it is ended, and the exit code as a shell tells it.
ENDS = {CLOSED: 129, "SIGHUP": 129, "SIGTERM": 143, "SIGKILL": 137}
# As in an app: closing the terminal ends the shell, and the system tells what runs in it.
SHELL = ("sh", "-c", 'trap : INT; "$@"; exit $?', "sh", *PROGRAM)
ALONE = pytest.mark.parametrize("program", [PROGRAM, SHELL], ids=["alone", "in a shell"])


def program_at(screen: Terminal, home: Path) -> int:
    """The number of the program, which may have been started by a shell."""
    programs = set(processes_of(home))
    (program,) = programs - {screen.pid} or programs
    return program


def end_it(screen: Terminal, end: str, program: int) -> int:
    """Ends the program at a terminal; returns its exit code."""
    if end == CLOSED:
        screen.hang_up()
    else:
        os.kill(program, getattr(signal, end))
    code = screen.wait()
    return code if code >= 0 else 128 - code


def assert_nothing_is_left(home: Path) -> None:
    end = time.monotonic() + 10
    while processes_of(home) and time.monotonic() < end:
        time.sleep(0.05)
    assert not processes_of(home)
    names = {path.name for path in home.rglob("*") if path.is_file()}
    assert all(name == "history" or name.endswith(".json") for name in names), names


def begin_answer(screen: Terminal, question: str) -> None:
    screen.send(question + "\r")
    # The echo of the line, then the first words of the answer.
    screen.wait_for("\n")
    screen.wait_for(" ")


@ALONE
@pytest.mark.parametrize("end", ENDS)
def test_a_chat_in_mid_answer(home: Path, end: str, program: tuple[str, ...]) -> None:
    with terminal(home, "chat", *DEMO, *ENDLESS, program=program, **SLOWLY) as screen:
        begin(screen)
        begin_answer(screen, "One.")
        screen.press_ctrl_c()
        screen.wait_for("Stopped.")
        screen.wait_for(PROMPT)
        begin_answer(screen, "Two.")
        assert end_it(screen, end, program_at(screen, home)) == ENDS[end]
        assert_nothing_is_left(home)
    assert "Traceback" not in screen.screen
    (conversation,) = saved(home)
    # What was answered so far is kept wherever that is possible.
    kept = ["One."] if end == "SIGKILL" else ["One.", "Two."]
    assert questions(conversation) == kept
    assert all(message["content"] for message in conversation["messages"])
    assert (home / "history").read_text().splitlines() == ["One."]
    done = run(home, "chat", *DEMO, *EXACT, "--resume", stdin=b"Three.\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert questions(saved(home)[0]) == [*kept, "Three."]


@pytest.mark.parametrize("end", ENDS)
def test_a_chat_that_waits_for_a_question(home: Path, end: str) -> None:
    with terminal(home, "chat", *DEMO, *EXACT) as screen:
        begin(screen)
        screen.send("Hello!\r")
        screen.wait_for("\n" + PROMPT)
        screen.send("half a li")
        screen.wait_for("half a li")
        screen.rest()
        code = end_it(screen, end, program_at(screen, home))
        # A terminal that is gone may also look like the end of input.
        assert code in ((0, 129) if end == CLOSED else (ENDS[end],))
        assert_nothing_is_left(home)
    assert questions(saved(home)[0]) == ["Hello!"]
    assert (home / "history").read_text() == "Hello!\n"


@ALONE
@pytest.mark.parametrize("end", ENDS)
def test_a_run_in_mid_answer(home: Path, end: str, program: tuple[str, ...]) -> None:
    with terminal(home, "run", *DEMO, *ENDLESS, "Go on.", program=program, **SLOWLY) as screen:
        screen.wait_for(" ")
        assert end_it(screen, end, program_at(screen, home)) == ENDS[end]
        assert_nothing_is_left(home)
    assert "Traceback" not in screen.screen
    assert "error" not in screen.screen


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_run_over_pipes_ends_what_it_has_begun(home: Path, number: signal.Signals) -> None:
    with piped(home, "run", *DEMO, *ENDLESS, "Go on.", **SLOWLY) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdin = None
        first = process.stdout.read(1)
        # Terminals that close send it twice.
        process.send_signal(number)
        process.send_signal(number)
        rest, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert said == b""
    assert (first + rest).endswith(b"\n")


def test_what_shall_go_on_without_its_terminal_does(home: Path) -> None:
    # nohup has the program ignore the signal.
    program = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *PROGRAM)
    with piped(home, "chat", *DEMO, *EXACT, program=program) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Hello!\n")
        process.stdin.flush()
        assert process.stdout.read(1)
        process.send_signal(signal.SIGHUP)
        _, said = process.communicate(b"And then?\n", timeout=30)
    assert (process.returncode, said) == (0, b"")
    assert questions(saved(home)[0]) == ["Hello!", "And then?"]


def test_a_question_goes_on_after_a_closed_terminal(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *ENDLESS, **SLOWLY) as screen:
        begin(screen)
        begin_answer(screen, "One.")
        screen.hang_up()
        assert screen.wait() == ENDS[CLOSED]
    with terminal(home, "chat", *DEMO, *EXACT, "--resume") as screen:
        screen.wait_for("1 turns so far")
        screen.wait_for(PROMPT)
        screen.send("Two.\r")
        screen.wait_for("\n" + PROMPT)
        screen.send(CTRL_D)
        assert screen.finish() == 0
    (conversation,) = saved(home)
    assert questions(conversation) == ["One.", "Two."]


HELPERS = (*WAKE_LOCK, "termux-battery-status", "termux-tts-speak", "termux-tts-engines")
# The sentence that is being spoken when the program is killed is given up sooner than usual.
IMPATIENT = """
import sys
import qwen_edge.host.speaker as speaker
from qwen_edge.cli.app import run_program
speaker._LIMIT, speaker._PER_CHARACTER = 2.0, 0.0
sys.exit(run_program(sys.argv[1:]))
"""


@pytest.mark.parametrize("end", ENDS)
def test_a_chat_with_all_helpers_at_work(home: Path, tmp_path: Path, end: str) -> None:
    phone = Commands(tmp_path / "phone", HELPERS)
    phone.behave("termux-tts-speak", "hangs")
    phone.behave("termux-battery-status", "hangs")
    variables = phone.environment | SLOWLY
    program = (PROGRAM[0], "-c", IMPATIENT)
    with terminal(home, "chat", *DEMO, *ENDLESS, "--speak", program=program, **variables) as screen:
        begin(screen)
        begin_answer(screen, "One.")
        for helper in ("end termux-wake-lock", "begin termux-tts-speak"):
            phone.wait_for(helper)
        # The helpers have the same environment.
        assert end_it(screen, end, screen.pid) == ENDS[end]
    phone.wait_for_silence()
    assert phone.awake == (end == "SIGKILL")
    assert questions(saved(home)[0]) == ["One."] if end != "SIGKILL" else not saved(home)
    # The next start, of whichever command, releases what a kill left.
    assert run(home, "config", "path", changes=phone.environment).returncode == 0
    phone.wait_for_silence()
    assert not phone.awake


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("stuck", ["stdout", "stderr"])
def test_nobody_reads_what_is_written(home: Path, number: signal.Signals, stuck: str) -> None:
    """A paused pager, a terminal that stands still: the pipe is full, and writing waits."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {stuck: writing}
    # Thoughts go to standard error.
    options = (*ENDLESS[1:], "--think") if stuck == "stderr" else ENDLESS
    with subprocess.Popen(
        [*PROGRAM, "run", "-m", "demo", *options, "One."],
        stdin=subprocess.DEVNULL,
        env=environment(home),
        **streams,  # type: ignore[arg-type]
    ) as process:
        wait_until_asleep(process)
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    os.close(reading)
    os.close(writing)


def wait_until_asleep(process: subprocess.Popen[bytes]) -> None:
    """Waits until a program has begun something and does nothing more."""
    used, end = -1.0, time.monotonic() + 60
    while (now := processor_seconds(process.pid)) == 0 or now != used:
        assert time.monotonic() < end, "it is still busy"
        used = now
        time.sleep(0.5)
