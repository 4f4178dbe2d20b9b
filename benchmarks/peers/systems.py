"""The measured systems: which Python starts them, with which model and settings."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.pipe import Peer

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Place:
    """The folder that setup.sh filled, and the models made there."""

    folder: Path

    def python(self, part: str) -> str:
        """The interpreter of a part of setup.sh."""
        return str(self.folder / part / "bin" / "python")

    def has(self, part: str) -> bool:
        """Whether a part of setup.sh is there."""
        return (self.folder / part / "whole").exists()

    @property
    def models(self) -> Path:
        """Where the models are."""
        return self.folder / "models"

    @property
    def qedge(self) -> Path:
        """The 0.6B shape with random weights and Qwen3's tokenizer."""
        return self.models / "qwen3-0.6b.qedge"

    def gguf(self, kind: str) -> Path:
        """The same weights: ``q4_0`` (head too), ``f16``, ``q4_0-default``, ``q4_k_m-default``."""
        return self.models / f"{kind}.gguf"


def default_place() -> Place:
    """The folder that ``QWEN_EDGE_PEERS`` names, or one in the user's cache."""
    named = os.environ.get("QWEN_EDGE_PEERS")
    return Place(Path(named) if named else Path.home() / ".cache" / "qwen-edge-peers")


@dataclass(frozen=True)
class System:
    """A system with its settings; equal ones share a process.

    Attributes:
        name: which server and environment: ``qwen-edge``, ``llama.cpp`` or another of SERVERS.
        model: the model file.
        threads: also the number of cores that the process may use.
        options: further arguments of its ``open`` request.
        environment: variables of the process.
        part: the part of setup.sh it runs in, if not the name's own.
    """

    name: str
    model: str
    threads: int = 2
    options: tuple[tuple[str, object], ...] = ()
    environment: tuple[tuple[str, str], ...] = field(default=())
    part: str = ""


# Name: module, part of setup.sh ("" is this interpreter).
SERVERS = {
    "qwen-edge": ("benchmarks.peers.serve_qwen_edge", ""),
    "llama.cpp": ("benchmarks.peers.serve_llama", "llama"),
    "transformers": ("benchmarks.peers.serve_transformers", "transformers"),
    "openvino": ("benchmarks.peers.serve_openvino", "openvino"),
}


def start(system: System, place: Place) -> tuple[Peer, dict[str, object]]:
    """Starts a system and opens its model; returns it with what its ``open`` answered.

    Raises:
        PeerError: it does not start or the model does not open.
        FileNotFoundError: its part of setup.sh is missing.
    """
    module, part = SERVERS[system.name]
    part = system.part or part
    if part and not place.has(part):
        raise FileNotFoundError(f"benchmarks/peers/setup.sh was not run for {part}")
    cores = sorted(os.sched_getaffinity(0))[: system.threads]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(system.threads)}
    python = place.python(part) if part else sys.executable
    peer = Peer([python, "-m", module], cores, environment | dict(system.environment))
    try:
        facts = peer.ask("open", model=system.model, threads=system.threads, **dict(system.options))
    except BaseException:
        peer.close()
        raise
    return peer, facts


def ours(
    place: Place,
    context: int,
    *,
    threads: int = 2,
    kv: str = "int8",
    sequences: int = 1,
    isa: str = "",
) -> System:
    """qwen-edge; ``isa`` forces a kernel table."""
    options = (("context", context), ("kv", kv), ("sequences", sequences))
    environment = (("QWEN_EDGE_ISA", isa),) if isa else ()
    return System("qwen-edge", str(place.qedge), threads, options, environment)


def llama(
    place: Place,
    context: int,
    *,
    kind: str = "q4_0",
    threads: int = 2,
    kv: str = "f16",
    flash: str = "auto",
    sequences: int = 1,
    part: str = "",
) -> System:
    """llama.cpp; what is not given is its default."""
    options = (("context", context), ("kv", kv), ("flash", flash), ("sequences", sequences))
    return System("llama.cpp", str(place.gguf(kind)), threads, options, part=part)


def openvino(place: Place, threads: int = 2) -> System:
    """OpenVINO GenAI with symmetric INT4 weights; its context grows by itself."""
    return System("openvino", str(place.models / "openvino"), threads)
