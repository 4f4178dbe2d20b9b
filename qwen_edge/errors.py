"""The errors a user can meet: one sentence, one hint, one exit code.

Sentences and hints are format strings with their values kept apart, so that the command line can
show them in the user's language; ``str(error)`` is the English sentence.
"""

from __future__ import annotations


class QwenEdgeError(Exception):
    """A failure that the user is told about.

    Args:
        sentence: what went wrong, one English sentence, a ``str.format`` template.
        hint: what to do about it, likewise.
        values: the values of both templates.
    """

    exit_code = 1

    def __init__(self, sentence: str, hint: str = "", **values: object) -> None:
        self.sentence = sentence
        self.hint = hint
        self.values = values
        super().__init__(sentence.format(**values) if values else sentence)


class UsageError(QwenEdgeError):
    """The request itself cannot be carried out as written."""

    exit_code = 2


class ModelNotFoundError(QwenEdgeError):
    """There is no model of that name or path."""

    exit_code = 3


class MemoryLimitError(QwenEdgeError):
    """The model, its cache or the next step does not fit into the allowed memory."""

    exit_code = 4


class DeviceLimitError(QwenEdgeError):
    """The device is too hot, or its battery too empty, to go on."""

    exit_code = 7


class DamagedModelError(QwenEdgeError):
    """A model file is truncated, malformed or of an unsupported kind."""

    exit_code = 5


class NetworkError(QwenEdgeError):
    """A download failed."""

    exit_code = 6
