"""An engine in a process of its own that measures what it is asked to, one request at a time.

``python -m qwen_edge.session.engine_server`` is what ``session/engine_process.py`` starts: it reads
lines of JSON, ``[name, arguments]``, and answers each with one, ``{"value": ...}`` or ``{"error":
...}``. Between them it waits for its pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qwen_edge.engine.uncached import Uncached
from qwen_edge.engine.watcher import Unwatched
from qwen_edge.errors import MemoryLimitError, QwenEdgeError
from qwen_edge.host.memory_facts import own_memory
from qwen_edge.session.answer import AnswerOptions
from qwen_edge.session.bench_engine import (
    WARM_UP_STEPS,
    time_decode,
    time_first_token,
    time_prefill,
)
from qwen_edge.session.bench_process import QUESTION
from qwen_edge.session.conversation import USER, Message, encode_messages
from qwen_edge.session.loaded import LoadedModel
from qwen_edge.session.memory import memory_errors
from qwen_edge.session.plan import make_plan

_SET_PARENT_DEATH_SIGNAL = 1


class _Warnings(Unwatched):
    """Keeps what setting an engine up says does not work."""

    def __init__(self) -> None:
        self.found: list[tuple[str, dict[str, object]]] = []

    def warn(self, message: str, **values: object) -> None:
        """See ``Watcher``."""
        self.found.append((message, _plain(values)))


class Handlers:
    """The requests; ``open`` comes first."""

    def __init__(self) -> None:
        self._loaded: LoadedModel | None = None

    def open(self, flags: Mapping[str, object]) -> dict[str, object]:
        """Loads a model with these settings alone, as on the command line.

        Returns:
            What became of a compilation (see ``TorchEngine``), and what did not work: template and
            values.
        """
        warnings = _Warnings()
        # The user's settings are among the flags where they apply.
        self._loaded = LoadedModel(make_plan(flags, {}, Path(os.devnull)), watcher=warnings)
        engine = self._loaded.engine
        inner = engine.engine if isinstance(engine, Uncached) else engine
        return {"compiled": getattr(inner, "compiled", ""), "warnings": warnings.found}

    def first_token(self) -> float:
        """Seconds to the first token of an answer to a short question, templated and all."""
        model = self._model
        thinking = AnswerOptions(thinking=False).thinking
        prompt = encode_messages(model.chat, [Message(USER, QUESTION)], thinking)
        return time_first_token(model.engine, prompt)

    def prefill(self, tokens: int) -> float:
        """Seconds of a prompt of so many tokens, from an empty cache."""
        engine = self._model.engine
        engine.truncate(0)
        return time_prefill(engine, tokens, self._model.chat.poll)

    def decode(self, steps: int) -> float:
        """Seconds of so many tokens, one at a time, from an empty cache."""
        engine, poll = self._model.engine, self._model.chat.poll
        engine.truncate(0)
        time_decode(engine, WARM_UP_STEPS, poll)
        return time_decode(engine, steps, poll)

    def peak(self) -> int | None:
        """The highest resident size of this process so far, in bytes, where it is shown."""
        return own_memory().peak

    @property
    def _model(self) -> LoadedModel:
        assert self._loaded is not None
        return self._loaded


def answer(handlers: Handlers, line: str) -> dict[str, object]:
    """What a request comes to; errors that a user may be told are values, too."""
    name, arguments = json.loads(line)
    known: dict[str, Callable[..., Any]] = {
        "open": handlers.open,
        "first_token": handlers.first_token,
        "prefill": handlers.prefill,
        "decode": handlers.decode,
        "peak": handlers.peak,
    }
    try:
        with memory_errors():
            return {"value": known[name](**arguments)}
    except QwenEdgeError as error:
        memory, values = isinstance(error, MemoryLimitError), _plain(error.values)
        return {"error": {"sentence": error.sentence, "values": values, "memory": memory}}


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """Values of a message as JSON can hold them."""
    return {
        key: value if isinstance(value, int | float) else str(value)
        for key, value in values.items()
    }


def _die_with_parent() -> None:
    """Has the kernel end this process when its parent is gone, even while it computes."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Answers until the pipe of requests is closed."""
    _die_with_parent()
    # What libraries print goes nowhere: the replies stay alone on their pipe.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    handlers = Handlers()
    with open(0, encoding="utf-8") as requests:
        for line in requests:
            replies.write(json.dumps(answer(handlers, line)) + "\n")
            replies.flush()


if __name__ == "__main__":
    main()
