"""Conversations on disk: each in a file of its own, replaced as a whole after every turn."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.paths import data_folder
from qwen_edge.session.conversation import ASSISTANT, USER, Message

VERSION = 1
_SUFFIX = ".json"
_LARGEST = 64 << 20


@dataclass(frozen=True)
class SavedConversation:
    """A conversation as it is on disk.

    Attributes:
        path: its file.
        model: name of the model that answered last.
        system: the system message, or empty.
        messages: the turns, user and assistant in turn.
    """

    path: Path
    model: str
    system: str
    messages: tuple[Message, ...]


def conversations_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of saved conversations; it need not exist."""
    return data_folder(environ) / "conversations"


def new_path(environ: Mapping[str, str] | None = None) -> Path:
    """A name for a new conversation: its time, and the process, so that two never meet."""
    import time

    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}{_SUFFIX}"
    return conversations_folder(environ) / name


def save(path: Path, model: str, system: str, messages: Sequence[Message]) -> None:
    """Writes a conversation, for the user's eyes only.

    The file is whole at any moment: the new one is written beside it, synced and renamed.

    Raises:
        QwenEdgeError: it could not be written; what was saved before is still there.
    """
    import json

    from qwen_edge.model.replacing_file import ReplacingFile, remove_all_leftovers

    content = {
        "version": VERSION,
        "model": model,
        "system": system,
        "messages": [message._asdict() for message in messages],
    }
    # Half a character, which a model may end with, is no reason to lose the rest.
    data = json.dumps(content, ensure_ascii=False, indent=1).encode(errors="replace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # What a killed program left half written, of whichever conversation.
        remove_all_leftovers(path.parent)
        with ReplacingFile(path, len(data), mode=0o600) as file:
            file.write(data, 0)
            file.commit(verify=lambda written: None)
    except (OSError, QwenEdgeError) as error:
        raise QwenEdgeError(
            "The conversation could not be saved to {path}: {reason}.",
            path=path,
            reason=getattr(error, "strerror", None) or str(error).rstrip("."),
        ) from error


def last_conversation(environ: Mapping[str, str] | None = None) -> SavedConversation | None:
    """The conversation that was saved last, or None if there is none.

    Raises:
        QwenEdgeError: its file is not what ``save`` writes.
    """
    folder = conversations_folder(environ)
    try:
        files = [path for path in folder.iterdir() if path.suffix == _SUFFIX and path.is_file()]
        newest = max(files, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)
    except OSError:
        return None
    return None if newest is None else load(newest)


def load(path: Path) -> SavedConversation:
    """Reads a conversation.

    Raises:
        QwenEdgeError: the file cannot be read or is not what ``save`` writes.
    """
    import json

    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError
        return _parsed(path, json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise QwenEdgeError(
            "The saved conversation {path} cannot be read.",
            "Move that file away to continue an older one, or start afresh without --resume.",
            path=path,
        ) from error


def _parsed(path: Path, content: dict[str, object]) -> SavedConversation:
    model, system, messages = content["model"], content["system"], content["messages"]
    if content["version"] != VERSION or not isinstance(messages, list):
        raise ValueError
    turns = tuple(Message(message["role"], message["content"]) for message in messages)
    # Roles in turn also keep a forged file from smuggling in a second system message.
    fitting = all(
        turn.role == (USER, ASSISTANT)[number % 2] and isinstance(turn.content, str)
        for number, turn in enumerate(turns)
    )
    if not (fitting and isinstance(model, str) and isinstance(system, str)):
        raise ValueError
    return SavedConversation(path, model, system, turns)
