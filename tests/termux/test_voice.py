"""Speaking, copying and listening: in order, never in the way, and gone when the program is."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.program import ENDLESS, EXACT, PROGRAM, Terminal, run
from tests.termux.background import Program
from tests.termux.commands import Commands
from tests.text.test_sentences import cut

SPEAK, ENGINES = "termux-tts-speak", "termux-tts-engines"
COPY, LISTEN = "termux-clipboard-set", "termux-speech-to-text"
# Its answer has several sentences.
QUESTION = "Hello!"
ASK = ("run", "-m", "demo", *EXACT, QUESTION)
LONG = ("run", "-m", "demo", *ENDLESS, "--wake-lock", "off", "--speak", "Hello!")


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path / "phone", (SPEAK, ENGINES, COPY, LISTEN))
    commands.answer(ENGINES, "[]\n")
    # No clipboard of a desktop.
    commands.environment |= {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
    yield commands
    commands.go()
    commands.wait_for_silence()


def ask(home: Path, phone: Commands, *arguments: str) -> tuple[str, str]:
    """Standard output and standard error of a command that has to succeed."""
    done = run(home, *arguments, changes=phone.environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def spoken(phone: Commands) -> list[str]:
    return [call.text.rstrip("\n") for call in phone.calls(SPEAK)]


def test_an_answer_is_spoken_sentence_by_sentence(home: Path, phone: Commands) -> None:
    plain = ask(home, phone, *ASK)
    assert phone.events() == []
    assert ask(home, phone, *ASK, "--speak") == plain
    sentences = cut(plain[0])
    assert len(sentences) > 1
    # The program ends when all is spoken.
    assert spoken(phone) == sentences
    assert all(call.words == () for call in phone.calls(SPEAK))
    assert phone.left() == []


def test_thoughts_are_not_spoken(home: Path, phone: Commands) -> None:
    options = ("run", "-m", "demo", "--think", "-t", "0", "--speak", "What is 2 plus 3?")
    done = ask(home, phone, *options)
    assert done[0]
    assert spoken(phone) == cut(done[0])


def test_speaking_is_not_waited_for(home: Path, phone: Commands) -> None:
    plain = ask(home, phone, *ASK)[0]
    phone.behave(SPEAK, "waits")
    program = Program(home, phone, *ASK, "--speak")
    assert program.process.stdout is not None
    assert program.process.stdout.read(len(plain.encode())).decode() == plain
    assert phone.events(SPEAK) in ([], [f"begin {SPEAK}"])
    phone.go()
    assert program.end()[0] == 0
    assert spoken(phone) == cut(plain)


def test_ctrl_c_cuts_the_speaking_short(home: Path, phone: Commands) -> None:
    plain = ask(home, phone, *ASK)[0]
    phone.behave(SPEAK, "waits")
    program = Program(home, phone, *ASK, "--speak", "--copy")
    assert program.process.stdout is not None
    assert program.process.stdout.read(len(plain.encode())).decode() == plain
    program.read_until("clipboard")
    phone.wait_for(f"begin {SPEAK}")
    program.process.send_signal(signal.SIGINT)
    # The answer is whole, and once the waiting has begun nothing else is cut short.
    assert program.end()[0] in (0, 130)
    assert phone.left() == []
    assert phone.events(SPEAK) == [f"begin {SPEAK}"]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signals_stop_answer_and_speech(home: Path, phone: Commands, name: str, code: int) -> None:
    phone.behave(SPEAK, "waits")
    program = Program(home, phone, *LONG)
    phone.wait_for(f"begin {SPEAK}")
    program.process.send_signal(getattr(signal, name))
    assert program.end()[0] == code
    assert phone.left() == []
    assert phone.events(SPEAK) == [f"begin {SPEAK}"]


def test_a_closed_pipe_stops_the_speech(home: Path, phone: Commands) -> None:
    phone.behave(SPEAK, "waits")
    program = Program(home, phone, *LONG)
    phone.wait_for(f"begin {SPEAK}")
    assert program.process.stdout is not None
    program.process.stdout.close()
    program.process.stdout = None
    assert program.end()[0] == 0
    assert phone.left() == []


def test_after_a_kill_the_sentence_ends_by_itself(home: Path, phone: Commands) -> None:
    phone.behave(SPEAK, "hangs")
    short = "import qwen_edge.host.speaker as s; s._LIMIT, s._PER_CHARACTER = 1.0, 0.0"
    program = Program(home, phone, *LONG, before=short)
    phone.wait_for(f"begin {SPEAK}")
    program.process.kill()
    program.end()
    phone.wait_for_silence()


@pytest.mark.parametrize(
    ("name", "mode", "told"),
    [
        (SPEAK, "fails", "termux-tts-speak fails"),
        (SPEAK, "babbles", "termux-tts-speak fails"),
        (SPEAK, "hangs", "does not answer"),
        (ENGINES, "hangs", "does not answer"),
        (ENGINES, "fails", "termux-tts-speak fails"),
        ("", "", "takes `pkg install termux-api`"),
    ],
)
def test_where_speaking_fails_the_answer_is_the_same(
    home: Path, phone: Commands, tmp_path: Path, name: str, mode: str, told: str
) -> None:
    plain = ask(home, phone, *ASK)
    if name:
        phone.behave(name, mode)
    else:
        bare = Commands(tmp_path / "bare", ())
        phone.environment["PATH"] = bare.environment["PATH"]
    short = "import qwen_edge.host.speaker as s; s._LIMIT, s._PER_CHARACTER = 1.0, 0.0"
    program = Program(home, phone, *ASK, "--speak", before=short)
    code, out, err = program.end()
    assert (code, out) == (0, plain[0])
    assert [line for line in err.splitlines() if "Nothing is spoken" in line] == err.splitlines()
    assert told in err
    assert phone.events(SPEAK).count(f"begin {SPEAK}") <= 1
    assert phone.left() == []


def test_a_chat_over_pipes_speaks_every_answer(home: Path, phone: Commands) -> None:
    turns = f"{QUESTION}\n{QUESTION}\n".encode()
    done = run(
        home, "chat", "-m", "demo", *EXACT, "--speak", stdin=turns, changes=phone.environment
    )
    assert done.returncode == 0
    assert spoken(phone) == cut(done.stdout)


@contextlib.contextmanager
def chatting(home: Path, phone: Commands, *options: str) -> Iterator[Terminal]:
    command = (*PROGRAM, "chat", "-m", "demo", *EXACT, *options)
    with contextlib.closing(Terminal(home, command, 60, **phone.environment)) as terminal:
        terminal.wait_for("> ")
        yield terminal


def test_ctrl_c_at_the_prompt_hushes_and_stays(home: Path, phone: Commands) -> None:
    phone.behave(SPEAK, "waits")
    with chatting(home, phone, "--speak") as terminal:
        terminal.send(QUESTION + "\r")
        phone.wait_for(f"begin {SPEAK}")
        terminal.wait_for("> ")
        terminal.press_ctrl_c()
        phone.wait_until(lambda: not any(SPEAK in line for line in phone.left()))
        terminal.send("/stats\r")
        terminal.wait_for("tokens/s")
        terminal.send("/exit\r")
        assert terminal.finish() == 0
    assert phone.events(SPEAK) == [f"begin {SPEAK}"]


def test_the_next_message_hushes_the_answer_before(home: Path, phone: Commands) -> None:
    phone.behave(SPEAK, "waits")
    with chatting(home, phone, "--speak") as terminal:
        terminal.send(QUESTION + "\r")
        phone.wait_for(f"begin {SPEAK}")
        terminal.wait_for("> ")
        terminal.send("What can you do?\r")
        phone.wait_for(f"begin {SPEAK}", times=2)
        terminal.send("/exit\r")
        assert terminal.finish() == 0
    assert phone.left() == []
    assert phone.calls(SPEAK) == []


def test_the_whole_answer_is_copied(home: Path, phone: Commands) -> None:
    plain = ask(home, phone, *ASK)
    out, err = ask(home, phone, *ASK, "--copy")
    assert out == plain[0]
    assert err == "The answer is on the clipboard.\n"
    assert [(call.words, call.text) for call in phone.calls(COPY)] == [((), out.rstrip("\n"))]


def test_chat_copies_on_request(home: Path, phone: Commands) -> None:
    lines = f"/copy\n{QUESTION}\n/copy\n".encode()
    done = run(home, "chat", "-m", "demo", *EXACT, stdin=lines, changes=phone.environment)
    assert done.returncode == 0
    assert "There was no answer yet." in done.stderr
    assert [call.text for call in phone.calls(COPY)] == [done.stdout.rstrip("\n")]


def test_a_desktops_clipboard_serves(home: Path, tmp_path: Path, phone: Commands) -> None:
    desktop = Commands(tmp_path / "desktop", ("wl-copy",))
    phone.environment |= {"WAYLAND_DISPLAY": "wayland-0", "PATH": desktop.environment["PATH"]}
    assert "clipboard" in ask(home, phone, *ASK, "--copy")[1]
    assert len(desktop.calls("wl-copy")) == 1


@pytest.mark.parametrize(
    ("mode", "told"), [("hangs", "does not answer"), ("fails", "fails"), ("", "there is no")]
)
def test_where_copying_fails_the_answer_is_the_same(
    home: Path, phone: Commands, tmp_path: Path, mode: str, told: str
) -> None:
    plain = ask(home, phone, *ASK)[0]
    if mode:
        phone.behave(COPY, mode)
    else:
        phone.environment["PATH"] = Commands(tmp_path / "bare", ()).environment["PATH"]
    out, err = ask(home, phone, *ASK, "--copy")
    assert out == plain
    assert len(err.splitlines()) == 1
    assert told in err
    assert phone.left() == []


def test_a_prompt_is_listened_for(home: Path, phone: Commands) -> None:
    plain = ask(home, phone, *ASK)[0]
    phone.answer(LISTEN, f"{QUESTION}\n")
    out, err = ask(home, phone, *ASK[:-1], "--listen")
    assert out == plain
    assert err == f"Speak now.\n> {QUESTION}\n"
    both = ask(home, phone, *ASK[:-1], "--listen", "Say it.")[0]
    phone.behave(LISTEN, "hangs")
    assert ask(home, phone, *ASK[:-1], f"Say it.\n\n{QUESTION}")[0] == both


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("works", "Nothing was heard."),
        ("fails", "Nothing was heard."),
        ("hangs", "Nothing was heard in"),
        ("", "There is no way to listen"),
    ],
)
def test_where_nothing_is_heard(
    home: Path, phone: Commands, tmp_path: Path, mode: str, told: str
) -> None:
    if mode:
        phone.behave(LISTEN, mode)
    else:
        phone.environment["PATH"] = Commands(tmp_path / "bare", ()).environment["PATH"]
    short = "import qwen_edge.cli.voice as v; v._LISTENING = 1.0"
    program = Program(home, phone, *ASK[:-1], "--listen", before=short)
    code, out, err = program.end()
    assert (code, out) == (1, "")
    assert f"error: {told}" in err
    assert "hint:" in err
    assert phone.left() == []


def test_ctrl_c_ends_the_listening(home: Path, phone: Commands) -> None:
    phone.behave(LISTEN, "hangs")
    program = Program(home, phone, *ASK[:-1], "--listen")
    phone.wait_for(f"begin {LISTEN}")
    program.process.send_signal(signal.SIGINT)
    assert program.end()[:2] == (130, "")
    assert phone.left() == []


@pytest.mark.parametrize(("option", "line"), [((), "/listen"), (("--listen",), "")])
def test_chat_listens_on_request(
    home: Path, phone: Commands, option: tuple[str, ...], line: str
) -> None:
    plain = ask(home, phone, *ASK)[0]
    phone.answer(LISTEN, f"{QUESTION}\n")
    command = ("chat", "-m", "demo", *EXACT, *option)
    done = run(home, *command, stdin=f"{line}\n".encode(), changes=phone.environment)
    assert (done.returncode, done.stdout) == (0, plain)
    phone.answer(LISTEN, "")
    done = run(home, *command, stdin=f"{line}\nHello!\n".encode(), changes=phone.environment)
    assert done.returncode == 1
    assert "Nothing was heard." in done.stderr
    assert done.stdout


def test_an_empty_line_asks_for_nothing_without_the_option(home: Path, phone: Commands) -> None:
    done = run(home, "chat", "-m", "demo", *EXACT, stdin=b"\n\n", changes=phone.environment)
    assert (done.returncode, done.stdout) == (0, "")
    assert phone.events() == []
