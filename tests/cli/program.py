"""The program as its users meet it: a process with pipes, or a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "qwen_edge")
# Answers that go on until they are stopped: nearly random tokens; with this seed no end comes soon.
ENDLESS = ("--no-think", "-t", "5", "--top-k", "0", "--top-p", "1", "--seed", "5", "-n", "1900")
# With the fast kernels the demo model fills its context before a signal can be sent.
SLOWLY = {"QWEN_EDGE_ISA": "scalar"}
# The same answer each time.
EXACT = ("--no-think", "-t", "0")


def environment(home: Path, **changes: str) -> dict[str, str]:
    """The environment of a user without settings, whose files lie below ``home``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("QWEN_EDGE_", "LC_", "LANG", "NO_COLOR", "COLUMNS", "TERM"))
    }
    library = os.environ.get("QWEN_EDGE_LIBRARY")
    if library:
        kept["QWEN_EDGE_LIBRARY"] = library
    return {
        **kept,
        "QWEN_EDGE_HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm-256color",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        **changes,
    }


def run(
    home: Path,
    *arguments: str,
    stdin: bytes = b"",
    changes: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Runs the program with pipes."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        input=stdin,
        capture_output=True,
        env=environment(home, **(changes or {})),
        timeout=timeout,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def piped(
    home: Path, *arguments: str, program: Sequence[str] = PROGRAM, **changes: str
) -> subprocess.Popen[bytes]:
    """Starts the program with pipes."""
    return subprocess.Popen(
        [*program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home, **changes),
    )


def processor_seconds(process: int) -> float:
    """Processor time of all threads of a process so far."""
    facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    # Fields 14 and 15 of proc(5), in user and in kernel mode; the split left out two.
    return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")


class Terminal:
    """The program at a terminal.

    Attributes:
        screen: all that was written to the terminal so far, with plain line ends and without the
            switching of bracketed paste.
    """

    def __init__(self, home: Path, command: Sequence[str], columns: int, **changes: str) -> None:
        self.screen = ""
        self._written = b""
        self._seen = 0
        self._master, slave = pty.openpty()
        self.resize(columns)
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(home, **changes),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def resize(self, columns: int, rows: int = 24) -> None:
        """Sets the size; the program gets SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        """Types."""
        os.write(self._master, text.encode())

    def rest(self) -> None:
        """Lets readline come to rest, as people do.

        Between showing something and waiting for a key, it would heed a signal with the next line
        only.
        """
        time.sleep(0.3)

    def press_ctrl_c(self) -> None:
        """Presses Ctrl-C as fast as people do."""
        self.rest()
        self.send("\x03")

    def wait_for(self, text: str, timeout: float = 30) -> str:
        """Reads until a text appears after the one waited for before; returns all up to its end."""
        end = time.monotonic() + timeout
        while (place := self.screen.find(text, self._seen)) < 0:
            if not self._read(max(end - time.monotonic(), 0)):
                raise AssertionError(f"{text!r} did not appear in {self.screen[self._seen :]!r}")
        start, self._seen = self._seen, place + len(text)
        return self.screen[start : self._seen]

    def processor_seconds(self) -> float:
        """Processor time of all its threads so far."""
        return processor_seconds(self._process.pid)

    def read_on(self) -> None:
        """Reads what has been written by now."""
        while self._master >= 0 and self._read(0):
            pass

    def finish(self, timeout: float = 30) -> int:
        """Reads to the end; returns the exit code."""
        end = time.monotonic() + timeout
        while self._read(max(end - time.monotonic(), 0)):
            pass
        return self._process.wait(max(end - time.monotonic(), 0.1))

    @property
    def written(self) -> str:
        """All that was written to the terminal so far, as it came."""
        # The end of the data may be the middle of a character.
        return self._written.decode("utf-8", "ignore")

    @property
    def pid(self) -> int:
        """Of what was started at the terminal."""
        return self._process.pid

    def hang_up(self) -> None:
        """Takes the terminal away, as closing the app does."""
        os.close(self._master)
        self._master = -1

    def wait(self, timeout: float = 30) -> int:
        """The exit code, or the number of the signal below 0; what is written meanwhile is read."""
        end = time.monotonic() + timeout
        while self._process.poll() is None and time.monotonic() < end:
            if self._master < 0 or not self._read(0.05):
                time.sleep(0.01)
        return self._process.wait(max(end - time.monotonic(), 0.1))

    def kill(self) -> None:
        """Ends the program without a chance to say goodbye."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends the program if it still runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._master >= 0:
            self.hang_up()

    def _read(self, timeout: float) -> bool:
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            # Linux reports a terminal without a program as an error.
            return False
        self._written += data
        text = self.written.replace("\r\n", "\n")
        self.screen = re.sub(r"\x1b\[\?2004[hl]\r?", "", text)
        return bool(data)


def processes_of(home: Path) -> list[int]:
    """All processes that were started for a user's files below ``home``, wherever they belong.

    A process may leave its group and its session, but not the environment it was started with.
    """
    mark = f"QWEN_EDGE_HOME={home}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


@contextlib.contextmanager
def terminal(
    home: Path, *arguments: str, columns: int = 80, program: Sequence[str] = PROGRAM, **changes: str
) -> Iterator[Terminal]:
    """Runs the program at a terminal of a width."""
    opened = Terminal(home, [*program, *arguments], columns, **changes)
    try:
        yield opened
    finally:
        opened.close()
