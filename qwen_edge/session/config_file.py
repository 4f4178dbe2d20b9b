"""The file of settings: TOML with one key a line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from qwen_edge.errors import UsageError
from qwen_edge.session.setting_table import parse_value, setting

Scalar = str | int | float | bool


def read_file(path: Path) -> dict[str, Scalar]:
    """Reads the configuration file; an absent one is empty.

    Raises:
        UsageError: it cannot be read, is not TOML, or holds more than plain values.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_file(path, error) from error
    import tomllib

    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _bad_file(path, error) from error
    for key, value in values.items():
        if not isinstance(value, Scalar):
            raise UsageError(
                "{key} in {path} is not a plain value.",
                "Write one setting a line: key = value.",
                key=key,
                path=path,
            )
    return values


def _bad_file(path: Path, error: Exception) -> UsageError:
    return UsageError(
        "The configuration file {path} cannot be read: {reason}.",
        "Mend or delete it.",
        path=path,
        reason=str(error).rstrip("."),
    )


def _toml(value: object) -> str:
    """One scalar as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def change_file(path: Path, key: str, text: str | None) -> None:
    """Sets or removes one key, leaving the other lines and their comments as they are.

    Args:
        path: the configuration file; made if need be.
        key: the setting.
        text: its value, or None to remove it.

    Raises:
        UsageError: unknown key, bad value, or the file cannot be read or written.
    """
    known = setting(key)
    present = read_file(path)
    stored: object = None
    if text is not None:
        stored = parse_value(known, text, f"config set {known.key}")
        # Sizes and lists of cores stay in the user's words.
        if known.key in ("memory-cap", "reserve", "cpus"):
            stored = text.strip()
    spellings = [name for name in present if name.replace("_", "-").lower() == known.key]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    kept = [line for line in lines if _key_of(line) not in spellings]
    wanted: dict[str, object] = {
        name: item for name, item in present.items() if name not in spellings
    }
    if text is not None:
        kept.append(f"{known.key} = {_toml(stored)}")
        wanted[known.key] = stored
    _write_file(path, kept, wanted)


def _key_of(line: str) -> str:
    return line.partition("=")[0].strip().strip("\"'")


def _write_file(path: Path, lines: Iterable[str], wanted: Mapping[str, object]) -> None:
    """Writes the lines if they mean what is wanted, else the bare values (multi-line strings)."""
    import tomllib

    text = "".join(f"{line}\n" for line in lines)
    try:
        faithful = tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        faithful = False
    if not faithful:
        text = "".join(f"{key} = {_toml(value)}\n" for key, value in wanted.items())
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(
            "The configuration file {path} cannot be written: {reason}.",
            path=path,
            reason=error.strerror or error,
        ) from error
