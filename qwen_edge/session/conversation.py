"""Who said what: the messages of a chat, and what of them fits into the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from qwen_edge.session.answer import Answer, AnswerOptions, ChatModel
from qwen_edge.text.chat_template import encode_chat

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


class Message(NamedTuple):
    """One message; the role is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


def encode_messages(
    model: ChatModel, messages: Sequence[Message], thinking: bool | None
) -> list[int]:
    """The prompt ids that ask for the next answer."""
    return encode_chat(
        model.tokenizer,
        model.template,
        [message._asdict() for message in messages],
        enable_thinking=thinking,
    )


class Conversation:
    """A chat with one model.

    Args:
        model: what answers.
        system: how the model should behave; may be empty.
        messages: what was said before, without the system message.

    Attributes:
        messages: all that was said, in order, without the system message.
    """

    def __init__(
        self, model: ChatModel, system: str = "", messages: Sequence[Message] = ()
    ) -> None:
        self.system = system
        self.messages = list(messages)
        self._model = model
        # The model sees the messages from here on; those before did not fit.
        self._start = 0

    def ask(
        self,
        text: str,
        options: AnswerOptions,
        on_prefill: Callable[[int, int], None] | None = None,
    ) -> tuple[Answer, int]:
        """Begins the answer to the user's next message.

        The message becomes part of the conversation with ``keep`` only.

        Returns:
            The answer, and how many of the oldest messages the model lost sight of to make room.

        Raises:
            UsageError: the message alone does not fit into the context.
        """
        question = Message(USER, text)
        ids, start = self._fit(question, options)
        answer = Answer(self._model, ids, options, on_prefill)
        dropped, self._start = start - self._start, start
        return answer, dropped

    def keep(self, question: str, answer: str) -> None:
        """Takes a turn into the conversation; a turn that brought no answer is left out."""
        if answer:
            self.messages += [Message(USER, question), Message(ASSISTANT, answer)]

    def clear(self) -> None:
        """Forgets all that was said, but not the system message."""
        self.messages.clear()
        self._start = 0

    def _fit(self, question: Message, options: AnswerOptions) -> tuple[list[int], int]:
        """The prompt, and the first message in it."""
        context = self._model.engine.config.context
        room = min(options.max_tokens, context // 4)
        start = self._start
        ids = self._encode(start, question, options)
        if len(ids) + room <= context:
            return ids, start
        # A lost beginning means that all the rest is computed anew. Going down to half of the
        # context at once makes that rare.
        turns = [i for i in range(start, len(self.messages)) if self.messages[i].role == USER]
        turns.append(len(self.messages))
        # The first turn to keep; nothing is kept where even that is too much.
        low, high = 0, len(turns) - 1
        while low < high:
            middle = (low + high) // 2
            if len(self._encode(turns[middle], question, options)) <= context // 2:
                high = middle
            else:
                low = middle + 1
        return self._encode(turns[low], question, options), turns[low]

    def _encode(self, start: int, question: Message, options: AnswerOptions) -> list[int]:
        system = [Message(SYSTEM, self.system)] if self.system else []
        messages = [*system, *self.messages[start:], question]
        return encode_messages(self._model, messages, options.thinking)
