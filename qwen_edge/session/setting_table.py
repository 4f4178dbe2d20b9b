"""Every setting: its key, its range, and the adaptive default it overrides."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from qwen_edge.engine.interface import KV_TYPES
from qwen_edge.errors import UsageError
from qwen_edge.host.place import numbers_of
from qwen_edge.host.sizes import parse_size
from qwen_edge.session.memory import parse_cap

LOOKUP_MODES = ("auto", "off")
ENGINES = ("native", "torch", "transformers", "auto")
WAKE_LOCK_MODES = ("auto", "off")
COMPILE_MODES = ("auto", "on", "off", "aot")
GOVERNOR_MODES = ("off", "auto", "cool")
FALLBACKS = ("off", "article")
WEIGHTS = ("bf16", "f32", "nf4", "fp4", "int8")
PREFIX = "QWEN_EDGE_"
# What a set of cores can name.
_MOST_CORES = 1024


class Setting(NamedTuple):
    """One setting.

    Attributes:
        key: as in the configuration file and, with two dashes, on the command line.
        parse: text -> value; raises ValueError.
        allowed: the range in words, for messages.
        help: what it does, a sentence.
        field: the field of ``RuntimeConfig`` that is its adaptive default; empty if it has none.
    """

    key: str
    parse: Callable[[str], object]
    allowed: str
    help: str
    field: str = ""

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.key.upper().replace("-", "_")


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return parse


def _number(low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text)
        # A NaN fails every comparison.
        if not low <= value <= high or (above and value == low):
            raise ValueError
        return value

    return parse


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError
        return text.lower()

    return parse


_WORDS = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip


def _switch(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise ValueError
    return _WORDS[text.lower()]


def _text(text: str) -> str:
    if not text.strip() or any(ord(character) < 32 for character in text):
        raise ValueError
    return text


def _text_or_off(text: str) -> str | None:
    return None if text.lower() == "off" else _text(text)


def _cores(text: str) -> tuple[int, ...]:
    if re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text) is None:
        raise ValueError
    cores = numbers_of(text, _MOST_CORES)
    if not cores:
        raise ValueError
    return tuple(cores)


def _size_or_off(text: str) -> int | None:
    size = None if text.lower() in ("off", "none") else parse_size(text)
    return size or None


_ALL = (
    Setting("model", _text, "a name or a path", "The model to use.", "model"),
    Setting("engine", _choice(*ENGINES), ", ".join(ENGINES), "What computes the answers."),
    Setting(
        "compile",
        _choice(*COMPILE_MODES),
        ", ".join(COMPILE_MODES),
        "Whether the torch engine compiles the model first.",
    ),
    Setting(
        "weights",
        _choice(*WEIGHTS),
        ", ".join(WEIGHTS),
        "Type of the transformers engine's weights; nf4, fp4 and int8 take bitsandbytes.",
    ),
    Setting(
        "double-quant",
        _switch,
        "on or off",
        "Quantize the scales of nf4 and fp4 in turn.",
    ),
    Setting(
        "context",
        _integer(64, 1 << 20),
        "64 to 1048576, and what the model takes",
        "Prompt and answer together, in tokens.",
        "context",
    ),
    Setting("lora", _text_or_off, "a path, or off", "A LoRA adapter to answer with."),
    Setting(
        "lora-scale",
        _number(-100, 100),
        "-100 to 100",
        "A factor for the adapter's own scale.",
    ),
    Setting("kv", _choice(*KV_TYPES), ", ".join(KV_TYPES), "Type of the KV cache.", "kv_type"),
    Setting(
        "kv-cache",
        _switch,
        "on or off",
        "Use the KV cache; without it every token costs the whole text before it.",
    ),
    Setting(
        "max-tokens",
        _integer(1, 1 << 20),
        "1 to 1048576",
        "The longest answer, in tokens.",
        "max_new_tokens",
    ),
    Setting("thinking", _switch, "on or off", "Think before answering.", "thinking"),
    Setting("temperature", _number(0, 5), "0 to 5", "0 is greedy.", "temperature"),
    Setting(
        "top-p",
        _number(0, 1, above=True),
        "above 0, up to 1",
        "Draw from the likeliest tokens that reach this share.",
        "top_p",
    ),
    Setting(
        "top-k",
        _integer(0, 1 << 20),
        "0 to 1048576",
        "Draw from this many tokens; 0 means all.",
        "top_k",
    ),
    Setting(
        "min-p",
        _number(0, 1),
        "0 to 1",
        "Drop tokens below this share of the likeliest.",
        "min_p",
    ),
    Setting(
        "repetition-penalty",
        _number(0.1, 10),
        "0.1 to 10",
        "Above 1 discourages tokens already seen.",
    ),
    Setting(
        "presence-penalty",
        _number(-2, 2),
        "-2 to 2",
        "Above 0 discourages tokens of the answer.",
    ),
    Setting("seed", _integer(0, (1 << 63) - 1), "0 to 2^63 - 1", "Makes answers repeatable."),
    Setting("threads", _integer(1, 256), "1 to 256", "Threads of a decode step.", "threads"),
    Setting(
        "prefill-threads",
        _integer(1, 256),
        "1 to 256",
        "Threads while the prompt is read.",
        "prefill_threads",
    ),
    Setting(
        "cpus",
        _cores,
        "core numbers such as 4-7 or 0,2",
        "The cores to run on; by default the fast ones for the answer, all for the prompt.",
        "cpus",
    ),
    Setting(
        "lookup",
        _choice(*LOOKUP_MODES),
        ", ".join(LOOKUP_MODES),
        "Guess tokens from what was said before and check them together; changes the speed only.",
        "lookup",
    ),
    Setting(
        "memory-cap",
        parse_cap,
        "a size such as 900MB or 1GiB, auto, or off",
        "The most memory the program may take.",
    ),
    Setting(
        "reserve",
        parse_size,
        "a size such as 200MB",
        "Available memory that is left alone.",
        "reserve",
    ),
    Setting(
        "governor",
        _choice(*GOVERNOR_MODES),
        ", ".join(GOVERNOR_MODES),
        "Go easy on a phone that is hot, empty or short of memory; cool does so earlier.",
    ),
    Setting(
        "fallback",
        _choice(*FALLBACKS),
        ", ".join(FALLBACKS),
        "Instead: at most 128 tokens, greedy, above 85 % of the processor or 80 % of the memory.",
    ),
    Setting(
        "prompt-cache-size",
        _size_or_off,
        "a size such as 256MB, or off",
        "Disk space for computed system prompts.",
    ),
    Setting(
        "wake-lock",
        _choice(*WAKE_LOCK_MODES),
        ", ".join(WAKE_LOCK_MODES),
        "Keep a phone awake while it works (Termux).",
    ),
)
SETTINGS: Mapping[str, Setting] = {setting.key: setting for setting in _ALL}
# What holds where neither the user nor the device decides.
FIXED_DEFAULTS: Mapping[str, object] = {
    "engine": "native",
    "compile": "auto",
    "weights": "bf16",
    "double-quant": False,
    "kv-cache": True,
    "repetition-penalty": 1.0,
    "presence-penalty": 0.0,
    "seed": None,
    "lora": None,
    "lora-scale": 1.0,
    "memory-cap": "auto",
    "governor": "auto",
    "fallback": "off",
    "prompt-cache-size": 256 << 20,
    "wake-lock": "auto",
}


def setting(key: str) -> Setting:
    """Finds a setting; underscores count as dashes.

    Raises:
        UsageError: there is none of that name.
    """
    known = SETTINGS.get(key.replace("_", "-").lower())
    if known is not None:
        return known
    import difflib

    near = difflib.get_close_matches(key.replace("_", "-").lower(), SETTINGS, n=1)
    raise UsageError(
        "There is no setting {key}.",
        "Did you mean {near}?" if near else "Settings: {known}.",
        key=key,
        near=near[0] if near else "",
        known=", ".join(SETTINGS),
    )


def parse_value(known: Setting, text: str, origin: str) -> object:
    """Reads one value.

    Raises:
        UsageError: it is out of range; the message names setting, origin and range.
    """
    try:
        return known.parse(text.strip())
    except (ValueError, OverflowError):
        raise UsageError(
            "{value} is no value for {key} ({origin}).",
            "Allowed: {allowed}.",
            value=repr(text),
            key=known.key,
            origin=origin,
            allowed=known.allowed,
        ) from None
