"""The wake lock: taken for work that lasts, shared, and released however a process ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cli.program import ENDLESS, EXACT
from tests.termux.background import Program
from tests.termux.commands import WAKE_LOCK, Commands

TAKE, RELEASE = WAKE_LOCK
AT_ONCE, FOREVER = 0.0, 1000.0


def timed(patience: float = AT_ONCE, idle: float = FOREVER) -> str:
    """Sets the seconds of work before the lock is taken, and of silence after."""
    return (
        "from qwen_edge.host.wake_keeper import WakeKeeper\n"
        f"WakeKeeper.__init__.__defaults__ = ({patience}, {idle})\n"
    )


def start(
    home: Path, phone: Commands, *arguments: str, patience: float = AT_ONCE, idle: float = FOREVER
) -> Program:
    """Starts the program with such times."""
    return Program(home, phone, *arguments, before=timed(patience, idle))


SHORT = ("run", "-m", "demo", *EXACT, "Hello!")
LONG = ("run", "-m", "demo", *ENDLESS, "Hello!")
# It comes to its end by itself, some seconds later.
WHOLE = (*LONG, "-n", "600")
CHAT = ("chat", *LONG[1:-1])


def markers(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "wake-lock").glob("*.pid"))


def test_work_that_lasts_takes_it_and_releases_it(home: Path, phone: Commands) -> None:
    program = start(home, phone, *WHOLE)
    phone.wait_for(f"end {TAKE}")
    assert phone.awake
    assert markers(home) == [f"{program.process.pid}.pid"]
    code, out, err = program.end()
    assert (code, bool(out)) == (0, True)
    assert "termux" not in err
    phone.wait_for(f"end {RELEASE}")
    assert not phone.awake
    assert phone.events() == [f"begin {TAKE}", f"end {TAKE}", f"begin {RELEASE}", f"end {RELEASE}"]
    assert markers(home) == []


def test_a_short_answer_takes_nothing(home: Path, phone: Commands) -> None:
    assert start(home, phone, *SHORT, patience=FOREVER).end()[0] == 0
    assert phone.events() == []
    assert not (home / "wake-lock").exists()


@pytest.mark.parametrize("how", ["setting", "variable", "file", "elsewhere"])
def test_it_is_not_taken_where_it_is_not_wanted(home: Path, phone: Commands, how: str) -> None:
    options: tuple[str, ...] = ()
    if how == "setting":
        options = ("--wake-lock", "off")
    elif how == "variable":
        phone.environment["QWEN_EDGE_WAKE_LOCK"] = "off"
    elif how == "file":
        home.mkdir()
        (home / "config.toml").write_text('wake-lock = "off"\n')
    else:
        phone.environment.pop("TERMUX_VERSION")
        phone.environment["PREFIX"] = "/usr"
    assert start(home, phone, *LONG, *options, "-n", "200").end()[0] == 0
    assert phone.events() == []


def leave(program: Program, how: str, *, chat: bool) -> int:
    """Ends the program in some way; returns its exit code."""
    process = program.process
    if how == "closed pipe":
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
    elif how == "Ctrl-C twice":
        process.send_signal(signal.SIGINT)
        if chat:
            # Two that come as one would only stop the answer.
            program.read_until("Ctrl-C once more leaves")
        process.send_signal(signal.SIGINT)
    else:
        process.send_signal(getattr(signal, how))
    return program.end()[0]


@pytest.mark.parametrize(
    ("how", "code", "code_of_chat"),
    [
        ("SIGINT", 130, 0),
        ("Ctrl-C twice", 130, 130),
        ("SIGTERM", 143, 143),
        ("SIGHUP", 129, 129),
        ("closed pipe", 0, 0),
    ],
)
@pytest.mark.parametrize("chat", [False, True], ids=["run", "chat"])
def test_it_is_released_on_every_way_out(
    home: Path, phone: Commands, how: str, code: int, code_of_chat: int, chat: bool
) -> None:
    program = start(home, phone, *(CHAT if chat else LONG))
    if chat:
        program.say("Hello!\n")
    phone.wait_for(f"end {TAKE}")
    assert leave(program, how, chat=chat) == (code_of_chat if chat else code)
    phone.wait_for(f"end {RELEASE}")
    assert not phone.awake
    assert markers(home) == []


def test_it_is_released_after_an_error(home: Path, phone: Commands) -> None:
    phone.behave(TAKE, "waits")
    # The prompt is read from a pipe that is held open until the lock is being taken.
    program = start(home, phone, "chat", "-m", "demo", "-c", "64")
    program.say("Hello!\n")
    phone.wait_for(f"begin {TAKE}")
    phone.go()
    phone.wait_for(f"end {TAKE}")
    code, _, err = program.end(b"word " * 400 + b"\n")
    assert code == 2
    assert "error:" in err
    phone.wait_for(f"end {RELEASE}")
    assert not phone.awake


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
def test_the_next_start_releases_what_a_kill_left(
    home: Path, phone: Commands, number: signal.Signals
) -> None:
    program = start(home, phone, *LONG)
    phone.wait_for(f"end {TAKE}")
    program.process.send_signal(number)
    assert program.end()[0] == -number
    assert phone.awake
    assert len(markers(home)) == 1
    assert start(home, phone, "config", "path").end()[0] == 0
    phone.wait_for(f"end {RELEASE}")
    assert not phone.awake
    assert markers(home) == []
    # Once is enough.
    assert start(home, phone, "config", "path").end()[0] == 0
    assert phone.events(RELEASE) == [f"begin {RELEASE}", f"end {RELEASE}"]


def test_the_last_of_several_releases_it(home: Path, phone: Commands) -> None:
    first, second = start(home, phone, *LONG), start(home, phone, *LONG)
    phone.wait_for(f"end {TAKE}", times=2)
    first.process.terminate()
    first.end()
    assert phone.events(RELEASE) == []
    assert phone.awake
    assert markers(home) == [f"{second.process.pid}.pid"]
    second.process.terminate()
    second.end()
    phone.wait_for(f"end {RELEASE}")
    assert not phone.awake


def test_a_start_leaves_it_to_a_living_one(home: Path, phone: Commands) -> None:
    killed, living = start(home, phone, *LONG), start(home, phone, *LONG)
    phone.wait_for(f"end {TAKE}", times=2)
    killed.process.kill()
    killed.end()
    assert start(home, phone, "config", "path").end()[0] == 0
    assert phone.events(RELEASE) == []
    assert markers(home) == [f"{living.process.pid}.pid"]
    living.process.terminate()
    living.end()
    phone.wait_for(f"end {RELEASE}")
    assert not phone.awake


def test_a_chat_that_is_quiet_lets_the_phone_sleep(home: Path, phone: Commands) -> None:
    program = start(home, phone, *CHAT, idle=AT_ONCE)
    for turn in (1, 2):
        program.say("Hello!\n")
        phone.wait_for(f"end {TAKE}", times=turn)
        program.process.send_signal(signal.SIGINT)
        phone.wait_for(f"end {RELEASE}", times=turn)
        assert markers(home) == []
        assert not phone.awake
    assert program.end()[0] == 0
    assert phone.events().count(f"begin {RELEASE}") == 2


def test_a_chat_keeps_it_from_turn_to_turn(home: Path, phone: Commands) -> None:
    program = start(home, phone, *CHAT)
    program.say("Hello!\n")
    phone.wait_for(f"end {TAKE}")
    program.process.send_signal(signal.SIGINT)
    assert program.end(b"/stats\n/help\n")[0] == 0
    phone.wait_for(f"end {RELEASE}")
    assert phone.events(TAKE) == [f"begin {TAKE}", f"end {TAKE}"]


@pytest.mark.parametrize("mode", ["fails", "hangs", "babbles"])
@pytest.mark.parametrize("name", [TAKE, RELEASE])
def test_commands_that_misbehave_change_nothing(
    home: Path, phone: Commands, name: str, mode: str
) -> None:
    plain = start(home, Commands(phone._folder.with_name("other"), ()), *WHOLE).end()
    phone.behave(name, mode)
    program = start(home, phone, *WHOLE)
    phone.wait_for(f"begin {TAKE}")
    assert program.end()[:2] == plain[:2]
    phone.wait_for(f"begin {RELEASE}")
    # What hangs is ended by its guard, long after the program.
    phone.wait_for_silence()
    assert markers(home) == []


def test_without_a_guard_the_program_ends_what_hangs(home: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sleep", "rm", "cat"):
        (tools / name).symlink_to(f"/bin/{name}")
    phone = Commands(tmp_path / "phone", search=str(tools))
    phone.behave(RELEASE, "hangs")
    program = start(home, phone, *LONG)
    phone.wait_for(f"end {TAKE}")
    program.process.terminate()
    assert program.end()[0] == 143
    assert phone.events(RELEASE) == [f"begin {RELEASE}"]
    assert phone.left() == []


def test_an_end_in_the_middle_of_taking(home: Path, phone: Commands) -> None:
    phone.behave(TAKE, "hangs")
    program = start(home, phone, *LONG)
    phone.wait_for(f"begin {TAKE}")
    program.process.terminate()
    assert program.end()[0] == 143
    phone.wait_for(f"end {RELEASE}")
    assert phone.events(TAKE) == [f"begin {TAKE}"]
    phone.wait_for_silence()
    assert markers(home) == []


def test_a_taking_waits_for_another_ones_releasing(home: Path, phone: Commands) -> None:
    first = start(home, phone, *LONG)
    phone.wait_for(f"end {TAKE}")
    phone.behave(RELEASE, "waits")
    first.process.terminate()
    first.end()
    phone.wait_for(f"begin {RELEASE}")
    second = start(home, phone, *LONG)
    phone.go()
    phone.wait_for(f"end {TAKE}", times=2)
    events = phone.events()
    again = len(events) - 1 - events[::-1].index(f"begin {TAKE}")
    assert events.index(f"end {RELEASE}") < again
    assert phone.awake
    second.process.terminate()
    second.end()
    phone.wait_for(f"end {RELEASE}", times=2)


def test_nohup_stays_in_force(home: Path, phone: Commands) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        program = start(home, phone, *WHOLE)
    finally:
        signal.signal(signal.SIGHUP, before)
    phone.wait_for(f"end {TAKE}")
    program.process.send_signal(signal.SIGHUP)
    assert program.end()[0] == 0
    phone.wait_for(f"end {RELEASE}")


def test_markers_are_for_the_user_alone(home: Path, phone: Commands) -> None:
    program = start(home, phone, *LONG)
    phone.wait_for(f"end {TAKE}")
    folder = home / "wake-lock"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    program.process.terminate()
    program.end()
    phone.wait_for(f"end {RELEASE}")


def test_a_folder_that_cannot_be_written_costs_the_lock_only(home: Path, phone: Commands) -> None:
    home.mkdir()
    (home / "wake-lock").write_text("in the way")
    assert start(home, phone, *WHOLE).end()[0] == 0
    assert phone.events() == []
    assert os.path.isfile(home / "wake-lock")
