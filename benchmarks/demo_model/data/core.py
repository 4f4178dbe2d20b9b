"""What every topic shares: turns, tables of text, paraphrase expansion and the held-out rule."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

Rng = random.Random

TEXT = Path(__file__).parent / "text"
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    `thinking` is the reasoning of thinking mode. `key` names what must stay on one side of the
    train/held-out split (by default the question's own words), `gold` is the string that an exact
    answer contains, `kind` groups the accuracy figures.
    """

    user: str
    assistant: str
    thinking: str = ""
    key: str = ""
    gold: str = ""
    kind: str = "chat"

    def split_key(self) -> str:
        """The name under which this turn is drawn into training or held-out data."""
        return self.key or _NOT_WORD.sub(" ", self.user.lower()).strip()


Topic = Callable[[Rng], list[Turn]]


@dataclass(frozen=True)
class Entry:
    """A block of a table: ways to ask (`? `), answers (`! `), what an answer contains (`@ `)."""

    topic: str
    asks: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    golds: list[str] = field(default_factory=list)


def is_held_out(key: str, one_in: int = 12) -> bool:
    """Whether a key belongs to the held-out set; depends on the key alone, not on any seed."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % one_in == 0


@cache
def entries(name: str, topic: str = "") -> list[Entry]:
    """The blocks of text/NAME, each begun by `= topic`; only those of one topic if it is given."""
    blocks: list[Entry] = []
    for line in (TEXT / name).read_text(encoding="utf-8").splitlines():
        mark, text = line[:2], line[2:]
        if mark == "= ":
            blocks.append(Entry(text))
        elif mark in ("? ", "! ", "@ "):
            last = blocks[-1]
            {"?": last.asks, "!": last.answers, "@": last.golds}[mark[0]].append(text)
    return [b for b in blocks if topic in ("", b.topic)]


@cache
def pairs(section: str, name: str = "facts.txt") -> dict[str, str]:
    """The `key: value` lines below `[section]`."""
    found: dict[str, dict[str, str]] = {}
    for line in (TEXT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            current = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition(": ")
            current[key] = value
    return found[section]


@cache
def both_ways(section: str) -> dict[str, str]:
    """Pairs that also hold in reverse; the first of several keeps its place."""
    result: dict[str, str] = {}
    for a, b in pairs(section).items():
        result.setdefault(a, b)
        result.setdefault(b, a)
    return result


def names(section: str, key: str) -> list[str]:
    """One of the lists of text/lists.txt."""
    return pairs(section, "lists.txt")[key].split(" | ")


def invented_name(rng: Rng) -> str:
    """A name that is in no list, so that names are copied from the chat rather than recalled."""
    syllables = [rng.choice("bdfgjklmnprstvwyz") + rng.choice(["a", "e", "i", "o", "u", "ai", "ee"])
                 for _ in range(rng.choice([1, 2, 2, 3]))]
    return capital("".join(syllables) + rng.choice(["", "n", "l", "r", "s", "k", "m", "th"]))


def spin(rng: Rng, text: str, /, **fields: object) -> str:
    """Replace each `[a|b|c]` (nestable) by one alternative, then fill in `{field}`s."""
    count = 1
    while count:
        text, count = _GROUP.subn(lambda m: rng.choice(m.group(1).split("|")), text)
    return text.format(**fields) if fields else text


def pick(rng: Rng, options: Sequence[str], /, **fields: object) -> str:
    """Choose one template and expand it."""
    return spin(rng, rng.choice(options), **fields)


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def article(noun: str) -> str:
    """`a` or `an`, whichever the noun takes."""
    vowel = noun[0].lower() in "aeiou" and not noun.startswith(("uni", "use", "uku"))
    return "an" if vowel else "a"


def roughen(rng: Rng, text: str) -> str:
    """A question as people type it: now and then without capitals or the final mark."""
    draw = rng.random()
    if draw < 0.15:
        text = text.lower()
    elif draw < 0.25:
        text = text[:1].lower() + text[1:]
    if rng.random() < 0.2 and text[-1:] in ".?!。？！":
        text = text[:-1]
    return text
