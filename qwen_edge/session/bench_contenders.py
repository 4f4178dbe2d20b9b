"""The engines that a benchmark sets side by side, and what each of them needs here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import qwen_edge
from qwen_edge.errors import QwenEdgeError
from qwen_edge.host.packages import folder_bytes, installed_bytes
from qwen_edge.session.bench_result import Remark
from qwen_edge.session.engine_choice import NATIVE, TORCH, TRANSFORMERS, EngineChoice
from qwen_edge.session.engine_setup import check_packages

# Settings that tell the contenders apart.
OWN_SETTINGS = ("engine", "compile", "weights", "double-quant")


class Contender(NamedTuple):
    """One way to compute the same weights.

    Attributes:
        name: for people; may have a translation.
        choice: the engine.
    """

    name: str
    choice: EngineChoice

    @property
    def flags(self) -> Mapping[str, object]:
        """Its own settings, by key."""
        choice = self.choice
        if choice.name == TORCH:
            return {"engine": choice.name, "compile": choice.compile}
        if choice.name == TRANSFORMERS:
            return {"engine": choice.name, "weights": choice.weights, "double-quant": False}
        return {"engine": choice.name}


FIRST = Contender("native", EngineChoice(NATIVE))
CONTENDERS = (
    FIRST,
    Contender("torch compiled", EngineChoice(TORCH, compile="on")),
    Contender("torch eager", EngineChoice(TORCH, compile="off")),
    Contender("torch AOT", EngineChoice(TORCH, compile="aot")),
    Contender("transformers bf16", EngineChoice(TRANSFORMERS, weights="bf16")),
    Contender("transformers NF4", EngineChoice(TRANSFORMERS, weights="nf4")),
)


def obstacle(contender: Contender) -> Remark | None:
    """Why an engine cannot run here at all; None if nothing is known to be in its way."""
    try:
        check_packages(contender.choice)
    except QwenEdgeError as error:
        return Remark(error.sentence, error.values)
    return None


def package_bytes(contender: Contender) -> int:
    """Disk space of this program's own package, and of those that the engine imports."""
    own = folder_bytes(Path(qwen_edge.__file__).parent)
    return own + installed_bytes(contender.choice.packages)


def compiles(contender: Contender) -> bool:
    """Whether its very first start takes longer than all others."""
    return contender.choice.name == TORCH and contender.choice.compile != "off"


def not_compiled(contender: Contender, compiled: str) -> bool:
    """Whether what was loaded is not what was asked for.

    Args:
        contender: what was asked for.
        compiled: what became of the compilation, see ``TorchEngine``.
    """
    return contender.choice.name == TORCH and compiled != contender.choice.compile
