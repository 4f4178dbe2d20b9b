"""Short stories and poems in English, written by a grammar."""

from __future__ import annotations

from data.core import Rng, Turn, article, capital, entries, names, pick, spin

ABOUT = ["[Tell me|Write|Write me|Make up] a [short |little |]story about {x} {h}.",
         "[Can you|Please] [tell|write] [me |]a [short |]story about {x} {h}[?|.]",
         "[I want|I would like] a story [about|with] {x} {h}.", "A story about {x} {h}, please."]
ANY = ["[Tell me|Write|Write me] a [short |little |bedtime |]story[.| please.]", "Story please",
       "[Can you|Please] tell me a story[?|.]", "I want to hear a story.",
       "Another story[.|, please.]", "Once upon a time"]
POEM = ["[Write|Tell me|Write me|Make] a [short |little |]poem about {t}.",
        "[Can you|Please] write [me |]a poem about {t}[?|.]", "A poem about {t}[.|, please.]"]
ANY_POEM = ["[Write|Tell me|Write me] a [short |little |]poem[.|, please.]", "Poem please",
            "Do you know a poem?", "[Can you|Please] write a poem[?|.]"]


def _tale(rng: Rng, hero: str) -> str:
    name = rng.choice(names("people", "names"))
    trait, place, friend, find = (rng.choice(names("stories", part))
                                  for part in ("traits", "places", "friends", "finds"))
    first = pick(rng, ["Once upon a time there was {x} {t} {h} [named|called] {n}.",
                       "There once was {x} {t} {h} [named|called] {n}.",
                       "{X} {t} {h} [named|called] {n} lived in {p}."],
                 x=article(trait), X=capital(article(trait)), t=trait, h=hero, n=name, p=place)
    lines = [first]
    if " lived in " not in first:
        lines.append(pick(rng, ["{n} lived in {p}.", "The {h} lived in {p}."],
                          n=name, h=hero, p=place))
    lines.append(spin(rng, "One [morning|day|evening|summer day], {n} found {x} {f}.",
                      n=name, x=article(find), f=find))
    lines.append(spin(rng, "{n} wanted to [know where it came from|show it to a friend|"
                           "keep it safe], but {tr}.",
                      n=name, tr=rng.choice(names("stories", "troubles"))))
    lines.append(spin(rng, "[Then|Luckily|Just then] {x} {fr} came along and {he}.",
                      x=article(friend), fr=friend, he=rng.choice(names("stories", "helps"))))
    if rng.random() < 0.5:
        lines.append(spin(rng, "[\"Thank you,\" said {n}. \"You are a true friend.\"|"
                               "{n} was very [happy|thankful].|"
                               "\"Together we can do it,\" said the {fr}.]", n=name, fr=friend))
    return " ".join([*lines, rng.choice(names("stories", "ends"))])


def story(rng: Rng) -> list[Turn]:
    """A story of five to seven sentences, on request about a given hero."""
    hero = rng.choice(names("stories", "heroes"))
    ask = pick(rng, ABOUT if rng.random() < 0.6 else ANY, x=article(hero), h=hero)
    return [Turn(ask, _tale(rng, hero),
                 f"A short story with a {hero}, a find, a trouble and a good end.",
                 key=f"story {ask.lower()}", kind="story")]


def poem(rng: Rng) -> list[Turn]:
    """Four lines in rhyme on a theme."""
    theme = rng.choice(entries("poems.en.txt"))
    ask = pick(rng, POEM if rng.random() < 0.75 else ANY_POEM, t=theme.topic)
    lines = [capital(spin(rng, line)) for line in theme.answers]
    return [Turn(ask, "\n".join(lines), f"Four lines about {theme.topic}, in rhyme.",
                 key=f"poem {ask.lower()}", kind="story")]
