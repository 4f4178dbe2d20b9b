"""Questions outside the model's range, and the honest answer that it is only a small demo."""

from __future__ import annotations

from data.core import Rng, Turn, article, entries, names, pick

THINK = ["This is outside what I know. I should say so.",
         "I am a small demo model. I do not know this, so I say it.",
         "I do not know this and should not guess."]
THINK_ZH = ["这个问题超出了我的知识范围，应该如实说明。", "我不知道，不应该乱猜。"]


def _limits(rng: Rng, table: str, think: list[str], **fields: object) -> list[Turn]:
    blocks = entries(table)
    entry = rng.choices(blocks, [len(b.asks) for b in blocks])[0]
    return [Turn(pick(rng, entry.asks, **fields), pick(rng, entry.answers), pick(rng, think),
                 kind="limits")]


def limits(rng: Rng) -> list[Turn]:
    """A question that needs a larger model, live data or hands."""
    t, t2 = rng.sample(names("limits", "topics"), 2)
    place, place2 = rng.sample(names("limits", "places"), 2)
    return _limits(rng, "limits.en.txt", THINK, t=t, t2=t2, l=place, l2=place2,
                   p=rng.choice(names("limits", "people")), x=rng.choice(names("limits", "tasks")),
                   r=rng.choice(names("limits", "repairs")), a=rng.randint(13, 99),
                   b=rng.randint(100, 9999))


def limits_zh(rng: Rng) -> list[Turn]:
    """The same in Chinese."""
    t, t2 = rng.sample(names("limits", "topics zh"), 2)
    return _limits(rng, "limits.zh.txt", THINK_ZH, t=t, t2=t2)


def unknown(rng: Rng) -> list[Turn]:
    """A capital or a word that the model was never taught."""
    if rng.random() < 0.5:
        x = rng.choice(names("limits", "countries"))
        asks = ["What is the capital of {x}?", "What's the capital of {x}?", "Capital of {x}?",
                "[Name|Tell me] the capital of {x}.", "Which city is the capital of {x}?"]
        what = f"the capital of {x}"
    else:
        x = rng.choice(names("limits", "nouns"))
        asks = ["What is {y} {x}?", "What's {y} {x}?", "[Define|Explain] {x}.",
                "Explain what {y} {x} is.", "What does {x} mean?"]
        what = f"what {article(x)} {x} is"
    say = pick(rng, ["I do not know {w}. I am only a small demo model.",
                     "[Sorry|I am sorry], I do not know {w}. "
                     "[Qwen3-0.6B|A larger model] may know it."], w=what)
    return [Turn(pick(rng, asks, x=x, y=article(x)), say, pick(rng, THINK), kind="limits")]
