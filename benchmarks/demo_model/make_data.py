"""Write the training and held-out dialogues of the demo model as JSON lines.

    python make_data.py OUT_DIR --train 150000 --held-out 3000 --seed 1

A line holds `messages` in chat form (the last assistant message carries `reasoning_content` where
the dialogue thinks), `thinking` (the mode of the prompt), and `kind`, `gold` and `key` of the last
turn.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from data import (
    arithmetic,
    chinese,
    facts,
    follow_up,
    knowledge,
    limits,
    passages,
    product,
    smalltalk,
    stories,
    words,
)
from data.core import Rng, Topic, Turn, entries, is_held_out, names, pick, roughen, spin

ENGLISH: dict[Topic, float] = {
    arithmetic.sums: 36,
    arithmetic.compare: 4,
    arithmetic.counting: 3,
    smalltalk.greeting: 3,
    smalltalk.how_are_you: 2,
    smalltalk.mood: 2.5,
    smalltalk.chatter: 3.5,
    smalltalk.thanks: 1.5,
    smalltalk.goodbye: 1.5,
    smalltalk.memory: 9,
    smalltalk.unknown_user: 0.5,
    product.product: 8,
    facts.countries: 6,
    facts.colours: 2.5,
    facts.animals: 4,
    facts.opposites: 4,
    facts.calendar: 4,
    facts.units: 2.5,
    knowledge.science: 6,
    knowledge.definitions: 3.5,
    limits.limits: 4,
    limits.unknown: 1.5,
    follow_up.follow_up: 3,
    words.grammar: 1.5,
    words.spelling: 5,
    words.copying: 8,
    passages.answering: 3,
    passages.repeating: 2,
    passages.lines: 4,
    words.twice: 1.5,
    words.listing: 2,
    words.bigger: 0.7,
    words.translate: 4,
    stories.story: 2,
    stories.poem: 1.2,
}
CHINESE: dict[Topic, float] = {
    arithmetic.sums_zh: 8,
    chinese.talk: 5,
    chinese.memory: 3,
    chinese.facts: 8,
    chinese.relativity: 1,
    chinese.story: 1.5,
    product.product_zh: 5,
    limits.limits_zh: 3,
    words.translate: 3,
    words.copying: 3,
    follow_up.follow_up_zh: 1.5,
}
CHUNKS = ([1, 2, 3, 4, 5, 6, 10, 14], [56, 18, 11, 6, 3, 2, 2.5, 1.5])


def holds_out(turn: Turn) -> bool:
    """Whether a turn is held out. Short chat phrases never are: there are too few of each."""
    if turn.kind in ("chat", "product", "limits") and not turn.key:
        long_enough = len(turn.user.split()) >= 5 or sum(c > "\u2fff" for c in turn.user) >= 9
        return long_enough and is_held_out(turn.split_key())
    return turn.key != "relativity" and is_held_out(turn.split_key())


def draw(rng: Rng, zh: bool) -> list[Turn]:
    """The turns of one topic, drawn by weight."""
    table = CHINESE if zh else ENGLISH
    return rng.choices(list(table), list(table.values()))[0](rng)


def persona(rng: Rng) -> tuple[str, list[Turn]]:
    """A system prompt that gives the model a name, and the question after it."""
    name = rng.choice(names("people", "names"))
    ask = spin(rng, "[What is your name?|Who are you?|What are you called?|Your name?]")
    say = spin(rng, "[My name is {n}.|I am {n}.]", n=name)
    system = "[Your name is {n}.|You are {n}[, a helpful assistant|].][| Be brief.]"
    return spin(rng, system, n=name), [
        Turn(
            ask,
            say,
            f"The system prompt says that I am {name}.",
            key=f"persona {name}",
            gold=name,
            kind="memory",
        )
    ]


def dialogue(rng: Rng, held_out: bool) -> dict[str, object]:
    """One dialogue; with held_out its last turn is held out, else none of its turns is."""
    zh = rng.random() < 0.27
    mixed = rng.random() < 0.08
    prompts = entries("system.txt", "zh" if zh else "en")[0].answers
    system = pick(rng, prompts) if rng.random() < 0.2 else ""
    turns: list[Turn] = []
    if not zh and rng.random() < 0.012:
        system, turns = persona(rng)
    count = rng.choices(*CHUNKS)[0]
    for i in range(count):
        last = i == count - 1
        while True:
            chunk = draw(rng, zh != (mixed and rng.random() < 0.5))
            held = [holds_out(t) for t in chunk]
            if held_out and last and held[-1] and not any(held[:-1]):
                break
            if not (held_out and last) and not any(held):
                break
        turns += chunk
    end = turns[-1]
    share = 0.4 if end.kind in ("arithmetic", "compare", "spelling") else 0.24
    thinking = bool(end.thinking) and rng.random() < share
    messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        keep = turn.kind in ("copy", "extract", "translate", "spelling")
        messages.append({"role": "user", "content": turn.user if keep else roughen(rng, turn.user)})
        messages.append({"role": "assistant", "content": turn.assistant})
    no_think = not thinking and rng.random() < 0.02
    if no_think:
        messages[-2]["content"] += " /no_think"
    if thinking:
        messages[-1]["reasoning_content"] = end.thinking
    return {
        "messages": messages,
        "thinking": thinking or no_think,
        "kind": end.kind,
        "gold": end.gold,
        "key": end.split_key(),
    }


def write(path: Path, count: int, seed: int, held_out: bool) -> None:
    """Write `count` distinct dialogues."""
    rng = random.Random(f"{seed}-{held_out}")
    seen: set[str] = set()
    with path.open("w", encoding="utf-8") as file:
        while len(seen) < count:
            line = json.dumps(dialogue(rng, held_out), ensure_ascii=False)
            if line not in seen:
                seen.add(line)
                file.write(line + "\n")


def main() -> None:
    """Parse the arguments and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=150_000)
    parser.add_argument("--held-out", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "heldout.jsonl", args.held_out, args.seed, True)
    write(args.out / "train.jsonl", args.train, args.seed, False)


if __name__ == "__main__":
    main()
