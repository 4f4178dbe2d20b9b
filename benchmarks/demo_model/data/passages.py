"""A short text in the question: repeat it, take a line out of it, rearrange it, answer from it."""

from __future__ import annotations

from data.core import Rng, Turn, article, names, pick
from data.words import CLASSES, COPY

PLACES = ["first", "second", "third", "fourth", "fifth"]
# A fact about a person, the question about it, the answer.
FACTS = {
    "city": ("{n} lives in {v}.", "Where does {n} live?", "{n} lives in {v}."),
    "pet": ("{n} has {a} {v}.", "[Which|What] pet does {n} have?", "{n} has {a} {v}."),
    "food": ("{n} likes {v}.", "What does {n} like?", "{n} likes {v}."),
    "age": ("{n} is {v} years old.", "How old is {n}?", "{n} is {v} years old."),
    "job": ("{n} is {a} {v}.", "What is {n}'s job?", "{n} is {a} {v}."),
}


def _people(rng: Rng) -> tuple[str, list[tuple[str, str, str]]]:
    """A text about two or three people, and each fact of it as (value, question, answer)."""
    values = {
        "city": names("people", "cities"), "pet": names("people", "pets"),
        "food": names("people", "foods"), "age": [str(n) for n in range(6, 81)],
        "job": CLASSES["jobs"],
    }
    asked, said = [], []
    for name in rng.sample(names("people", "names"), rng.choice([2, 2, 3])):
        for kind in rng.sample(list(FACTS), rng.choice([1, 1, 2])):
            value = rng.choice(values[kind])
            fields = {"n": name, "v": value, "a": article(value)}
            sentence, question, answer = (pick(rng, [text], **fields) for text in FACTS[kind])
            said.append(sentence)
            asked.append((value, question, answer))
    return " ".join(said), asked


def answering(rng: Rng) -> list[Turn]:
    """Questions on a text of a few sentences."""
    text, asked = _people(rng)
    turns = []
    for i, (value, question, answer) in enumerate(rng.sample(asked, rng.choice([1, 1, 2]))):
        ask = question if i else pick(rng, ["{t}\n{q}", "{t} {q}", "Text: {t}\nQuestion: {q}",
                                            "{q}\n{t}", "Read this: {t} {q}"], t=text, q=question)
        turns.append(Turn(ask, answer, f"The text says: {answer}", gold=value, kind="extract"))
    return turns


def repeating(rng: Rng) -> list[Turn]:
    """A whole text again, word for word."""
    text, _ = _people(rng)
    ask = pick(rng, ["[Repeat|Copy|Write] this text[| again]:\n{t}", "Repeat[| exactly]: {t}",
                     "[Please repeat|Copy] this: {t}", "请重复这段话：{t}"], t=text)
    return [Turn(ask, text, "I repeat the text as it is.", gold=text, kind="copy")]


def lines(rng: Rng) -> list[Turn]:
    """One line or word of a list, the list upright or lying, or its order reversed."""
    items = rng.sample(COPY, rng.randint(2, 5))
    upright, lying = "\n".join(items), ", ".join(items)
    draw = rng.random()
    if draw < 0.4:
        at = rng.randrange(len(items))
        place = "last" if at == len(items) - 1 and rng.random() < 0.6 else PLACES[at]
        ask = pick(rng, ["[What is|Write|Give me] the {p} line?\n{u}",
                         "{u}\n[What is|Write|Copy] the {p} line[?|.]",
                         "[What is|Which is|Give me] the {p} word: {l}[?|]",
                         "Words: {l}. What is the {p} [word|one]?"], p=place, u=upright, l=lying)
        return [Turn(ask, items[at], f"The {place} one is {items[at]}.", gold=items[at],
                     kind="copy")]
    if draw < 0.65:
        ask = pick(rng, ["[Write|Put] each word on [its own|a new] line: {l}",
                         "One word per line, please: {l}"], l=lying)
        return [Turn(ask, upright, "One word on each line.", gold=upright, kind="copy")]
    if draw < 0.85:
        ask = pick(rng, ["[Write|Put] these [words|lines] in one line[, with commas|]:\n{u}",
                         "Join these [words|lines] with commas:\n{u}"], u=upright)
        return [Turn(ask, lying, "I join them with commas.", gold=lying, kind="copy")]
    back = ", ".join(reversed(items))
    ask = pick(rng, ["[Reverse|Turn round] the order: {l}", "Write these words backwards: {l}"],
               l=lying)
    return [Turn(ask, back, "I begin with the last one.", gold=back, kind="copy")]
