"""Which engine answers, and whether this device has what it needs."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.place import Place
from qwen_edge.host.system import is_proot, is_termux
from qwen_edge.session.settings import Settings

NATIVE, TORCH = "native", "torch"
# The packages that an engine imports.
_PACKAGES = {NATIVE: (), TORCH: ("torch",)}


@dataclass(frozen=True)
class EngineChoice:
    """The engine of a run.

    Attributes:
        name: ``native`` or ``torch``.
        compile: of torch, one of ``COMPILE_MODES``.
    """

    name: str = NATIVE
    compile: str = "auto"

    @property
    def drafts(self) -> bool:
        """Whether several rows at once give to the last bit what single ones do, and cost less."""
        return self.name == NATIVE


def choose_engine(settings: Settings, place: Place | None = None) -> EngineChoice:
    """The engine that the settings ask for.

    Raises:
        QwenEdgeError: a package that it needs is not installed.
    """
    choice = EngineChoice(str(settings.get("engine")), str(settings.get("compile")))
    for package in _PACKAGES[choice.name]:
        if importlib.util.find_spec(package) is None:
            raise missing_package(package, choice.name, place or Place())
    return choice


def missing_package(package: str, engine: str, place: Place) -> QwenEdgeError:
    """The error that an engine's package is not installed, with the way to get it here."""
    sentence = "The engine {engine} needs the package {package}, which is not installed."
    hint = 'Install it with `pip install "qwen-edge[torch]"`.'
    if is_termux(place) and not is_proot(place):
        hint = (
            "Install it with `pkg install python-torch`, version 2.11 or later: 2.10 loses memory."
        )
        if package != "torch":
            hint = (
                "It does not exist for Android: install qwen-edge[torch] in a Linux distribution "
                "under proot."
            )
    return QwenEdgeError(sentence, hint, engine=engine, package=package)
