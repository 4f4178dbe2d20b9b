"""The options that commands share which run a model: one for each setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qwen_edge.cli.options import Option, Values
from qwen_edge.engine.interface import KV_TYPES
from qwen_edge.session.setting_table import (
    COMPILE_MODES,
    ENGINES,
    FALLBACKS,
    GOVERNOR_MODES,
    LOOKUP_MODES,
    SETTINGS,
    WAKE_LOCK_MODES,
    WEIGHTS,
)

# Setting -> short flags and what its value is called.
_FORMS: dict[str, tuple[tuple[str, ...], str]] = {
    "model": (("-m",), "MODEL"),
    "engine": ((), "ENGINE"),
    "compile": ((), "MODE"),
    "weights": ((), "TYPE"),
    "max-tokens": (("-n",), "N"),
    "temperature": (("-t",), "X"),
    "top-p": ((), "X"),
    "top-k": ((), "N"),
    "min-p": ((), "X"),
    "repetition-penalty": ((), "X"),
    "presence-penalty": ((), "X"),
    "seed": ((), "N"),
    "context": (("-c",), "N"),
    "lora": ((), "ADAPTER"),
    "lora-scale": ((), "X"),
    "kv": ((), "TYPE"),
    "threads": ((), "N"),
    "prefill-threads": ((), "N"),
    "cpus": ((), "CORES"),
    "lookup": ((), "MODE"),
    "memory-cap": ((), "SIZE"),
    "reserve": ((), "SIZE"),
    "governor": ((), "MODE"),
    "fallback": ((), "RULE"),
    "prompt-cache-size": ((), "SIZE"),
    "wake-lock": ((), "MODE"),
}


def model_names(beginning: str) -> list[str]:
    """Completes a model's name; paths are left to the shell."""
    from qwen_edge.session.models import DEMO, store_files

    names = [*(path.stem for path in store_files()), DEMO]
    return [name for name in names if name.startswith(beginning)]


def _choices(*names: str) -> Callable[[str], list[str]]:
    def complete(beginning: str) -> list[str]:
        return [name for name in names if name.startswith(beginning)]

    return complete


_COMPLETIONS = {
    "model": model_names,
    "engine": _choices(*ENGINES),
    "compile": _choices(*COMPILE_MODES),
    "weights": _choices(*WEIGHTS),
    "kv": _choices(*KV_TYPES),
    "lookup": _choices(*LOOKUP_MODES),
    "wake-lock": _choices(*WAKE_LOCK_MODES),
    "governor": _choices(*GOVERNOR_MODES),
    "fallback": _choices(*FALLBACKS),
}


def _option(key: str) -> Option:
    short, metavar = _FORMS[key]
    return Option(
        name=key.replace("-", "_"),
        flags=(*short, f"--{key}"),
        help=SETTINGS[key].help,
        metavar=metavar,
        values=_COMPLETIONS.get(key),
    )


THINKING = Option("thinking", ("--think",), SETTINGS["thinking"].help, off="--no-think")
PROMPT_FILE = Option(
    "prompt_cache",
    ("--prompt-cache",),
    "Keep the computed prompt in FILE, and take from there what the next prompt begins with.",
    "FILE",
)
KV_CACHE = Option("kv_cache", ("--kv-cache",), SETTINGS["kv-cache"].help, off="--no-kv-cache")
DOUBLE_QUANT = Option(
    "double_quant", ("--double-quant",), SETTINGS["double-quant"].help, off="--no-double-quant"
)
MODEL_OPTIONS = (*map(_option, _FORMS), DOUBLE_QUANT, KV_CACHE, THINKING)

# What bears on speed and memory.
_ENGINE = {
    "model", "engine", "compile", "weights", "double_quant", "context", "kv", "kv_cache",
    "threads", "prefill_threads", "cpus", "memory_cap", "reserve",
}  # fmt: skip
ENGINE_OPTIONS = tuple(option for option in MODEL_OPTIONS if option.name in _ENGINE)


def prompt_file(values: Values) -> Path | None:
    """The file of ``--prompt-cache``, if it was given."""
    name = values.text(PROMPT_FILE.name)
    return None if name is None else Path(name)


def flags_of(values: Values, options: Sequence[Option] = MODEL_OPTIONS) -> dict[str, object]:
    """The settings given on the command line, by key; None where one was not given."""
    return {option.name.replace("_", "-"): values[option.name] for option in options}
