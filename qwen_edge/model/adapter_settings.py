"""adapter_config.json of a LoRA adapter: its kind, and the ranks and scales of its modules.

The names and the patterns are PEFT's; see adapter.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_edge.errors import DamagedModelError, UsageError
from qwen_edge.model.container import ContainerError, parse_json, show
from qwen_edge.model.file_map import MappedFile

SETTINGS = "adapter_config.json"
_SETTINGS_LIMIT = 4 << 20
# Patterns for ranks and scales are regular expressions. These are the ones that people write, and
# none of them takes for ever.
_PATTERN = re.compile(r"\^?(?:[A-Za-z0-9_.-]|\\\.|\\d\+?|\.\*|[(|)])*\$?")
_MOST_REPEATS = 3
_PATTERN_LENGTH = 200


def damaged(path: Path, problem: str) -> DamagedModelError:
    """The error that an adapter cannot be used."""
    return DamagedModelError(
        "The adapter {path} cannot be used: {problem}.",
        "Get the adapter again, and make sure that it was made for this model.",
        path=path,
        problem=problem,
    )


class AdapterSettings:
    """adapter_config.json, read and checked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with MappedFile(path) as file:
                if file.size > _SETTINGS_LIMIT:
                    raise ContainerError("it is too large")
                table = parse_json(file.read(0, file.size), "its text")
            if not isinstance(table, dict):
                raise ContainerError("it is not a JSON object")
            self._check_kind(table)
            self._rank = _rank(table.get("r"))
            self._alpha = _alpha(table.get("lora_alpha"))
            self._ranks = _patterns(table, "rank_pattern", _rank)
            self._alphas = _patterns(table, "alpha_pattern", _alpha)
            self._rooted = _switch(table, "use_rslora")
        except OSError as error:
            raise damaged(path, f"it cannot be read ({error.strerror})") from None
        except ContainerError as error:
            raise damaged(path, str(error)) from None

    def _check_kind(self, table: Mapping[str, Any]) -> None:
        kind = table.get("peft_type")
        if kind != "LORA":
            raise ContainerError(f"peft_type is {show(kind)}, not LORA")
        targets = table.get("target_modules")
        named = set(targets) if isinstance(targets, list) and _texts(targets) else set()
        unsupported = {
            "DoRA (use_dora)": _switch(table, "use_dora"),
            "fan_in_fan_out": _switch(table, "fan_in_fan_out"),
            "biases (bias)": table.get("bias", "none") != "none",
            "lora_bias": _switch(table, "lora_bias"),
            "modules_to_save": bool(table.get("modules_to_save")),
            "trainable_token_indices": bool(table.get("trainable_token_indices")),
            "target_parameters": bool(table.get("target_parameters")),
            "layer_replication": bool(table.get("layer_replication")),
            "adapted embeddings (embed_tokens, lm_head)": bool(
                {name.rpartition(".")[2] for name in named} & {"embed_tokens", "lm_head"}
            ),
        }
        for feature, used in unsupported.items():
            if used:
                raise UsageError(
                    "The adapter {path} uses {feature}, which is not supported.",
                    "Merge it with PEFT (merge_and_unload), and convert the result.",
                    path=self._path,
                    feature=feature,
                )

    def expected(self, module: str) -> tuple[int, float]:
        """A module's rank, and the scale of its change."""
        rank = next((value for key, value in self._ranks if key.match(module)), self._rank)
        alpha = next((value for key, value in self._alphas if key.match(module)), self._alpha)
        return rank, alpha / (math.sqrt(rank) if self._rooted else rank)


def _rank(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 1 << 16:
        raise ContainerError(f"a rank is {show(value)}")
    return value


def _alpha(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e6:
        raise ContainerError(f"a lora_alpha is {show(value)}")
    return float(value)


def _switch(table: Mapping[str, Any], key: str) -> bool:
    value = table.get(key) or False
    if not isinstance(value, bool):
        raise ContainerError(f"{key} is {show(value)}, not true or false")
    return value


def _texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _patterns(table: Mapping[str, Any], key: str, read: Any) -> list[tuple[re.Pattern[str], Any]]:
    patterns = table.get(key) or {}
    if not isinstance(patterns, dict):
        raise ContainerError(f"{key} is {show(patterns)}, not a table")
    found = []
    for text, value in patterns.items():
        repeats = text.count("*") + text.count("+")
        if len(text) > _PATTERN_LENGTH or repeats > _MOST_REPEATS or not _PATTERN.fullmatch(text):
            raise ContainerError(f"{key} has the pattern {show(text)}, which is not supported")
        try:
            # As PEFT matches them.
            pattern = re.compile(rf"(?:.*\.)?(?:{text})$")
        except re.error:
            raise ContainerError(f"{key} has the malformed pattern {show(text)}") from None
        found.append((pattern, read(value)))
    return found
