"""What the torch engine would find here, as far as that is seen without importing torch."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qwen_edge.host.place import Place
from qwen_edge.host.system import is_android
from qwen_edge.host.torch_cache import TorchCache, read_torch_cache
from qwen_edge.model.operators_file import is_own, operators_path
from qwen_edge.session.engine_choice import TORCH, EngineChoice

if TYPE_CHECKING:
    from qwen_edge.engine.watcher import Watcher

# The first that does not lose memory on Android.
_SOUND = (2, 11)


@dataclass(frozen=True)
class TorchFacts:
    """Of torch and what was compiled for it.

    Attributes:
        version: of torch; None where it is not installed.
        built: whether the operators over the native kernels are built.
        compiler: the command that would build them, and compile the model; None if there is none.
        leaks: whether this version loses memory here.
        cache: what was compiled.
        seconds: what importing torch and loading the operators took; None if it was not tried.
    """

    version: str | None
    built: bool
    compiler: str | None
    leaks: bool
    cache: TorchCache
    seconds: float | None = None


def torch_facts(
    compiler: str | None, environ: Mapping[str, str] | None = None, place: Place | None = None
) -> TorchFacts:
    """Looks without importing anything.

    Args:
        compiler: the C++ compiler's command.
        environ: the environment variables.
        place: where the device's facts come from.
    """
    version = _version()
    built = False
    if version is not None:
        try:
            built = is_own(operators_path(environ))
        except OSError:
            version = None
    android = is_android(place)
    if android and shutil.which("clang++") is None:
        # Termux's torch knows no other.
        compiler = None
    found = re.match(r"(\d+)\.(\d+)", version or "")
    leaks = android and found is not None and tuple(map(int, found.groups())) < _SOUND
    return TorchFacts(version, built, compiler, leaks, read_torch_cache(environ))


def try_torch(
    facts: TorchFacts, watcher: Watcher, environ: Mapping[str, str] | None = None
) -> TorchFacts:
    """Imports torch and loads the operators, which are built if they were not.

    Raises:
        QwenEdgeError: torch does not load.
    """
    if facts.version is None:
        return facts
    from qwen_edge.session.engines import load_packages

    start = time.monotonic()
    load_packages(EngineChoice(TORCH), watcher)
    from qwen_edge.engine.torch_engine import load_operators

    native = load_operators(watcher) is not None
    seconds = time.monotonic() - start
    return replace(facts, built=native, seconds=seconds, cache=read_torch_cache(environ))


def _version() -> str | None:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
