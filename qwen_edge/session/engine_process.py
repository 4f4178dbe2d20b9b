"""The other end of ``session/engine_server.py``: starts such a process, asks it, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from qwen_edge.host.limits import uncapped_children
from qwen_edge.host.own_process import own_command, own_environment
from qwen_edge.model.closing import Closing
from qwen_edge.session.bench_result import Remark

MODULE = "qwen_edge.session.engine_server"
_POLL_SECONDS = 0.1
_CHUNK = 1 << 16


class EngineFailed(Exception):
    """An engine cannot be measured.

    Attributes:
        reason: why, for people.
        memory: whether memory did not suffice.
    """

    def __init__(self, reason: Remark, *, memory: bool = False) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.memory = memory


class EngineProcess(Closing):
    """A process with an engine; use it as a context manager.

    It has a session of its own: Ctrl-C at the terminal does not reach it, and ``close`` ends
    whatever it has started, a compiler say.

    Args:
        poll: called often while an answer is waited for; may raise.

    Attributes:
        started: when it was started, in ``time.monotonic``.
    """

    def __init__(self, poll: Callable[[], None]) -> None:
        self._poll = poll
        self._received = b""
        self.started = time.monotonic()
        with uncapped_children():
            self._process = subprocess.Popen(
                own_command(MODULE),
                env=own_environment(),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, name: str, until: float, **arguments: object) -> Any:
        """Sends a request and waits for its value.

        Args:
            name: of the request.
            until: when to give up, in ``time.monotonic``.
            arguments: of the request.

        Raises:
            EngineFailed: there is no value; the process is of no use any more.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([name, arguments]).encode() + b"\n")
        reply = json.loads(self._line(until))
        if "error" in reply:
            error = reply["error"]
            raise EngineFailed(Remark(error["sentence"], error["values"]), memory=error["memory"])
        return reply["value"]

    def _line(self, until: float) -> bytes:
        assert self._process.stdout is not None
        output, begun = self._process.stdout, time.monotonic()
        while b"\n" not in self._received:
            self._poll()
            if select.select([output], [], [], _POLL_SECONDS)[0]:
                data = os.read(output.fileno(), _CHUNK)
                if not data:
                    raise EngineFailed(_ending(self._process.pid))
                self._received += data
            elif time.monotonic() > until:
                seconds = time.monotonic() - begun
                raise EngineFailed(
                    Remark(
                        "it was not done after {seconds:.0f} s; --budget allows more.",
                        {"seconds": seconds},
                    )
                )
        line, _, self._received = self._received.partition(b"\n")
        return line

    def close(self) -> None:
        """Ends the process and what it has started; a second call does nothing."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        # Before anything is waited for: until then its number belongs to nobody else.
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _ending(pid: int) -> Remark:
    """How a process ended that nobody has asked yet; others may ask again."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    if ended.si_code == os.CLD_EXITED:
        return Remark("its process failed with status {status}.", {"status": ended.si_status})
    return Remark("its process was ended by signal {signal}.", {"signal": ended.si_status})
