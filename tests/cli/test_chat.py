"""``qwen-edge chat``: at a terminal, over pipes, interrupted, killed, resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.session.store import conversations_folder
from tests.cli.program import (
    ENDLESS,
    EXACT,
    PROGRAM,
    SLOWLY,
    Terminal,
    environment,
    piped,
    run,
    terminal,
)

DEMO = ("-m", "demo")
CTRL_D = "\x04"
PROMPT = "> "


def saved(home: Path) -> list[dict[str, Any]]:
    """All saved conversations, the oldest first."""
    folder = conversations_folder({"QWEN_EDGE_HOME": str(home)})
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in files]


def questions(conversation: dict[str, Any]) -> list[str]:
    return [m["content"] for m in conversation["messages"] if m["role"] == "user"]


def begin(screen: Terminal) -> None:
    screen.wait_for("Ctrl-D leaves")
    screen.wait_for(PROMPT)


@pytest.mark.parametrize("columns", [40, 100])
def test_turns_at_a_terminal(home: Path, columns: int) -> None:
    with terminal(home, "chat", *DEMO, *EXACT, columns=columns) as screen:
        begin(screen)
        screen.send("Hello!\r")
        first = screen.wait_for("\n" + PROMPT)
        screen.send("你好，世界！" * 5 + "\r")
        screen.resize(60)
        screen.wait_for("\n" + PROMPT)
        screen.send("/stats\r")
        screen.wait_for("cached), ")
        screen.wait_for(PROMPT)
        screen.send(CTRL_D)
        assert screen.finish() == 0
    assert len(first.replace("Hello!", "", 1).strip()) > 3
    assert "Traceback" not in screen.screen
    (conversation,) = saved(home)
    assert questions(conversation) == ["Hello!", "你好，世界！" * 5]


def test_waiting_for_a_question_uses_no_processor(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *EXACT) as screen:
        begin(screen)
        screen.send("Hello!\r")
        screen.wait_for("\n" + PROMPT)
        # What follows an answer, saving for one, is done after half a second.
        time.sleep(0.5)
        before = screen.processor_seconds()
        time.sleep(2)
        assert screen.processor_seconds() - before <= 0.02
        screen.send(CTRL_D)
        assert screen.finish() == 0


def test_lines_are_edited_and_remembered(home: Path) -> None:
    pytest.importorskip("readline")
    with terminal(home, "chat", *DEMO, *EXACT) as screen:
        begin(screen)
        screen.send("Hallo\x1b[D\x1b[D\x1b[D\x7fe\r")
        screen.wait_for("\n" + PROMPT)
        screen.send("/exit\r")
        assert screen.finish() == 0
    history = home / "history"
    assert history.read_text().splitlines()[-1] == "Hello"
    assert history.stat().st_mode & 0o777 == 0o600
    with terminal(home, "chat", *DEMO, *EXACT) as screen:
        begin(screen)
        screen.send("\x1b[A\r")
        screen.wait_for("\n" + PROMPT)
        screen.send(CTRL_D)
        assert screen.finish() == 0
    assert [questions(each) for each in saved(home)] == [["Hello"], ["Hello"]]


def test_a_paste_of_several_lines_is_one_message(home: Path) -> None:
    pytest.importorskip("readline")
    with terminal(home, "chat", *DEMO, *EXACT) as screen:
        begin(screen)
        screen.send("\x1b[200~first\nsecond\nthird\x1b[201~\r")
        screen.wait_for("\n" + PROMPT)
        screen.send(CTRL_D)
        assert screen.finish() == 0
    assert questions(saved(home)[0]) == ["first\nsecond\nthird"]


def test_a_paste_into_a_dumb_terminal_is_one_message(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *EXACT, TERM="dumb") as screen:
        begin(screen)
        screen.send("first\nsecond\nthird\n")
        screen.wait_for("\n" + PROMPT)
        screen.send(CTRL_D)
        assert screen.finish() == 0
    assert questions(saved(home)[0]) == ["first\nsecond\nthird"]
    assert "\x1b" not in screen.screen


def test_without_readline_lines_are_read_plainly(home: Path) -> None:
    code = (
        "import sys; sys.modules['readline'] = None\n"
        "from qwen_edge.cli.app import run_program\n"
        "sys.exit(run_program(sys.argv[1:]))\n"
    )
    with terminal(home, "chat", *DEMO, *EXACT, program=[PROGRAM[0], "-c", code]) as screen:
        begin(screen)
        screen.send("first\n第二\n")
        screen.wait_for("\n" + PROMPT)
        screen.press_ctrl_c()
        screen.wait_for("once more leaves")
        screen.wait_for(PROMPT)
        screen.send("third\n")
        screen.wait_for("\n" + PROMPT)
        screen.send(CTRL_D)
        assert screen.finish() == 0
    assert questions(saved(home)[0]) == ["first\n第二", "third"]


def test_a_block_is_one_message(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *EXACT) as screen:
        begin(screen)
        screen.send('"""\r')
        screen.wait_for("... ")
        screen.send("first\r")
        screen.wait_for("... ")
        screen.send("/exit\r")
        screen.wait_for("... ")
        screen.send('"""\r')
        screen.wait_for("\n" + PROMPT)
        screen.send(CTRL_D)
        assert screen.finish() == 0
    assert questions(saved(home)[0]) == ["first\n/exit"]


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *ENDLESS, **SLOWLY) as screen:
        begin(screen)
        screen.send("Go on.\r")
        # The echo of the line, then the first words of the answer.
        screen.wait_for("\n")
        screen.wait_for(" ")
        screen.press_ctrl_c()
        screen.wait_for("Stopped.")
        screen.wait_for(PROMPT)
        screen.send("And then?\r")
        screen.wait_for("\n")
        screen.wait_for(" ")
        screen.press_ctrl_c()
        screen.wait_for("Stopped.")
        screen.wait_for(PROMPT)
        screen.send("/exit\r")
        assert screen.finish() == 0
    (conversation,) = saved(home)
    assert questions(conversation) == ["Go on.", "And then?"]
    assert all(message["content"] for message in conversation["messages"])


def test_ctrl_c_twice_at_the_prompt_leaves(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *EXACT) as screen:
        begin(screen)
        screen.send("half a line")
        screen.press_ctrl_c()
        screen.wait_for("once more leaves")
        screen.wait_for(PROMPT)
        screen.send("Hello!\r")
        screen.wait_for("\n" + PROMPT)
        screen.press_ctrl_c()
        screen.wait_for("once more leaves")
        screen.wait_for(PROMPT)
        screen.press_ctrl_c()
        assert screen.finish() == 130
    assert questions(saved(home)[0]) == ["Hello!"]


def test_commands(home: Path) -> None:
    with terminal(home, "chat", *DEMO, *EXACT) as screen:
        begin(screen)
        for line, said in [
            ("/help", "/think [on|off]"),
            ("/stats", "There was no answer yet."),
            ("/think", "Thinking is on."),
            ("/think off", "Thinking is off."),
            ("/think maybe", "Write /think on or /think off."),
            ("/nonsense", "There is no command /nonsense"),
            ("/clear", "A new conversation."),
        ]:
            screen.send(line + "\r")
            screen.wait_for(said)
            screen.wait_for(PROMPT)
        screen.send("/usr/bin is a folder?\r")
        screen.wait_for("\n" + PROMPT)
        screen.send("/quit\r")
        assert screen.finish() == 0
    assert questions(saved(home)[0]) == ["/usr/bin is a folder?"]


def test_thoughts_are_dim(home: Path) -> None:
    with terminal(home, "chat", *DEMO, "-t", "0", "-n", "300", "--think") as screen:
        begin(screen)
        screen.send("What is 2 + 2?\r")
        shown = screen.wait_for("\n" + PROMPT)
        screen.send(CTRL_D)
        assert screen.finish() == 0
    assert "\x1b[2m" in shown
    assert "<think>" not in shown


def test_clear_begins_a_new_conversation(home: Path) -> None:
    lines = b"Hello!\n/clear\nHow are you?\n"
    done = run(home, "chat", *DEMO, *EXACT, stdin=lines)
    assert done.returncode == 0
    kept = saved(home)
    assert [questions(each) for each in kept] in (
        [["Hello!"], ["How are you?"]],
        [["How are you?"]],
    )
    assert questions(kept[-1]) == ["How are you?"]


def test_over_pipes_each_line_is_a_turn_without_prompts(home: Path) -> None:
    done = run(home, "chat", *DEMO, *EXACT, stdin=b"Hello!\n\n  \nHow are you?\n/exit\nnever\n")
    assert (done.returncode, done.stderr) == (0, "")
    first = run(home, "run", *DEMO, *EXACT, "Hello!").stdout
    assert done.stdout.startswith(first)
    assert len(done.stdout) > len(first)
    assert "> " not in done.stdout
    assert questions(saved(home)[0]) == ["Hello!", "How are you?"]


def test_the_chat_knows_what_was_said(home: Path) -> None:
    lines = b"My name is Ada.\nWhat is my name?\n"
    done = run(home, "chat", *DEMO, *EXACT, "--stats", stdin=lines)
    cached = [line for line in done.stderr.splitlines() if "cached" in line]
    assert "(0 cached)" in cached[0]
    assert "(0 cached)" not in cached[1]


def test_resume_goes_on_where_the_last_chat_ended(home: Path) -> None:
    run(home, "chat", *DEMO, *EXACT, "-s", "Be brief.", stdin=b"Hello!\n")
    done = run(home, "chat", *DEMO, *EXACT, "--resume", stdin=b"How are you?\n")
    assert (done.returncode, done.stderr) == (0, "")
    (conversation,) = saved(home)
    assert questions(conversation) == ["Hello!", "How are you?"]
    assert conversation["system"] == "Be brief."
    whole = run(
        home, "chat", *DEMO, *EXACT, "-s", "Be brief.", stdin=b"Hello!\nHow are you?\n"
    ).stdout
    assert whole.endswith(done.stdout)


def test_resume_without_a_conversation_says_so(home: Path) -> None:
    done = run(home, "chat", *DEMO, *EXACT, "--resume", stdin=b"Hello!\n")
    assert done.returncode == 0
    assert "There is no saved conversation" in done.stderr


def test_a_forged_conversation_is_an_error(home: Path) -> None:
    folder = conversations_folder({"QWEN_EDGE_HOME": str(home)})
    folder.mkdir(parents=True)
    (folder / "x.json").write_text("{}")
    done = run(home, "chat", *DEMO, *EXACT, "--resume", stdin=b"Hello!\n")
    assert done.returncode == 1
    assert "cannot be read" in done.stderr


def test_a_full_context_drops_the_oldest_turns_and_goes_on(home: Path) -> None:
    lines = "".join(f"Tell me about the number {n}, please.\n" for n in range(12))
    done = run(home, "chat", *DEMO, *EXACT, "-c", "128", "-n", "30", stdin=lines.encode())
    assert done.returncode == 0
    assert "The context is full: the oldest" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(questions(saved(home)[0])) == 12


def test_a_message_that_does_not_fit_is_refused_and_the_chat_goes_on(home: Path) -> None:
    lines = b"word " * 300 + b"\nHello!\n"
    done = run(home, "chat", *DEMO, *EXACT, "-c", "64", stdin=lines)
    assert done.returncode == 2
    assert "the context holds 64" in done.stderr
    assert done.stdout.strip()
    assert questions(saved(home)[0]) == ["Hello!"]


def test_running_out_of_memory_saves_the_conversation(home: Path) -> None:
    code = (
        "import sys, qwen_edge.session.memory as memory\n"
        "from qwen_edge.errors import MemoryLimitError\n"
        "from qwen_edge.cli.app import run_program\n"
        "polls = iter(range(10**9))\n"
        "def poll(self):\n"
        "    if next(polls) > 5: raise MemoryLimitError('Memory ran out.')\n"
        "memory.MemoryWatch.poll = poll\n"
        "sys.exit(run_program(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [PROGRAM[0], "-c", code, "chat", *DEMO, *ENDLESS],
        input=b"Go on.\nAnd then?\n",
        capture_output=True,
        env=environment(home),
        check=False,
    )
    assert done.returncode == 4
    told = done.stderr.decode().splitlines()
    assert told == [
        "error: Memory ran out.",
        "The conversation is saved; `qwen-edge chat --resume` goes on with it.",
    ]
    (conversation,) = saved(home)
    assert questions(conversation) == ["Go on."]
    assert conversation["messages"][1]["content"].strip() == done.stdout.decode().strip()


def test_a_disk_that_cannot_be_written_warns_and_goes_on(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "conversations").write_text("a file, not a folder")
    done = run(home, "chat", *DEMO, *EXACT, stdin=b"Hello!\nHow are you?\n")
    assert done.returncode == 0
    assert "warning: The conversation could not be saved to" in done.stderr
    assert len(done.stdout.splitlines()) >= 2


def test_ctrl_c_over_pipes_leaves(home: Path) -> None:
    with piped(home, "chat", *DEMO, *EXACT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Hello!\n")
        process.stdin.flush()
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        process.stdin.close()
        assert process.wait(timeout=20) in (0, 130)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_a_chinese_chat(home: Path) -> None:
    # A locale that the system does not have: readline must take Chinese all the same.
    with terminal(home, "chat", *DEMO, *EXACT, columns=40, LC_ALL="zh_XX.UTF-8") as screen:
        screen.wait_for("Ctrl-D 退出")
        screen.wait_for(PROMPT)
        screen.send("你好\r")
        screen.wait_for("\n" + PROMPT)
        screen.send(CTRL_D)
        assert screen.finish() == 0
    assert questions(saved(home)[0]) == ["你好"]
