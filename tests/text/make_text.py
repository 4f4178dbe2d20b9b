"""Strings that are hard on a tokenizer, the same ones for the same seed."""

from __future__ import annotations

import random

CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>", "<tool_call>"]
CONTROL += [
    "</tool_call>",
    "<tool_response>",
    "<|fim_prefix|>",
    "<|im_",
    "im_end|>",
    "<",
    "<|",
    "|>",
]

# First and last code point of blocks that behave differently from each other.
BLOCKS = [
    *((0x20, 0x7E), (0x00, 0x20), (0x80, 0x9F), (0xA0, 0xFF), (0x100, 0x17F), (0x180, 0x24F)),
    *((0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x591, 0x5F4)),
    *((0x610, 0x6FF), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF), (0xC00, 0xC7F)),
    *((0xD00, 0xD7F), (0xD80, 0xDFF), (0xE00, 0xE7F), (0xE80, 0xEFF), (0xF00, 0xFFF)),
    *((0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F), (0x1680, 0x169F)),
    *((0x1780, 0x17FF), (0x1800, 0x18AF), (0x1AB0, 0x1AFF), (0x1B00, 0x1B7F), (0x1DC0, 0x1DFF)),
    *((0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x20FF), (0x2100, 0x21FF)),
    *((0x2200, 0x22FF), (0x2460, 0x24FF), (0x2600, 0x27BF), (0x3000, 0x30FF), (0x3131, 0x318E)),
    *((0x3200, 0x33FF), (0x4E00, 0x9FFF), (0xA000, 0xA4CF), (0xA8E0, 0xA8FF), (0xABC0, 0xABFF)),
    *((0xAC00, 0xD7FF), (0xE000, 0xE0FF), (0xF900, 0xFB4F), (0xFB50, 0xFDFF), (0xFE00, 0xFE6F)),
    *((0xFF00, 0xFFFF), (0x10000, 0x1007F), (0x10400, 0x104FF), (0x11080, 0x110FF)),
    *((0x11300, 0x1137F), (0x11900, 0x1195F), (0x16D40, 0x16D7F), (0x1D100, 0x1D1FF)),
    *((0x1D400, 0x1D7FF), (0x1E900, 0x1E95F), (0x1F000, 0x1FAFF), (0x20000, 0x2FA1F)),
    *((0xE0000, 0xE01EF), (0x10FF00, 0x10FFFF)),
]
MARKS = [(0x300, 0x36F), (0x591, 0x5BD), (0x64B, 0x65F), (0x1AB0, 0x1ABE), (0x3099, 0x309A)]
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000\u200b\ufeff"
EMOJI = ["😀", "👩", "👩🏽", "\u200d", "\ufe0f", "❤️‍🔥", "👨‍👩‍👧‍👦", "🇩🇪", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏿", "1️⃣", "🧑🏻‍🚀"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'lL", "'D"]
CONTRACTIONS += ["'ſ", "’s", "'r", "'l", "'v", "''", "'ß", "'ﬂ", "'K", "' s"]
WORDS = [
    "the",
    "Hello",
    "wörld",
    "naïve",
    "你好",
    "世界",
    "Привет",
    "مرحبا",
    "नमस्ते",
    "한국어",
    "日本",
    "x1y2",
]
WORDS += ["don", "I", "it", "we", "def", "return", "self", "HTTPServer", "e\u0301", "A\u030a", "ﬁ"]


def _pick(chance: random.Random, blocks: list[tuple[int, int]]) -> str:
    while True:
        low, high = chance.choice(blocks)
        code = chance.randint(low, high)
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def _part(chance: random.Random) -> str:
    kind = chance.randrange(13)
    if kind == 0:
        block = chance.choice(BLOCKS)
        return "".join(_pick(chance, [block]) for _ in range(chance.randint(1, 12)))
    if kind == 1:
        return "".join(_pick(chance, BLOCKS) for _ in range(chance.randint(1, 6)))
    if kind == 2:
        marks = "".join(_pick(chance, MARKS) for _ in range(chance.randint(1, 5)))
        return _pick(chance, BLOCKS) + marks
    if kind == 3:
        return "".join(chance.choice(SPACES) for _ in range(chance.randint(1, 6)))
    if kind == 4:
        return chance.choice([" ", "\n", "\r\n", "\t", " \n", "\n "]) * chance.randint(1, 4)
    if kind == 5:
        return "".join(chance.choice(EMOJI) for _ in range(chance.randint(1, 4)))
    if kind == 6:
        return chance.choice(WORDS) + chance.choice(CONTRACTIONS) + chance.choice(["", "x", " "])
    if kind == 7:
        return str(chance.randrange(10 ** chance.randint(1, 12)))
    if kind == 8:
        return chance.choice("!?.,;:-=#*/\\\"'`()[]{}<>|@$%^&_+~") * chance.randint(1, 9)
    if kind == 9:
        return "".join(_pick(chance, [(0x1100, 0x11FF), (0xAC00, 0xD7A3)]) for _ in range(5))
    if kind == 10:
        return chance.choice(CONTROL)
    return " ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 4)))


def make_text(chance: random.Random) -> str:
    """One string of 0 to 12 parts."""
    joint = chance.choice(["", "", " "])
    return joint.join(_part(chance) for _ in range(chance.randint(0, 12)))


def make_texts(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return [make_text(chance) for _ in range(count)]


def long_runs() -> list[str]:
    """Runs of a hundred thousand characters, on which a careless algorithm is quadratic."""
    units = ["a", " ", "!", "\n", "7", "中", "\u0301", "<", "\u200d", "ab", " \n", "'s", "\t "]
    units += ["a\u0323\u0301", "<|im_", "\u0323\u0301", "ᄀ", "가", "\x00", "😀"]
    return [unit * (100_000 // len(unit)) for unit in units]
