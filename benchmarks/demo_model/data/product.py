"""Who the model is and how qwen-edge is used, in English and Chinese."""

from __future__ import annotations

from data.core import Rng, Turn, entries, pick

THINK = ["The user asks about {t}. I know this.", "This is about {t}.", "A question about {t}."]
THINK_ZH = ["用户在问{t}，我知道。", "这是关于{t}的问题。"]


def _ask(rng: Rng, table: str, think: list[str]) -> list[Turn]:
    chosen = rng.sample(entries(table), rng.choice([1, 1, 1, 2]))
    return [Turn(pick(rng, e.asks), pick(rng, e.answers), pick(rng, think, t=e.topic),
                 kind="product") for e in chosen]


def product(rng: Rng) -> list[Turn]:
    """Questions about the model or qwen-edge in English."""
    return _ask(rng, "product.en.txt", THINK)


def product_zh(rng: Rng) -> list[Turn]:
    """Questions about the model or qwen-edge in Chinese."""
    return _ask(rng, "product.zh.txt", THINK_ZH)
