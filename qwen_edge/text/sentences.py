"""Sentences of a text that still grows, as they can be read aloud: no code, no marks of markup."""

from __future__ import annotations

import re

# What may stand between the mark that ends a sentence and the next one.
_CLOSERS = "\"'”’»)]}*_`」』）】》〉"
# A full stop, with a blank and a beginning after it; the marks of Chinese need neither.
_AFTER = f"[{re.escape(_CLOSERS)}]*"
_END = re.compile(rf"[.!?…]+{_AFTER}(?=\s+\S)|[。！？]+{_AFTER}")
_SHORTENED = frozenset(
    {
        "al", "approx", "ca", "cf", "dept", "dr", "e.g", "eds", "est", "etc", "i.e", "inc", "jr",
        "ltd", "mr", "mrs", "ms", "prof", "rev", "sr", "st", "vs",
    }
)  # fmt: skip
_BEFORE_NUMBERS = frozenset({"eq", "fig", "figs", "no", "nos", "pp", "sec", "vol"})
_NUMBER = re.compile(r"\s*\(?(?:[0-9]{1,3}|[A-Za-z])")
_LONGEST = 240
_COMMAS = ",;:，；：、"
_FENCES = ("```", "~~~")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)")
_BEGINNING = re.compile(r"^\s*(?:#{1,6}\s+|>\s*|[-*+]\s+)+")
_EMPHASIS = re.compile(r"`+|(?<![\d\s])\*+|\*+(?![\d\s])|(?<!\w)_+|_+(?!\w)")


class Sentences:
    """Cuts a text into sentences as it comes in.

    A line's end is a sentence's end, too, and what has no end for very long is cut at a comma or a
    blank. Blocks of code between fences are left out, and lines without a letter or digit.
    """

    def __init__(self) -> None:
        self._rest = ""
        self._fresh = True
        self._fence = ""

    def push(self, text: str) -> list[str]:
        """The sentences that one more piece of text completes."""
        self._rest += text
        found: list[str] = []
        while "\n" in self._rest:
            line, _, self._rest = self._rest.partition("\n")
            found += self._line(line)
        if not self._fence and not (self._fresh and _may_be_fence(self._rest)):
            whole, self._rest = _cut(self._rest, self._fresh)
            self._fresh = self._fresh and not whole
            found += whole
        return _spoken(found)

    def finish(self) -> list[str]:
        """The sentences of what is left at the end of the text."""
        found = self._line(self._rest)
        self._rest, self._fence = "", ""
        return _spoken(found)

    def _line(self, line: str) -> list[str]:
        """The sentences of the rest of a line, which is complete."""
        fresh, self._fresh = self._fresh, True
        fence = line.strip()[:3] if fresh else ""
        if fence in _FENCES and self._fence in ("", fence):
            self._fence = "" if self._fence else fence
            return []
        if self._fence:
            return []
        whole, rest = _cut(line, fresh)
        return [*whole, rest]


def _may_be_fence(beginning: str) -> bool:
    text = beginning.lstrip()[:3]
    return any(fence.startswith(text) for fence in _FENCES)


def _cut(text: str, fresh: bool) -> tuple[list[str], str]:
    """The complete sentences of a line's beginning, and the rest.

    Args:
        text: of one line.
        fresh: whether it begins where the line does.
    """
    found = []
    start = 0
    for match in _END.finditer(text):
        following = text[match.end() :].lstrip()[:1]
        if match.end() == len(text):
            # A closing mark may still come.
            break
        if match.group()[0] in ".…" and (
            following.islower()
            or _goes_on(text[start : match.start()], following, fresh and not start)
        ):
            continue
        found.append(text[start : match.end()])
        start = match.end()
    rest = text[start:]
    while len(rest) > _LONGEST:
        place = max(rest.rfind(mark, _LONGEST // 2, _LONGEST) for mark in _COMMAS)
        if place < 0:
            place = rest.rfind(" ", 1, _LONGEST)
        if place < 0:
            place = _LONGEST - 1
        found.append(rest[: place + 1])
        rest = rest[place + 1 :]
    return found, rest


def _goes_on(before: str, following: str, first: bool) -> bool:
    """Whether a full stop after this does not end the sentence: it shortens, or numbers a line."""
    if first and _NUMBER.fullmatch(before):
        return True
    word = before.split()[-1].lstrip("(\"'“‘[").lower() if before.split() else ""
    # A single letter is an initial, or one of several as in U.S.
    if word in _BEFORE_NUMBERS:
        return following.isdigit()
    return word in _SHORTENED or (len(word.rpartition(".")[2]) == 1 and word[-1:].isalpha())


def _spoken(pieces: list[str]) -> list[str]:
    """The pieces without markup; those in which nothing can be said are left out."""
    texts = []
    for piece in pieces:
        text = _EMPHASIS.sub("", _LINK.sub(r"\1", _BEGINNING.sub("", piece)))
        text = " ".join(text.replace("|", ", ").split())
        text = "".join(character for character in text if character.isprintable()).strip(" ,")
        if any(character.isalnum() for character in text):
            texts.append(text)
    return texts
