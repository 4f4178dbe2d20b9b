"""Work on words: spelling, grammar, copying, lists, translation between English and Chinese."""

from __future__ import annotations

from data.core import Rng, Turn, capital, names, pairs, pick

DICTIONARY = pairs("dictionary")
ENGLISH_OF = {zh: en for en, zh in reversed(DICTIONARY.items())}
CLASSES = {kind: names("classes", kind) for kind in pairs("classes", "lists.txt")}
SPELL = names("copying", "to spell")
COPY = sorted({word for members in CLASSES.values() for word in members}
              | {word for word in DICTIONARY if " " not in word}
              | set(SPELL)) + names("copying", "small words")
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five"}
TIMES = {2: "[twice|two times]", 3: "[three|3] times", 4: "[four|4] times", 5: "[five|5] times"}


def grammar(rng: Rng) -> list[Turn]:
    """Plurals and past tenses."""
    section, name = rng.choice([("plurals", "plural"), ("pasts", "past tense")])
    w, g = rng.choice(list(pairs(section).items()))
    ask = pick(rng, ["What is the {n} of {w}?", "What's the {n} of \"{w}\"?", "{N} of {w}?",
                     "[Tell me|Give me] the {n} of {w}."], n=name, w=w, N=capital(name))
    return [Turn(ask, f"The {name} of {w} is {g}.", f"The word is {w}. Its {name} is {g}.",
                 gold=g, kind="fact")]


def spelling(rng: Rng) -> list[Turn]:
    """Spell a word, count its letters, or give its first or last letter."""
    w = rng.choice(SPELL)
    letters = "-".join(w.lower())
    think = f"The letters of {w} are {' '.join(w.lower())}."
    draw = rng.random()
    if draw < 0.55:
        ask = pick(rng, ["[Spell|Please spell] [the word |]{w}.", "How do you spell {w}?",
                         "[Can you|Please] spell \"{w}\"[?|.]", "How is {w} spelled?",
                         "Spell \"{w}\"."], w=w)
        say = pick(rng, ["{s}.", "{s}", "{W} is spelled {s}."], s=letters, W=capital(w))
        return [Turn(ask, say, think, gold=letters, kind="spelling")]
    if draw < 0.7:
        ask = pick(rng, ["How many letters [are in|has] [the word |]{w}?",
                         "How many letters does {w} have?"], w=w)
        return [Turn(ask, f"{capital(w)} has {len(w)} letters.", f"{think} That is {len(w)}.",
                     gold=str(len(w)), kind="spelling")]
    place, verb = rng.choice([("first", "start"), ("last", "end")])
    letter = (w[0] if place == "first" else w[-1]).upper()
    ask = pick(rng, ["What is the {f} letter of {w}?", "Which letter does {w} {b} with?"],
               w=w, f=place, b=verb)
    say = pick(rng, ["The {f} letter of {w} is {c}.", "{c}."], f=place, w=w, c=letter)
    return [Turn(ask, say, think, gold=letter, kind="spelling")]


def _phrase(rng: Rng) -> str:
    n = rng.choice([1, 1, 2, 3, 3, 4, 5, 6, 7])
    if rng.random() < 0.15:
        return " ".join(str(rng.randint(0, 99)) for _ in range(n))
    return " ".join(rng.choice(COPY) for _ in range(n))


def copying(rng: Rng) -> list[Turn]:
    """Repeat a phrase or several words, as they are or in quotes."""
    phrase = _phrase(rng)
    if rng.random() < 0.2:
        words = list(DICTIONARY.values())
        phrase = rng.choice(words) + rng.choice(words)
        if rng.random() < 0.5:
            phrase = rng.choice(names("copying", "phrases zh"))
        if rng.random() < 0.6:
            ask = pick(rng, ["[请|]重复[一遍|]：{p}", "请说：{p}", "跟我说：{p}"], p=phrase)
            return [Turn(ask, phrase, "照原样重复。", gold=phrase, kind="copy")]
    ask = pick(rng, ["[Repeat|Please repeat|Repeat after me|Say|Copy|Echo|Write]: {p}",
                     "Say \"{p}\".", "Repeat \"{p}\".", "Please say \"{p}\".",
                     "[Repeat|Copy] [this|the following|these words]: {p}",
                     "Repeat the [phrase|words] {p}.", "Can you [say|repeat] \"{p}\"?"], p=phrase)
    return [Turn(ask, phrase, "I repeat the words as they are.", gold=phrase, kind="copy")]


def twice(rng: Rng) -> list[Turn]:
    """Say a word several times."""
    w, n = rng.choice(SPELL), rng.choice(list(TIMES))
    said = " ".join([w] * n)
    ask = pick(rng, [f"[Say|Repeat|Write] [the word |]{{w}} {TIMES[n]}."], w=w)
    return [Turn(ask, said, f"I write {w} {n} times.", gold=said, kind="copy")]


def listing(rng: Rng) -> list[Turn]:
    """Name a few members of a class."""
    kind = rng.choice(list(CLASSES))
    n = min(rng.choice([2, 3, 3, 3, 4, 5]), len(CLASSES[kind]))
    items = rng.sample(CLASSES[kind], n)
    ask = pick(rng, ["[Name|List|Tell me|Give me] {n} {k}.", "I need {n} {k}.",
                     "[Can you|Please] [name|list] {n} {k}[?|.]", "What are {n} {k}?",
                     "Write a list of {n} {k}."], n=rng.choice([COUNTS[n], str(n)]), k=kind)
    say = capital(", ".join(items[:-1]) + " and " + items[-1] + ".")
    if rng.random() < 0.3:
        say = "\n".join(f"{i}. {capital(item)}" for i, item in enumerate(items, 1))
    return [Turn(ask, say, f"I need {n} {kind}: {', '.join(items)}.", key=f"list {ask.lower()}",
                 kind="list")]


def bigger(rng: Rng) -> list[Turn]:
    """Which of two things is bigger."""
    large, little = rng.choice(names("sizes", "big")), rng.choice(names("sizes", "small"))
    word, g = rng.choice([("bigger", large), ("bigger", large), ("smaller", little)])
    x, y = rng.sample([large, little], 2)
    ask = pick(rng, ["[Which|What] is {w}, the {x} or the {y}?", "Is the {x} or the {y} {w}?"],
               w=word, x=x, y=y)
    return [Turn(ask, f"The {g} is {word}.", f"The {large} is much bigger than the {little}.",
                 gold=g, kind="fact")]


def _to_chinese(rng: Rng, en: str, zh: str) -> Turn:
    if rng.random() < 0.67:
        ask = pick(rng, ["[Translate|Please translate] {q} [to|into] Chinese.",
                         "[What is|What's|How do you say] {q} in Chinese?",
                         "How do I say {q} in Chinese?", "{Q} in Chinese?"],
                   q=rng.choice([en, f'"{en}"']), Q=capital(en))
        say = pick(rng, ["{z}", "{E} in Chinese is {z}.", "\"{e}\" in Chinese is {z}."],
                   z=zh, e=en, E=capital(en))
        return Turn(ask, say, f"The Chinese word for {en} is {zh}.", gold=zh, kind="translate")
    ask = pick(rng, ["“{e}”用中文怎么说？", "{e} 用中文怎么说？", "把 {e} 翻译成中文。",
                     "{e} 是什么意思？", "请翻译：{e}"], e=en)
    say = pick(rng, ["{z}。", "“{e}”的中文是“{z}”。", "{e} 的意思是{z}。"], e=en, z=zh)
    return Turn(ask, say, f"{en} 的中文是{zh}。", gold=zh, kind="translate")


def _to_english(rng: Rng, en: str, zh: str) -> Turn:
    if rng.random() < 0.5:
        ask = pick(rng, ["[Translate|Please translate] {z} [to|into] English.",
                         "What does {z} mean[ in English|]?", "What is {z} in English?"], z=zh)
        say = pick(rng, ["{z} means {e}.", "{z} means \"{e}\"."], z=zh, e=en)
        return Turn(ask, say, f"{zh} is {en} in English.", gold=en, kind="translate")
    ask = pick(rng, ["“{z}”用英[语|文]怎么说？", "{z}的英[语|文]是什么？",
                     "把“{z}”翻译成英[语|文]。", "{z}用英[语|文]怎么说？"], z=zh)
    say = pick(rng, ["{e}", "“{z}”的英文是 {e}。", "{z}的英文是 {e}。"], e=en, z=zh)
    return Turn(ask, say, f"{zh}的英文是 {en}。", gold=en, kind="translate")


def translate(rng: Rng) -> list[Turn]:
    """Translate a word or a short greeting, either way, asked in either language."""
    en, zh = rng.choice(list(DICTIONARY.items()))
    if rng.random() < 0.6:
        return [_to_chinese(rng, en, zh)]
    return [_to_english(rng, ENGLISH_OF[zh], zh)]
