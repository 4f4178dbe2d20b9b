"""Running the commands of Termux and Termux:API.

Those of Termux:API hang for ever where its app is not installed, take seconds where it is, and now
and then hang all the same. So each is a session of its own, which is ended as a whole when its time
is over. Import this module only where a command is about to be run.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

from qwen_edge.host.limits import uncapped_children

# Seconds after which a command that nobody waits for counts as hanging.
DETACHED_LIMIT = 5
# Likewise of one that is waited for.
LIMIT = 5.0
# Bytes of output; what says more is not what it seems.
_MOST = 1 << 16
DONE, ABSENT, FAILED, HANGS, STOPPED = "done", "absent", "failed", "hangs", "stopped"


class Outcome(NamedTuple):
    """How a command went: DONE, ABSENT (not installed), FAILED, HANGS or STOPPED; what it wrote."""

    state: str
    output: str = ""


class Command:
    """A command that is waited for, by a thread that has the time.

    Args:
        words: the command and its arguments.
        text: what it gets on its standard input.
        seconds: how long it may take.
        reads: whether its output is wanted; without, what it leaves running is not waited for.

    Attributes:
        present: whether it was started.
    """

    def __init__(
        self, *words: str, text: str = "", seconds: float = LIMIT, reads: bool = True
    ) -> None:
        self._seconds = seconds
        self._text = text.encode("utf-8", "replace")
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._state = FAILED
        self.present = False
        program = shutil.which(words[0])
        if program is None:
            self._state = ABSENT
            return
        with contextlib.suppress(OSError), uncapped_children():
            self._process = subprocess.Popen(
                # With a little more time: the guard is there in case we are killed.
                [*_guard(seconds + 1), program, *words[1:]],
                stdin=subprocess.PIPE if text else subprocess.DEVNULL,
                stdout=subprocess.PIPE if reads else subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.present = self._process is not None

    def outcome(self) -> Outcome:
        """Waits for the end, and ends it where that does not come in time."""
        process = self._process
        if process is None:
            return Outcome(self._state)
        try:
            output = _exchanged(process, self._text, time.monotonic() + self._seconds)
        except BaseException:
            end_group(process)
            raise
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        if output is None or process.returncode is None:
            end_group(process)
        if self._stopped:
            return Outcome(STOPPED)
        if output is None:
            return Outcome(HANGS)
        state = DONE if process.returncode == 0 and len(output) < _MOST else FAILED
        return Outcome(state, output.decode("utf-8", "replace"))

    def stop(self) -> None:
        """Ends it at once, from any thread, while another one waits for its outcome."""
        self._stopped = True
        if self._process is not None:
            end_group(self._process)


def run(*words: str, text: str = "", seconds: float = LIMIT) -> Outcome:
    """Runs a command to its end; see ``Command``."""
    return Command(*words, text=text, seconds=seconds).outcome()


def _exchanged(process: subprocess.Popen[bytes], text: bytes, end: float) -> bytes | None:
    """Feeds a process and reads what it writes until it is over; None where that takes too long."""
    output = bytearray()
    rest = memoryview(text)
    poller = select.poll()
    open_streams = set()
    for stream, event in ((process.stdin, select.POLLOUT), (process.stdout, select.POLLIN)):
        if stream is not None:
            os.set_blocking(stream.fileno(), False)
            poller.register(stream, event)
            open_streams.add(stream.fileno())
    source = None if process.stdout is None else process.stdout.fileno()
    while open_streams and len(output) < _MOST:
        left = end - time.monotonic()
        if left <= 0:
            return None
        for descriptor, _ in poller.poll(left * 1000):
            try:
                if descriptor == source:
                    part = os.read(descriptor, _MOST)
                    output += part
                    over = not part
                else:
                    rest = rest[os.write(descriptor, rest) :]
                    over = not rest
            except BlockingIOError:
                continue
            except OSError:
                # It does not want to read any more.
                over = True
            if over:
                poller.unregister(descriptor)
                open_streams.discard(descriptor)
                if descriptor != source and process.stdin is not None:
                    process.stdin.close()
    if len(output) < _MOST:
        try:
            process.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return None
    return bytes(output)


def start_detached(*command: str, keep: Sequence[int] = ()) -> subprocess.Popen[bytes] | None:
    """Starts a command that ends by itself in ``DETACHED_LIMIT`` seconds, even if it outlives us.

    Args:
        command: its name and arguments.
        keep: descriptors that it inherits.

    Returns:
        Its process, or None where there is no such command.

    Raises:
        OSError: it could not be started.
    """
    program = shutil.which(command[0])
    if program is None:
        return None
    with uncapped_children():
        return subprocess.Popen(
            [*_guard(DETACHED_LIMIT), program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=keep,
        )


def _guard(seconds: float) -> list[str]:
    """What to put before a command, so that it and what it starts are ended without us, too."""
    # Of the coreutils, which Termux always has.
    guard = shutil.which("timeout")
    return [guard, "-k", "1", f"{seconds:g}"] if guard else []


def finish(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Waits for a command, and ends it when the time is over; whether it succeeded."""
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        end_group(process)
        return False


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a command with all that it has started, and waits for the end."""
    # What it has started may outlive it.
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ends_itself() -> bool:
    """Whether what ``start_detached`` starts is ended by another program than this one."""
    return shutil.which("timeout") is not None
