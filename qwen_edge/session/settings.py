"""The user's settings: flag > environment > configuration file > adaptive default.

Each value knows where it came from, so that ``--explain`` can say it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from qwen_edge.host.paths import config_file
from qwen_edge.host.sizes import format_size
from qwen_edge.session.config_file import read_file
from qwen_edge.session.profile import core_list
from qwen_edge.session.select import RuntimeConfig, Wishes
from qwen_edge.session.setting_table import (
    FIXED_DEFAULTS,
    PREFIX,
    SETTINGS,
    parse_value,
    setting,
)

# Environment variables of this program that are not settings.
OTHER_VARIABLES = frozenset(
    {"QWEN_EDGE_HOME", "QWEN_EDGE_ISA", "QWEN_EDGE_LANG", "QWEN_EDGE_LIBRARY"}
)


class Value(NamedTuple):
    """A value and where it came from: ``flag``, ``environment`` or ``file``, with the detail."""

    value: object
    source: str
    detail: str


class Explained(NamedTuple):
    """One line of ``--explain``: a setting, its value for people, and where that came from.

    ``origin`` is ``flag --x``, ``environment X``, ``file PATH``, ``calibrated`` (measured on this
    device), ``adaptive default`` (the device decided) or ``default``.
    """

    key: str
    value: str
    origin: str


class Settings:
    """All that the user has set, by key.

    Args:
        values: key -> value with its source.
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = dict(values)

    @classmethod
    def load(
        cls,
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        path: Path | None = None,
    ) -> Settings:
        """Gathers flags, environment variables and the configuration file.

        Args:
            flags: key -> value from the command line, None where a flag was not given. Text is
                parsed; other values are checked against the range as if they had been text.
            environ: the environment variables.
            path: the configuration file, by default the user's; it need not exist.

        Raises:
            UsageError: an unknown key, a value out of range, or a file that is not TOML.
        """
        environ = os.environ if environ is None else environ
        path = path or config_file(environ)
        values: dict[str, Value] = {}
        for key, raw in read_file(path).items():
            known = setting(key)
            value = parse_value(known, _as_text(raw), str(path))
            values[known.key] = Value(value, "file", str(path))
        for known in SETTINGS.values():
            text = environ.get(known.variable)
            # An empty variable counts as unset, as is the custom.
            if text:
                value = parse_value(known, text, known.variable)
                values[known.key] = Value(value, "environment", known.variable)
        for key, flag in (flags or {}).items():
            if flag is not None:
                known = setting(key)
                name = f"--{known.key}"
                value = parse_value(known, _as_text(flag), name)
                values[known.key] = Value(value, "flag", name)
        return cls(values)

    def get(self, key: str) -> object:
        """The value the user set, else the fixed default, else None."""
        found = self.values.get(key)
        return found.value if found else FIXED_DEFAULTS.get(key)

    def wishes(self) -> Wishes:
        """What of it bears on the choice of a configuration; a cap in bytes included."""
        chosen: dict[str, object] = {}
        for known in SETTINGS.values():
            if known.field and known.field != "model" and known.key in self.values:
                chosen[known.field] = self.values[known.key].value
        cap = self.get("memory-cap")
        if isinstance(cap, int):
            chosen["memory_cap"] = cap
        chosen["keep_cache"] = self.get("kv-cache")
        return Wishes(**chosen)  # type: ignore[arg-type]

    def explain(self, config: RuntimeConfig) -> list[Explained]:
        """Every setting with the value in force and where it came from."""
        lines = []
        for known in SETTINGS.values():
            found = self.values.get(known.key)
            value = getattr(config, known.field) if known.field else self.get(known.key)
            if found is not None:
                origin = f"{found.source} {found.detail}"
            elif known.field in config.calibrated:
                origin = "calibrated"
            else:
                origin = "adaptive default" if known.field else "default"
            lines.append(Explained(known.key, shown(known.key, value), origin))
        return lines


def shown(key: str, value: object) -> str:
    """A value as people read it."""
    if key in ("reserve", "memory-cap", "prompt-cache-size"):
        if isinstance(value, int):
            return format_size(value)
        return "off" if value is None else str(value)
    if isinstance(value, tuple):
        return core_list(value) or "all"
    if isinstance(value, bool):
        return "on" if value else "off"
    if key == "lora" and value is None:
        return "off"
    return "random" if key == "seed" and value is None else str(value)


def _as_text(value: object) -> str:
    """A flag's or a TOML value in the form that the parsers read."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return core_list(value) if isinstance(value, tuple) else str(value)


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Environment variables with this program's prefix that mean nothing to it."""
    environ = os.environ if environ is None else environ
    known = OTHER_VARIABLES | {known.variable for known in SETTINGS.values()}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
