"""How text takes up terminal cells, and how untrusted text is kept from steering the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

# Marks that reorder the text around them: a model could make one thing read as another.
_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CLOSING = frozenset("，。；：、！？）》」』 ")
_VISIBLE: dict[int, int | None] = {
    **{code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    **dict.fromkeys(_BIDI, None),
    # A carriage return could overwrite what stands on the line; line ends come as \n anyway.
    0x0D: None,
}


def neutralized(text: str) -> str:
    """The text with control characters made visible and direction marks dropped.

    Newline and tab stay. Escape becomes ``␛``, so that no terminal sequence survives.
    """
    return text.translate(_VISIBLE)


def cell_width(text: str) -> int:
    """Terminal cells that a line of text takes: 2 for wide characters, 0 for combining ones."""
    if text.isascii():
        return len(text)
    return sum(map(_character_cells, text))


def _character_cells(character: str) -> int:
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    return 0 if unicodedata.category(character) in ("Mn", "Me", "Cf") else 1


def fitted(text: str, cells: int) -> str:
    """The text cut to at most ``cells`` cells, with an ellipsis where something is missing."""
    if cell_width(text) <= cells:
        return text
    kept, used = [], 0
    for character in text:
        used += _character_cells(character)
        if used > cells - 1:
            break
        kept.append(character)
    return "".join(kept) + "…" if cells > 0 else ""


def padded(text: str, cells: int) -> str:
    """The text filled up with spaces to ``cells`` cells."""
    return text + " " * (cells - cell_width(text))


def wrapped(text: str, cells: int) -> list[str]:
    """Breaks a text into lines of at most ``cells`` cells, between words and wide characters.

    A word that is longer stays whole: a path or a command is copied in one piece.
    """
    lines: list[str] = []
    line = ""
    for piece in _pieces(text):
        if line and cell_width(line) + cell_width(piece.rstrip()) > cells:
            lines.append(line.rstrip())
            line = ""
        line += piece if line else piece.lstrip()
    if line.strip() or not lines:
        lines.append(line.rstrip())
    return lines


def _pieces(text: str) -> Iterator[str]:
    """The places a line may end: after blanks, and around wide characters."""
    piece = ""
    for character in text.replace("\n", " "):
        may_break = piece and (piece[-1] == " " or _is_wide(character) or _is_wide(piece[-1]))
        # Closing punctuation never begins a line.
        if may_break and character not in _CLOSING:
            yield piece
            piece = ""
        piece += character
    if piece:
        yield piece


def _is_wide(character: str) -> bool:
    return cell_width(character) > 1
