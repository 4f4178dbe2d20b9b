"""Small English facts: capitals, colours, animals, opposites, calendar, planets, units.

Every (fact, phrasing) pair is one question, so a held-out question asks a known fact in words that
training never used for it.
"""

from __future__ import annotations

from data.core import Rng, Turn, article, both_ways, capital, entries, pairs, pick

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = list(pairs("month lengths"))
PLANETS = ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"]
LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth",
            "ninth", "tenth", "eleventh", "twelfth"]
MIXTURES = [("red", "yellow", "orange"), ("blue", "yellow", "green"), ("red", "blue", "purple"),
            ("red", "white", "pink"), ("black", "white", "grey")]


def _fact(rng: Rng, asks: list[str], says: list[str], gold: str, think: str, **kw: object
          ) -> list[Turn]:
    kw |= {"g": gold, "G": capital(gold)}
    say = pick(rng, [*says, "{G}."] if rng.random() < 0.3 else says, **kw)
    return [Turn(pick(rng, asks, **kw), say, pick(rng, [think], **kw), gold=gold, kind="fact")]


def _draw(rng: Rng, section: str) -> tuple[str, str]:
    return rng.choice(list(pairs(section).items()))


def countries(rng: Rng) -> list[Turn]:
    """Capitals, continents and languages of countries."""
    draw = rng.random()
    if draw < 0.15:
        c, g = _draw(rng, "continents")
        return _fact(rng, ["[Which|What] continent is {c} in?", "Where is {c}?",
                           "On which continent is {c}?"], ["{c} is in {g}."], g,
                     "{c} lies in {g}.", c=c)
    if draw < 0.27:
        c, g = _draw(rng, "languages")
        return _fact(rng, ["[Which|What] language [do people speak|is spoken] in {c}?",
                           "What do people speak in {c}?", "What is the language of {c}?"],
                     ["[People in {c} speak {g}.|The main language of {c} is {g}.]"], g,
                     "The language of {c} is {g}.", c=c)
    c, g = _draw(rng, "capitals")
    if draw < 0.4 and g not in ("London", "Singapore"):
        return _fact(rng, ["{cap} is the capital of which country?",
                           "Which country has the capital {cap}?",
                           "Of which country is {cap} the capital?"],
                     ["{cap} is the capital of {g}."], c, "{cap} is the capital of {g}.", cap=g)
    return _fact(rng, ["What is the capital[ city|] of {c}?", "What's the capital of {c}?",
                       "Which city is the capital of {c}?", "[Name|Tell me] the capital of {c}.",
                       "[Do you know|Can you tell me] the capital of {c}?", "Capital of {c}?",
                       "{c}: what is its capital?"],
                 ["The capital of {c} is {g}.", "The capital of {c} is {g}.",
                  "{g} is the capital of {c}."], g,
                 "[The country is {c}. |]Its capital is {g}.", c=c)


def colours(rng: Rng) -> list[Turn]:
    """The usual colour of a thing, and mixed paint."""
    if rng.random() < 0.15:
        *mixed, g = rng.choice(MIXTURES)
        a, b = rng.sample(mixed, 2)
        return _fact(rng, ["What colour do you get [from|when you mix|if you mix] {a} and {b}?",
                           "[Mix|What is] {a} and {b}[.| mixed?]"], ["{A} and {b} make {g}."], g,
                     "Mixing {a} and {b} gives {g}.", a=a, b=b, A=capital(a))
    t, g = _draw(rng, "colours")
    return _fact(rng, ["What [colour|color] is {t}?", "[Which|What] [colour|color] does {t} have?",
                       "Tell me the [colour|color] of {t}.", "What is the [colour|color] of {t}?"],
                 ["{T} is {g}."], g, "{T} is usually {g}.", t=t, T=capital(t))


ANIMALS: dict[str, tuple[list[str], str, str]] = {
    "sounds": (["What [sound|noise] does a {a} make?", "What does a {a} say?",
                "How does a {a} sound?"], "A {a} {g}.", "A {a} {g}."),
    "young": (["What is a [young|baby] {a} called?", "What do you call a [young|baby] {a}?",
               "What is the [young|baby] of a {a} called?"],
              "A [young|baby] {a} is called a {g}.", "The young of a {a} is a {g}."),
    "legs": (["How many legs does {x} {a} have?", "How many legs has {x} {a}?",
              "{X} {a} has how many legs?"], "{X} {a} has {g} legs.", "{X} {a} has {g} legs."),
    "kinds": (["What kind of animal is {x} {a}?", "What is {x} {a}?",
               "Is {x} {a} a mammal or what is it?",
               "Which class of animals does {x} {a} belong to?"],
              "{X} {a} is {y} {g}.", "{X} {a} is {y} {g}."),
    "diet": (["What does a {a} eat?", "What food does a {a} like?",
              "What is the food of a {a}?"], "A {a} eats {g}.", "A {a} eats {g}."),
}


def animals(rng: Rng) -> list[Turn]:
    """Sounds, young, legs, classes and food of animals."""
    section = rng.choice(list(ANIMALS))
    asks, say, think = ANIMALS[section]
    a, g = _draw(rng, section)
    if g == "0":
        say = "{X} {a} has no legs, so {g}."
    x = article(a)
    return _fact(rng, asks, [say], g, think, a=a, x=x, X=capital(x), y=article(g))


def opposites(rng: Rng) -> list[Turn]:
    """Opposites of words."""
    w, g = rng.choice(list(both_ways("opposites").items()))
    return _fact(rng, ["What is the opposite of [{w}|\"{w}\"]?", "Opposite of {w}?",
                       "[Tell me|Give me|Name] the opposite of {w}.",
                       "What's the opposite of {w}?", "Which word is the opposite of {w}?"],
                 ["The opposite of {w} is {g}.", "The opposite of \"{w}\" is \"{g}\"."], g,
                 "[{w} means the reverse of {g}.|The word is {w}. Its opposite is {g}.]", w=w)


def planets(rng: Rng) -> list[Turn]:
    """The planets: their order and what each is known for."""
    if rng.random() < 0.5:
        entry = rng.choice(entries("science.en.txt", "planets"))
        say = entry.answers[0]
        return _fact(rng, entry.asks, [say], entry.golds[0], say)
    i = rng.randrange(8)
    return _fact(rng, ["Which planet is number {n} from the sun?", "Which is the {o} planet?",
                       "What is the {o} planet from the sun?"],
                 ["The {o} planet from the sun is {g}.", "{g} is the {o} planet from the sun."],
                 PLANETS[i], "In order: " + ", ".join(PLANETS) + ". Number {n} is {g}.",
                 n=i + 1, o=ORDINALS[i])


def _neighbour(rng: Rng, series: list[str], what: str) -> list[Turn]:
    i, step = rng.randrange(len(series)), rng.choice([1, 1, -1])
    if what == "letter" and not 0 <= i + step < len(series):
        step = -step
    return _fact(rng, ["[Which|What] {w} comes {b} {a}?", "What {w} is {b} {a}?",
                       "Tell me the {w} {b} {a}."],
                 ["{g} comes {b} {a}.", "The {w} {b} {a} is {g}."],
                 series[(i + step) % len(series)], "The {w} {b} {a} is {g}.",
                 a=series[i], b="after" if step == 1 else "before", w=what)


def calendar(rng: Rng) -> list[Turn]:
    """Days, months and letters: order, neighbours, lengths; planets alike."""
    series, what, period = rng.choice([(DAYS, "day", "week"), (MONTHS, "month", "year"),
                                       (LETTERS, "letter", ""), (PLANETS, "planet", "")])
    if what == "planet" and rng.random() < 0.9:
        return planets(rng)
    draw = rng.random()
    if what == "month" and draw < 0.25:
        m, g = _draw(rng, "month lengths")
        leap = ", or 29 in a leap year" if m == "February" else ""
        return _fact(rng, ["How many days are in {m}?", "How many days does {m} have?",
                           "How long is {m}?"], ["{m} has {g} days{leap}."], g,
                     "{m} has {g} days.", m=m, leap=leap)
    if period and draw < 0.4:
        i = rng.randrange(len(series))
        return _fact(rng, ["What is the {o} {w} of the {p}?", "Which {w} is the {o} of the {p}?",
                           "Which {w} comes {o} in the {p}?"],
                     ["The {o} {w} of the {p} is {g}."], series[i],
                     "Counting from {f}, number {n} is {g}.", o=ORDINALS[i], w=what, p=period,
                     f=series[0], n=i + 1)
    if period and draw < 0.5:
        return _fact(rng, ["[Name|List|Tell me] [the|all] {w}s[| of the {p}]."],
                     ["The {w}s are {all} and {g}."], series[-1], "There are {n} of them.",
                     w=what, n=len(series), all=", ".join(series[:-1]), p=period)
    return _neighbour(rng, series, what)


def units(rng: Rng) -> list[Turn]:
    """How many of these are in one of those."""
    question, g = _draw(rng, "units")
    prep = "in" if " in " in question else "on"
    small, big = question.split(f" {prep} ")
    return _fact(rng, ["How many {s} are there {p} {b}?", "How many {s} are {p} {b}?",
                       "{B}: how many {s}?", "What is the number of {s} {p} {b}?"],
                 ["There are {g} {s} {p} {b}."], g, "{B}: {g} {s}.", s=small, b=big, p=prep,
                 B=capital(big))
