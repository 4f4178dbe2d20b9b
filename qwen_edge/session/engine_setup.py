"""From settings to an engine, and whether this device has what it needs."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.place import Place
from qwen_edge.host.system import is_proot, is_termux
from qwen_edge.session.engine_choice import EngineChoice
from qwen_edge.session.settings import Settings

if TYPE_CHECKING:
    from qwen_edge.model.checkpoint_folder import CheckpointFolder


def choose_engine(settings: Settings, place: Place | None = None) -> EngineChoice:
    """The engine that the settings ask for.

    Raises:
        QwenEdgeError: a package that it needs is not installed.
    """
    weights = str(settings.get("weights"))
    choice = EngineChoice(
        name=str(settings.get("engine")),
        compile=str(settings.get("compile")),
        weights=weights,
        floats="f32" if weights == "f32" else "bf16",
        double_quant=bool(settings.get("double-quant")),
    )
    check_packages(choice, place)
    return choice


def for_folder(
    choice: EngineChoice, folder: CheckpointFolder, place: Place | None = None
) -> EngineChoice:
    """The choice for a checkpoint's folder: one that is quantized is taken as it is.

    Raises:
        QwenEdgeError: that needs a package that is not installed.
    """
    stored = folder.quantized
    if stored is None:
        return choice
    choice = replace(choice, weights=stored.kind, floats=folder.floats, double_quant=stored.double)
    check_packages(choice, place)
    return choice


def check_packages(choice: EngineChoice, place: Place | None = None) -> None:
    """Raises QwenEdgeError where a package of the engine is not installed."""
    for package in choice.packages:
        if importlib.util.find_spec(package) is None:
            raise missing_package(package, choice.name, place or Place())


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
