"""Speaking answers, listening for prompts, and copying answers to the clipboard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from qwen_edge.cli.interrupts import uninterrupted
from qwen_edge.cli.options import Option
from qwen_edge.cli.terminal import note
from qwen_edge.errors import QwenEdgeError
from qwen_edge.session.answer import AnswerText, Done, Event

if TYPE_CHECKING:
    from qwen_edge.host.speaker import Speaker

SPEAK = Option("speak", ("--speak",), "Speak the answer while it comes (Termux:API).")
COPY = Option("copy", ("--copy",), "Put the whole answer on the clipboard in the end.")
LISTEN = Option("listen", ("--listen",), "Listen for the prompt (Termux:API).")
# Seconds for a person to speak.
_LISTENING = 30.0


class Voice:
    """Speaks the sentences of answers as they come.

    Args:
        speaker: what speaks them.
    """

    def __init__(self, speaker: Speaker) -> None:
        from qwen_edge.text.sentences import Sentences

        self._speaker = speaker
        self._sentences = Sentences()
        self._told = False

    def hear(self, event: Event) -> None:
        """Takes what is shown; thoughts are not spoken."""
        found: list[str] = []
        if isinstance(event, AnswerText):
            found = self._sentences.push(event.text)
        elif isinstance(event, Done):
            found = self._sentences.finish()
        for sentence in found:
            self._speaker.say(sentence)

    def hush(self) -> bool:
        """Stops speaking and forgets what was begun; whether there was something to stop."""
        self._sentences.finish()
        return self._speaker.hush()

    def wait(self) -> None:
        """Waits until all is spoken; Ctrl-C cuts it short."""
        try:
            self._speaker.wait()
        except KeyboardInterrupt:
            self.hush()

    def tell(self) -> None:
        """Says, once, why nothing is spoken."""
        problem = "" if self._told else self._speaker.problem
        if problem:
            self._told = True
            note(_reason(problem))


def _reason(problem: str) -> str:
    if problem == "absent":
        return "Nothing is spoken: it takes `pkg install termux-api` and the app Termux:API."
    if problem == "hangs":
        return "Nothing is spoken: the app Termux:API does not answer."
    return "Nothing is spoken: termux-tts-speak fails."


@contextlib.contextmanager
def speaking(wanted: bool, *, to_the_end: bool = True) -> Iterator[Voice | None]:
    """Makes a voice if one is wanted, and lets it finish in the end unless an error comes.

    Args:
        wanted: whether to speak.
        to_the_end: whether all is spoken before this ends.
    """
    if not wanted:
        yield None
        return
    from qwen_edge.host.speaker import Speaker

    speaker = Speaker()
    voice = Voice(speaker)
    try:
        yield voice
        if to_the_end:
            voice.wait()
        voice.tell()
    finally:
        with uninterrupted():
            speaker.close()


def listen() -> str:
    """Listens for what the user says.

    Raises:
        QwenEdgeError: there is no way to listen, or nothing was heard.
    """
    from qwen_edge.host.android import ABSENT, DONE, HANGS, Command

    command = Command("termux-speech-to-text", seconds=_LISTENING)
    if command.present:
        note("Speak now.")
    outcome = command.outcome()
    text = outcome.output.strip()
    if outcome.state == DONE and text:
        note("> {text}", text=text)
        return text
    if outcome.state == ABSENT:
        raise QwenEdgeError(
            "There is no way to listen here.",
            "On Termux: `pkg install termux-api`, and install the app Termux:API.",
        )
    if outcome.state == HANGS:
        raise QwenEdgeError(
            "Nothing was heard in {seconds:.0f} s.",
            "Is the app Termux:API installed, and may it use the microphone?",
            seconds=_LISTENING,
        )
    raise QwenEdgeError("Nothing was heard.", "Try again, or write the prompt.")


def copy_answer(text: str) -> None:
    """Puts an answer on the clipboard, or says why not."""
    from qwen_edge.host.android import ABSENT, DONE, HANGS
    from qwen_edge.host.clipboard import copy

    if not text:
        return
    state = copy(text).state
    if state == DONE:
        note("The answer is on the clipboard.")
    elif state == ABSENT:
        note(
            "The answer is not copied: there is no clipboard; on Termux it takes "
            "`pkg install termux-api` and the app Termux:API."
        )
    elif state == HANGS:
        note("The answer is not copied: the clipboard does not answer.")
    else:
        note("The answer is not copied: the clipboard's command fails.")
