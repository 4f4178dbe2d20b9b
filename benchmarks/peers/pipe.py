"""A measured system in a process of its own that stays alive and answers one request at a time.

The parent writes a line of JSON, ``[name, arguments]``, and waits for a line with the value or the
error. So systems can take turns measurement by measurement while no two of them ever run at once.
Imports nothing but the standard library: the child may be any Python with any packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any


def status_kilobytes() -> dict[str, int]:
    """Memory of this process from the kernel, kilobytes: VmHWM, VmRSS, RssAnon, RssFile."""
    wanted = ("VmHWM", "VmRSS", "RssAnon", "RssFile")
    with open("/proc/self/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return {name: int(lines[name].split()[0]) for name in wanted}


def serve(handlers: dict[str, Callable[..., object]]) -> None:
    """Answers requests from standard input until it ends."""
    # What libraries print goes to standard error, so that replies stay alone on their pipe.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    known = {"memory": status_kilobytes, **handlers}
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            reply = {"value": known[name](**arguments)}
        except Exception:
            reply = {"error": traceback.format_exc()}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


class PeerError(Exception):
    """A child failed; the message is its traceback or its exit status."""


class Peer:
    """The parent's end; use it as a context manager.

    Args:
        command: starts a process that calls ``serve``, or speaks the same lines.
        cores: the processors that it may use.
        environment: added to this process's own.
    """

    def __init__(
        self,
        command: Sequence[str],
        cores: Sequence[int],
        environment: dict[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | (environment or {}),
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    def ask(self, name: str, **arguments: object) -> Any:
        """Sends a request and waits for its value.

        Raises:
            PeerError: the handler failed, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([name, arguments]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerError(f"it ended with {self._process.wait()}") from None
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"it ended with {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise PeerError(reply["error"])
        return reply["value"]

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
