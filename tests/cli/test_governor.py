"""A hot phone, simulated, as its user meets it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from qwen_edge.session.store import conversations_folder
from tests.cli.program import ENDLESS, EXACT, PROGRAM, SLOWLY, Terminal, environment, run, terminal
from tests.host.test_battery_poll import eventually, running
from tests.session.hot_phone import HotPhone, hurried

DEMO = ("-m", "demo", "--threads", "2")
# A hundred times as fast as on a phone: a step takes a quarter of a second, or half of one.
FAST = hurried(100)


@pytest.fixture
def phone(tmp_path: Path) -> HotPhone:
    return HotPhone(tmp_path / "phone")


def chat(home: Path, phone: HotPhone, *options: str, columns: int = 100) -> Terminal:
    variables = phone.environ | SLOWLY
    command = [*FAST, "chat", *DEMO, *ENDLESS, *options]
    return Terminal(home, command, columns, **variables)


def begin(screen: Terminal, question: str = "Tell me a story.") -> None:
    screen.wait_for("Ctrl-D leaves")
    screen.wait_for("> ")
    screen.send(f"{question}\r")


def saved(home: Path) -> list[dict[str, object]]:
    folder = conversations_folder({"QWEN_EDGE_HOME": str(home)})
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]


def test_a_hot_phone_pauses_and_goes_on(home: Path, phone: HotPhone) -> None:
    phone.battery(temperature=48.2)
    screen = chat(home, phone)
    try:
        begin(screen)
        # Each on a line of its own, in the middle of an answer.
        screen.wait_for("\nThe phone is hot (48 °C): 1 of 2 threads from here on.\n".strip())
        screen.wait_for("shorter answers (50%) from here on.")
        screen.wait_for("a pause until it has cooled down.")
        phone.battery(temperature=35.0)
        screen.wait_for("The pause is over: the answer goes on.")
        screen.wait_for("everything as before.")
        screen.press_ctrl_c()
        screen.wait_for("Stopped.")
        screen.send("/stats\r")
        screen.wait_for("paused for")
        screen.wait_for("s: The phone is hot (48 °C): a pause")
        screen.send("/exit\r")
        assert screen.finish() == 0
    finally:
        screen.close()
    told = [line for line in screen.screen.splitlines() if "from here on." in line]
    assert all(line.startswith(("\x1b[2mThe phone", "\x1b[2mafter")) for line in told)


def test_ctrl_c_ends_a_pause(home: Path, phone: HotPhone) -> None:
    phone.battery(temperature=48.2)
    screen = chat(home, phone)
    try:
        begin(screen)
        screen.wait_for("a pause until it has cooled down.")
        screen.press_ctrl_c()
        screen.wait_for("Stopped. Ctrl-C once more leaves.")
        screen.wait_for("> ")
        screen.press_ctrl_c()
        assert screen.finish() == 130
    finally:
        screen.close()
    assert len(saved(home)) == 1


def test_a_phone_that_is_too_hot_stops_and_keeps_the_conversation(
    home: Path, phone: HotPhone
) -> None:
    screen = chat(home, phone)
    try:
        begin(screen)
        eventually(lambda: phone.asked)
        phone.battery(temperature=55.0)
        screen.wait_for("The phone is too hot to go on: 55 °C.")
        screen.wait_for("--governor off")
        screen.wait_for("--resume")
        assert screen.finish() == 7
    finally:
        screen.close()
    (conversation,) = saved(home)
    messages = conversation["messages"]
    assert isinstance(messages, list)
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert len(messages[1]["content"]) > 20
    phone.battery(temperature=30.0)
    again = run(home, "chat", "--resume", *DEMO, *EXACT, stdin=b"And?\n", changes=phone.environ)
    assert again.returncode == 0
    (conversation,) = saved(home)
    assert len(conversation["messages"]) == 4  # type: ignore[arg-type]


def test_an_empty_battery_until_it_is_charged(home: Path, phone: HotPhone) -> None:
    phone.battery(percentage=4)
    screen = chat(home, phone)
    try:
        begin(screen)
        screen.wait_for("The battery is at 4 %: 1 of 2 threads from here on.")
        screen.wait_for("The battery is at 4 %: shorter answers (50%) from here on.")
        phone.battery(percentage=5, plugged="PLUGGED_AC")
        screen.wait_for("All is well again: everything as before.")
    finally:
        screen.close()


def piped(
    command: Sequence[str], home: Path, phone: HotPhone, *options: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "run", *DEMO, *ENDLESS, *options, "Tell me a story."],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(home, **phone.environ, **SLOWLY),
        encoding="utf-8",
        errors="replace",
        timeout=120,
        check=False,
    )


def test_a_terminal_that_is_closed_during_a_pause(home: Path, phone: HotPhone) -> None:
    phone.battery(temperature=48.2)
    screen = chat(home, phone)
    begin(screen)
    screen.wait_for("a pause until it has cooled down.")
    screen.hang_up()
    assert screen.wait() == 129
    assert len(saved(home)) == 1


def test_answers_are_shorter_in_the_next_turn(home: Path, phone: HotPhone) -> None:
    phone.battery(temperature=46.5)
    screen = chat(home, phone, "-n", "900")
    try:
        begin(screen)
        screen.wait_for("shorter answers (50%) from here on.")
        screen.press_ctrl_c()
        screen.wait_for("Stopped.")
        screen.wait_for("> ")
        screen.send("And then?\r")
        # A cut that the user did not ask for is not blamed on the option.
        screen.wait_for("The answer was cut off after 450 tokens.")
        assert "--max-tokens" not in screen.wait_for("> ")
    finally:
        screen.close()


SHORT = ("-n", "400")


def test_an_answer_over_pipes_is_the_same_answer(home: Path, phone: HotPhone) -> None:
    phone.battery(temperature=45.0)
    governed = piped(FAST, home, phone, *SHORT)
    plain = piped(PROGRAM, home, phone, *SHORT, "--governor", "off")
    assert governed.returncode == plain.returncode == 0
    assert governed.stdout == plain.stdout
    assert "The phone is hot (45 °C): 1 of 2 threads from here on.\n" in governed.stderr
    assert "hot" not in plain.stderr


def test_off_asks_nobody(home: Path, phone: HotPhone) -> None:
    phone.battery(temperature=60.0)
    done = piped(FAST, home, phone, *SHORT, "--governor", "off")
    assert done.returncode == 0
    assert phone.asked == 0


def test_a_helper_that_hangs_delays_nothing(home: Path, phone: HotPhone) -> None:
    phone.hangs()
    done = piped(FAST, home, phone, *SHORT)
    assert done.returncode == 0
    assert done.stderr.count("\n") <= 1
    assert phone.asked == 1
    assert eventually(lambda: not running(phone.processes[0]))


def test_json_says_what_the_governor_did(home: Path, phone: HotPhone) -> None:
    phone.battery(temperature=45.0)
    done = piped(FAST, home, phone, *SHORT, "--json")
    governor = json.loads(done.stdout)["governor"]
    assert governor["mode"] == "auto"
    assert governor["fallback"] == "off"
    first = governor["steps"][0]
    assert first["step"] == "The phone is hot (45 °C): 1 of 2 threads from here on."
    assert first["seconds"] > 0
    assert json.loads(done.stdout)["timings"]["paused_seconds"] == 0
    off = json.loads(piped(PROGRAM, home, phone, "-n", "3", "--json", "--governor", "off").stdout)
    assert off["governor"] == {"mode": "off", "fallback": "off", "steps": []}


def test_a_stop_of_run(home: Path, phone: HotPhone) -> None:
    phone.battery(temperature=55.0)
    done = piped(FAST, home, phone, "--json")
    assert done.returncode == 7
    assert "error: The phone is too hot to go on: 55 °C.\nhint: " in done.stderr
    assert json.loads(done.stdout)["finish_reason"] == "device"


def test_the_articles_rule(home: Path) -> None:
    # Every machine has some of its memory in use.
    code = (
        "import sys\n"
        "from qwen_edge.session import article_fallback\n"
        "article_fallback.MOST_MEMORY = 0.0001\n"
        "article_fallback.MOST_TOKENS = 7\n"
        "from qwen_edge.cli.app import run_program\n"
        "sys.exit(run_program(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [PROGRAM[0], "-c", code, "run", *DEMO, *ENDLESS, "--fallback", "article", "--json", "Hi"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(home),
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["usage"]["completion_tokens"] <= 7
    assert ": greedy answers of at most 7 tokens." in done.stderr
    greedy = run(home, "run", *DEMO, "--no-think", "-t", "0", "-n", "7", "--json", "Hi")
    assert json.loads(greedy.stdout)["ids"] == answer["ids"]


def test_doctor_shows_what_can_be_seen(home: Path, phone: HotPhone) -> None:
    phone.battery(temperature=41.4, percentage=64, plugged="PLUGGED_USB")
    done = run(home, "doctor", *DEMO[:2], changes=phone.environ)
    assert "Battery    41 °C, 64 %, plugged in, Termux:API\n" in done.stdout
    table = json.loads(run(home, "doctor", *DEMO[:2], "--json", changes=phone.environ).stdout)
    assert table["battery"] == {
        "temperature": 41.4, "level": 64.0, "plugged": True, "source": "termux-api",
    }  # fmt: skip
    assert "battery" not in table["termux"]
    phone.says("nothing of use")
    done = run(home, "doctor", *DEMO[:2], changes=phone.environ | {"QWEN_EDGE_LANG": "zh"})
    assert "无法得知：只能从速度下降看出发热" in done.stdout or "/sys" in done.stdout
    report = run(home, "doctor", *DEMO[:2], "--report", "-", changes=phone.environ)
    assert "battery" in json.loads(report.stdout)


def test_chinese(home: Path, phone: HotPhone) -> None:
    phone.battery(temperature=45.0)
    with terminal(
        home, "run", *DEMO, *ENDLESS, "Hi", columns=40, program=FAST,
        **phone.environ, **SLOWLY, QWEN_EDGE_LANG="zh",
    ) as screen:  # fmt: skip
        screen.wait_for("手机发热（45 °C）")
        screen.press_ctrl_c()
        assert screen.finish() == 130
