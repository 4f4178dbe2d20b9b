"""The models on this device: names to files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from qwen_edge.errors import ModelNotFoundError, UsageError
from qwen_edge.host.paths import models_folder

SUFFIX = ".qedge"
DEMO, FOLDER = "demo", "folder"
# What a bare ``qwen-edge chat`` looks for first.
DEFAULT_MODEL = "Qwen3-0.6B"
SYNTHETIC_SUFFIX = "-synthetic"
# Models that ``pull`` knows by their short names, those of Qwen's repositories.
SHORT_NAMES = (
    "Qwen3-0.6B",
    "Qwen3-1.7B",
    "Qwen3-4B",
    "Qwen3-4B-Instruct-2507",
    "Qwen3-4B-Thinking-2507",
)
_STORED = re.compile(r"int\d+$")


class FoundModel(NamedTuple):
    """A model that is there.

    Attributes:
        path: the file.
        kind: ``path`` (given as a path), ``store`` (by name), ``default`` (nothing asked for,
            and the store had one), ``demo``, or ``folder`` (a checkpoint's).
        note_due: whether the user should hear, in one line, that the demo stands in.
    """

    path: Path
    kind: str
    note_due: bool = False

    @property
    def name(self) -> str:
        if self.kind == FOLDER:
            return self.path.resolve().name
        return DEMO if self.kind == DEMO else self.path.stem


def demo_path() -> Path:
    """The model that is part of the package."""
    return Path(__file__).resolve().parent.parent / "demo" / f"demo{SUFFIX}"


def store_files(environ: Mapping[str, str] | None = None) -> list[Path]:
    """All model files in the store, sorted by name; none if there is no store."""
    try:
        files = [
            path
            for path in models_folder(environ).iterdir()
            if path.suffix == SUFFIX and path.is_file()
        ]
    except OSError:
        return []
    return sorted(files, key=lambda path: path.name.lower())


def store_path(name: str, environ: Mapping[str, str] | None = None) -> Path:
    """Where a new model of this name goes; makes the store if need be.

    Raises:
        UsageError: the name is no file name, or the store cannot be made.
    """
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise UsageError("{name} cannot be the name of a model.", name=repr(name))
    folder = models_folder(environ)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            "The folder {path} cannot be made: {reason}.",
            "Set QWEN_EDGE_HOME to a folder that is writable.",
            path=folder,
            reason=error.strerror or error,
        ) from error
    return folder / f"{name}{SUFFIX}"


def _plain(name: str) -> str:
    """A name without owner, suffix, case and separators: ``Qwen/Qwen3-0.6B`` -> ``qwen306b``."""
    name = name.rpartition("/")[2].lower().removesuffix(SUFFIX)
    return re.sub(r"[^a-z0-9]", "", name)


def find_in_store(name: str, environ: Mapping[str, str] | None = None) -> Path | None:
    """Finds a model by its name, or by a part of the name that only one model has.

    Raises:
        UsageError: several models fit.
    """
    files = store_files(environ)
    exact = [path for path in files if path.stem == name or path.name == name]
    wanted = _plain(name)
    found = exact or [path for path in files if _plain(path.stem) == wanted]
    # What a conversion calls the model: its name, and how its weights are stored.
    found = found or [path for path in files if _STORED.sub("", _plain(path.stem)) == wanted]
    if not found and wanted:
        found = [path for path in files if wanted in _plain(path.stem)]
    if len(found) > 1:
        raise UsageError(
            "Several models fit the name {name}: {found}.",
            "Give one of these names in full.",
            name=name,
            found=", ".join(path.stem for path in found),
        )
    return found[0] if found else None


def _looks_like_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name.endswith(SUFFIX) or "\\" in name


def resolve(
    name: str | None,
    environ: Mapping[str, str] | None = None,
    configured: str | None = None,
    engine: str = "native",
) -> FoundModel:
    """Finds the model to use.

    Args:
        name: a path or a name as the user gave it, or None.
        environ: the environment variables.
        configured: the name or path in the settings, used where none was given.
        engine: what it is for: a checkpoint's folder will do for ``transformers``, and comes before
            a model of that name; for ``auto`` it comes last.

    Returns:
        The named model; else the configured one; else a Qwen3-0.6B of the store, or whatever model
        the store has; else the demo.

    Raises:
        ModelNotFoundError: there is no such model; the hint names near ones.
        UsageError: the name is not definite.
    """
    wanted = name or configured
    if wanted:
        return _resolve_named(wanted, environ, engine)
    # Random weights are there to be measured: nobody wants their answers unasked.
    files = [path for path in store_files(environ) if not path.stem.endswith(SYNTHETIC_SUFFIX)]
    fitting = [path for path in files if _plain(DEFAULT_MODEL) in _plain(path.stem)]
    if fitting or files:
        chosen = (fitting or sorted(files, key=_size))[0]
        return FoundModel(chosen, "default")
    return FoundModel(_demo_or_error(), DEMO, note_due=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _demo_or_error() -> Path:
    path = demo_path()
    if not path.is_file():
        raise ModelNotFoundError(
            "There is no model on this device.",
            "Get one with `qwen-edge pull qwen3-0.6b`.",
            model=DEFAULT_MODEL,
        )
    return path


def _resolve_named(name: str, environ: Mapping[str, str] | None, engine: str) -> FoundModel:
    path = Path(os.path.expanduser(name))
    if engine == "transformers" and path.is_dir():
        return FoundModel(path, FOLDER)
    if name.lower() == DEMO:
        return FoundModel(_demo_or_error(), DEMO)
    if path.suffix.lower() == ".gguf" and path.is_file():
        raise ModelNotFoundError(
            "{path} is a GGUF file, not a {suffix} file.",
            "Convert it first: `qwen-edge convert {path} -o {stem}{suffix}`.",
            path=path,
            stem=path.stem,
            suffix=SUFFIX,
        )
    if path.is_file():
        return FoundModel(path, "path")
    if not _looks_like_path(name):
        found = find_in_store(name, environ)
        if found:
            return FoundModel(found, "store")
    if path.is_dir() and engine == "auto":
        return FoundModel(path, FOLDER)
    if path.is_dir():
        raise ModelNotFoundError(
            "{path} is a folder, not a {suffix} file.",
            "Convert a checkpoint first: `qwen-edge convert {path} -o model{suffix}`; or use "
            "--engine transformers.",
            path=path,
            suffix=SUFFIX,
        )
    raise _not_found("There is no model {name}.", name, environ)


def _not_found(sentence: str, name: str, environ: Mapping[str, str] | None) -> ModelNotFoundError:
    """The error for a wrong name, with the names that resemble it, or all there are."""
    import difflib

    names = [*(path.stem for path in store_files(environ)), DEMO]
    by_plain = {_plain(known): known for known in names}
    near = difflib.get_close_matches(_plain(name), by_plain, n=3, cutoff=0.5)
    hint = "On this device: {near}. `qwen-edge pull` gets others."
    short = next((known.lower() for known in SHORT_NAMES if _plain(known) == _plain(name)), "")
    if short:
        hint = "`qwen-edge pull {short}` gets it."
    elif near:
        hint = "Did you mean {near}? `qwen-edge pull` gets others."
    return ModelNotFoundError(
        sentence,
        hint,
        name=name,
        short=short,
        near=", ".join([by_plain[plain] for plain in near] or names[:5]),
    )


def remove(name: str, environ: Mapping[str, str] | None = None) -> Path:
    """Deletes a model of the store; files elsewhere are not touched.

    Returns:
        The path that was deleted.

    Raises:
        ModelNotFoundError: the store has no such model.
        UsageError: the name is not definite, or the demo's.
    """
    path = removable(name, environ)
    path.unlink()
    return path


def removable(name: str, environ: Mapping[str, str] | None = None) -> Path:
    """The file that ``remove`` would delete; raises as it does."""
    if name.lower() == DEMO:
        raise UsageError("The demo model is part of the program and cannot be removed.")
    path = find_exactly(name, environ)
    if path is None:
        raise _not_found("The store has no model {name}.", name, environ)
    return path


def find_exactly(name: str, environ: Mapping[str, str] | None = None) -> Path | None:
    """Finds a model of the store by its whole name or file name; never by a part of it."""
    return next(
        (path for path in store_files(environ) if name in (path.stem, path.name, str(path))), None
    )
