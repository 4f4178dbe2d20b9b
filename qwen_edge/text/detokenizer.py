"""Streaming text from token ids, never in the middle of a character."""

from __future__ import annotations

from codecs import getincrementaldecoder

from qwen_edge.text.tokenizer import Tokenizer


class StreamDecoder:
    """Turns ids into text as they come.

    A token may end inside a character: its bytes wait for the next one. The pieces and ``finish()``
    joined equal ``Tokenizer.decode`` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The text that is complete with this token; may be empty."""
        if self._skip_special and self._tokenizer.is_special(id):
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(id))

    def finish(self) -> str:
        """What is left when no token follows: U+FFFD for a character that stayed incomplete."""
        return self._decoder.decode(b"", True)
