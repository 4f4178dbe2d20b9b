"""Short questions that only make sense after the one before: and of Germany? 那法国呢？"""

from __future__ import annotations

from data.core import Rng, Turn, both_ways, capital, pairs, pick

SOUNDS = {f"a {animal}": sound for animal, sound in pairs("sounds").items()}
FAMILIES: list[tuple[dict[str, str], list[str], str]] = [
    (pairs("capitals"), ["What is the capital of {x}?", "What's the capital of {x}?"],
     "The capital of {x} is {g}."),
    (pairs("colours"), ["What colour is {x}?", "What color is {x}?"], "{X} is {g}."),
    (both_ways("opposites"), ["What is the opposite of {x}?"], "The opposite of {x} is {g}."),
    (SOUNDS, ["What sound does {x} make?"], "{X} {g}."),
    (pairs("dictionary"), ["How do you say {x} in Chinese?", "What is {x} in Chinese?"],
     "{X} in Chinese is {g}."),
]
NEXT = ["[And|What about|How about] {x}?", "And {x}?", "[Now|And now] {x}[.|?]"]
FAMILIES_ZH: list[tuple[dict[str, str], list[str], str]] = [
    (pairs("capitals zh"), ["{x}的首都是哪里？"], "{x}的首都是{g}。"),
    (both_ways("opposites zh"), ["“{x}”的反义词是什么？"], "“{x}”的反义词是“{g}”。"),
]
NEXT_ZH = ["那{x}呢？", "{x}呢？", "那么{x}呢？"]


def _chain(rng: Rng, families: list[tuple[dict[str, str], list[str], str]], following: list[str],
           think: str) -> list[Turn]:
    table, asks, say = rng.choice(families)
    turns = []
    for i, x in enumerate(rng.sample(list(table), rng.choice([2, 2, 3, 4]))):
        answer = say.format(x=x, X=capital(x), g=table[x])
        ask = pick(rng, following if i else asks, x=x)
        turns.append(Turn(ask, answer, (think if i else "") + answer,
                          key=f"{say[:20]} {ask}" if i else "", gold=table[x], kind="fact"))
    return turns


def follow_up(rng: Rng) -> list[Turn]:
    """A question and one to three of its kind in short form."""
    return _chain(rng, FAMILIES, NEXT, "The user asks the same about another. ")


def follow_up_zh(rng: Rng) -> list[Turn]:
    """The same in Chinese."""
    return _chain(rng, FAMILIES_ZH, NEXT_ZH, "")
