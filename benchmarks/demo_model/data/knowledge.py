"""Simple science and everyday definitions in English, and relativity in short."""

from __future__ import annotations

from data.core import Rng, Turn, article, capital, entries, pairs, pick

DEFINE = ["What is {x} {n}?", "What's {x} {n}?", "What does [the word {n}|\"{n}\"] mean?",
          "[Define|Explain] {n}.", "Explain what {x} {n} is.", "Do you know what {x} {n} is?",
          "[Can you|Please] [describe|explain] {x} {n}[.|?]"]


def science(rng: Rng) -> list[Turn]:
    """A question of the table, sometimes in a polite wrapper."""
    entry = rng.choice(entries("science.en.txt"))
    ask, say = pick(rng, entry.asks), entry.answers[0]
    if rng.random() < 0.3 and ask.endswith("?"):
        ask = pick(rng, ["[Please tell me|Tell me|Can you tell me|I have a question|Question]: {q}",
                         "[Hey|Hi|Hello], {q}"], q=ask[0].lower() + ask[1:])
    think = pick(rng, ["[I recall the fact.|A question of general knowledge.] {s}"], s=say)
    return [Turn(ask, say, think, gold=entry.golds[0], kind="fact")]


def definitions(rng: Rng) -> list[Turn]:
    """What a common thing is."""
    name, what = rng.choice(list(pairs("things").items()))
    x, y = article(name), article(what)
    if rng.random() < 0.25:
        ask = pick(rng, ["What do you call {y} {w}?", "Which word means \"{y} {w}\"?"], w=what, y=y)
        think = f"{capital(y)} {what} is {x} {name}."
        return [Turn(ask, capital(f"{x} {name}."), think, gold=name, kind="fact")]
    return [Turn(pick(rng, DEFINE, x=x, n=name), f"{capital(x)} {name} is {y} {what}.",
                 f"I describe {x} {name}.", gold=what.split()[0], kind="fact")]
