"""Lines from the user: edited and remembered at a terminal, read plainly otherwise."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from qwen_edge.cli.terminal import err, is_terminal

_HISTORY_LINES = 1000
_BLOCK = '"""'
# Seconds in which the next line of pasted text is there; nobody types that fast.
_PASTE_GAP = 0.02


class LineInput:
    """Reads what the user says, a message at a time.

    A message is a line, a paste of several lines, or lines between two lines of ``\"\"\"``. At a
    terminal, lines can be edited and earlier ones brought back, as far as Python has readline.

    Args:
        history: file of earlier lines.
        completions: words that the Tab key completes at the beginning of a line.
    """

    def __init__(self, history: Path, completions: Sequence[str] = ()) -> None:
        self.interactive = is_terminal(sys.stdin)
        self._history = history
        self._completions = completions
        self._readline: ModuleType | None = None
        self._brackets_pastes = False
        if self.interactive and is_terminal(sys.stdout):
            self._set_up_readline()

    def read(self, prompt: str) -> str | None:
        """The next message, or None at the end of input.

        Raises:
            KeyboardInterrupt: Ctrl-C; what was typed is discarded.
        """
        line = self._line(prompt)
        if line is None or not self.interactive:
            return line
        if line.strip() == _BLOCK:
            return self._block()
        if not self._brackets_pastes and line.strip():
            return self._with_pasted(line)
        return line

    def remember(self) -> None:
        """Writes the lines so far to the history file, for the user's eyes only."""
        if self._readline is None:
            return
        # A history that cannot be kept is no reason to trouble the user.
        with contextlib.suppress(OSError):
            self._history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._history, os.O_WRONLY | os.O_CREAT, 0o600))
            self._readline.set_history_length(_HISTORY_LINES)
            self._readline.write_history_file(str(self._history))

    def _set_up_readline(self) -> None:
        try:
            import readline
        except ImportError:
            return
        self._readline = readline
        _use_utf8()
        if "libedit" not in (readline.__doc__ or ""):
            # Python turns this off for its own prompt. It makes a paste one message.
            readline.parse_and_bind("set enable-bracketed-paste on")
            self._brackets_pastes = os.environ.get("TERM", "") not in ("", "dumb")
            self._tame_keys(readline)
        with contextlib.suppress(OSError):
            readline.read_history_file(str(self._history))

    def _tame_keys(self, readline: ModuleType) -> None:
        """Keys of a phone's extra row are pressed by mistake: what has no meaning does nothing."""
        # A bell makes Termux vibrate.
        readline.parse_and_bind("set bell-style none")
        readline.parse_and_bind(r'"\e[": skip-csi-sequence')
        # Without a completer of its own, readline would list the files of the working folder.
        readline.set_completer(self._complete)
        readline.set_completer_delims(" \t\n")
        if self._brackets_pastes:
            readline.parse_and_bind("tab: complete")

    def _complete(self, text: str, state: int) -> str | None:
        assert self._readline is not None
        if self._readline.get_begidx():
            return None
        found = [word + " " for word in self._completions if text and word.startswith(text)]
        return found[state] if state < len(found) else None

    def _line(self, prompt: str) -> str | None:
        if self._readline is not None:
            try:
                return input(prompt)
            except EOFError:
                return None
        if self.interactive:
            err(prompt, end="")
        if sys.stdin is None:
            return None
        data = sys.stdin.buffer.readline()
        return data.decode("utf-8", "replace").rstrip("\r\n") if data else None

    def _block(self) -> str:
        lines: list[str] = []
        while True:
            line = self._line("... ")
            if line is None or line.strip() == _BLOCK:
                return "\n".join(lines)
            lines.append(line)

    def _with_pasted(self, first: str) -> str:
        """Adds the lines that are already waiting: they were pasted together with the first."""
        import select

        lines = [first]
        while select.select([sys.stdin], [], [], _PASTE_GAP)[0]:
            line = self._line("")
            if line is None:
                break
            lines.append(line)
        return "\n".join(lines)


def _use_utf8() -> None:
    """Lets readline take Chinese where the environment names a locale that is not installed."""
    import locale

    if locale.setlocale(locale.LC_CTYPE) == "C":
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
