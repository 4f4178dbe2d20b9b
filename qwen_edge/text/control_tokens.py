"""Keeps what people write apart from the control tokens that a chat template writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qwen_edge.errors import UsageError
from qwen_edge.text.tokenizer import Tokenizer

# Code points that no text needs: noncharacters, then the private use area.
_STAND_INS = (*range(0xFDD0, 0xFDF0), *range(0xE000, 0xF900))


class Shield:
    """Disguises control tokens inside messages while the template runs.

    In each occurrence the first character is exchanged for a stand-in that nothing else contains,
    so the template sees text of the same length that is no control token. After rendering, the
    prompt is cut at the real control tokens, and the stand-ins in between turn back.
    """

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        """Prepares for one prompt.

        Args:
            tokenizer: its added tokens are the control tokens.
            texts: everything that may become part of the prompt, the template included.
        """
        self._tokenizer = tokenizer
        self._texts = texts
        self._tokens = tokenizer.special_ids()
        self._special = [text for text, id in self._tokens.items() if tokenizer.is_special(id)]
        self._longest = max(map(len, self._tokens), default=0)
        self._stand_ins: dict[str, str] = {}  # by the first character that they stand for
        self._unused: Iterator[str] | None = None

    def guard(self, value: object, own: bool = False) -> object:
        """Plain data with every control token in it disguised.

        Args:
            value: a string, or lists and dictionaries with strings.
            own: the model's own words, in which only special tokens are disguised.
        """
        if isinstance(value, str):
            return self._guard_text(value, self._special if own else list(self._tokens))
        if isinstance(value, dict):
            return {self.guard(key, own): self.guard(item, own) for key, item in value.items()}
        if isinstance(value, list):
            return [self.guard(item, own) for item in value]
        return value

    def encode(self, text: str) -> list[int]:
        """The ids of a rendered prompt."""
        if not self._stand_ins:
            return self._tokenizer.encode(text, allow_special=True)
        import re

        longest_first = sorted(self._tokens, key=len, reverse=True)
        ids: list[int] = []
        for piece in re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text):
            if piece in self._tokens:
                ids.append(self._tokens[piece])
            elif piece:
                ids += self._tokenizer.encode(self._restored(piece))
        return ids

    def _guard_text(self, text: str, tokens: Sequence[str]) -> str:
        for token in tokens:
            while token in text:  # again, as tokens like "aa" overlap themselves
                text = text.replace(token, self._stand_in(token[0]) + token[1:])
        return self._guard_end(text, tokens)

    def _guard_end(self, text: str, tokens: Sequence[str]) -> str:
        """Disguises a beginning of a token that what follows in the template could complete."""
        length = len(text.rstrip())
        for start in range(max(0, length - self._longest), length):
            tail = text[start:length]
            if any(len(tail) < len(token) and token.startswith(tail) for token in tokens):
                text = text[:start] + self._stand_in(text[start]) + text[start + 1 :]
        return text

    def _stand_in(self, character: str) -> str:
        if character not in self._stand_ins:
            if self._unused is None:
                self._unused = self._find_unused()
            found = next(self._unused, None)
            if found is None:
                raise UsageError("A message uses every private character of Unicode.")
            self._stand_ins[character] = found
        return self._stand_ins[character]

    def _find_unused(self) -> Iterator[str]:
        for code in _STAND_INS:
            forms = (chr(code), _escaped(chr(code)))
            if not any(form in text for form in forms for text in self._texts):
                yield chr(code)

    def _restored(self, text: str) -> str:
        for character, stand_in in self._stand_ins.items():
            # A template may have written it as JSON in ASCII.
            text = text.replace(stand_in, character).replace(_escaped(stand_in), character)
        return text


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}"
