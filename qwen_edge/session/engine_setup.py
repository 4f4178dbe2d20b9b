"""From settings to an engine, and whether this device has what it needs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.place import Place
from qwen_edge.host.system import is_proot, is_termux
from qwen_edge.model.packed import PackedModel
from qwen_edge.session.engine_choice import AUTO, NATIVE, TRANSFORMERS, EngineChoice
from qwen_edge.session.footprint import bits_of
from qwen_edge.session.opened import Model
from qwen_edge.session.reason import Reason
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


def settle(
    choice: EngineChoice,
    model: Model,
    settings: Settings,
    place: Place | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[EngineChoice]:
    """What a choice comes to for an open model, the best first; others where that does not fit.

    A folder that is quantized is taken as it is. ``auto`` takes the engine that was the fastest for
    a model of this shape on this machine, and the native one where none was measured: its library
    there is in any case, since tokenizers and samplers are in it.

    Raises:
        QwenEdgeError: a package that it needs is not installed.
    """
    if not isinstance(model, PackedModel):
        return [_for_folder(choice, model, place)]
    if choice.name != AUTO:
        return [choice]
    native = replace(choice, name=NATIVE)
    if settings.get("lora") is not None:
        return [replace(native, reason=Reason("auto takes native: only it takes adapters.", {}))]
    # What reads JSON takes a while to import.
    from qwen_edge.session.engine_speeds import WAYS, read_speeds

    speeds = read_speeds(model.config, bits_of(model), environ)
    if NATIVE not in speeds:
        unknown = Reason(
            "auto takes native: nothing was measured here yet (`qwen-edge bench --engine all`).", {}
        )
        return [replace(native, reason=unknown)]
    best = max(speeds, key=speeds.__getitem__)
    found = replace(choice, name=WAYS[best].engine)
    if found.name != NATIVE and all(map(_is_installed, found.packages)):
        if "compile" not in settings.values:
            found = replace(found, compile=WAYS[best].compile)
        values = {"engine": found.name, "speed": speeds[best], "native": speeds[NATIVE]}
        faster = Reason(
            "auto takes {engine}: {speed:.1f} tokens/s were measured here, and {native:.1f} with "
            "native.",
            values,
        )
        too_large = Reason(
            "auto takes native: {engine} was faster here, and does not fit into memory now.", values
        )
        return [replace(found, reason=faster), replace(native, reason=too_large)]
    return [replace(native, reason=Reason("auto takes native: it was the fastest here.", {}))]


def _for_folder(
    choice: EngineChoice, folder: CheckpointFolder, place: Place | None
) -> EngineChoice:
    if choice.name == AUTO:
        only = Reason("auto takes transformers: only it takes a checkpoint's folder.", {})
        choice = replace(choice, name=TRANSFORMERS, reason=only)
    stored = folder.quantized
    if stored is not None:
        choice = replace(
            choice, weights=stored.kind, floats=folder.floats, double_quant=stored.double
        )
    check_packages(choice, place)
    return choice


def check_packages(choice: EngineChoice, place: Place | None = None) -> None:
    """Raises QwenEdgeError where a package of the engine is not installed."""
    for package in choice.packages:
        if not _is_installed(package):
            raise missing_package(package, choice.name, place or Place())


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


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
