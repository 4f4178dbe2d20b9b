"""The program in the background, with the commands of a make-believe phone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.program import SLOWLY, environment
from tests.termux.commands import Commands

_RUN = """
import sys
from qwen_edge.cli.app import run_program
{before}
sys.exit(run_program(sys.argv[1:]))
"""


class Program:
    """The program in the background, with pipes.

    Args:
        home: its files.
        phone: the commands it finds.
        arguments: its command line.
        before: Python that is run first, to shorten waits say.
    """

    def __init__(self, home: Path, phone: Commands, *arguments: str, before: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _RUN.format(before=before), *arguments],
            # What is piped in belongs to the prompt of ``run``.
            stdin=subprocess.PIPE if arguments[0] == "chat" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(home, **phone.environment, **SLOWLY),
            start_new_session=True,
        )

    def say(self, text: str) -> None:
        """Gives ``chat`` its lines."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def read_until(self, text: str) -> None:
        """Reads standard error up to a text."""
        assert self.process.stderr is not None
        read = b""
        while text.encode() not in read:
            part = os.read(self.process.stderr.fileno(), 4096)
            assert part, read
            read += part

    def end(self, stdin: bytes = b"") -> tuple[int, str, str]:
        """Waits for the end; code, standard output and standard error."""
        out, err = self.process.communicate(stdin, timeout=120)
        return self.process.returncode, (out or b"").decode(), err.decode()
