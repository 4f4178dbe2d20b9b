"""Makes the models that the peers are measured with: the same weights in every format.

    python -m benchmarks.peers.models TOKENIZER.json

TOKENIZER.json is Qwen3's. The models go to the folder that setup.sh filled, ``models`` in it
(QWEN_EDGE_PEERS, or ~/.cache/qwen-edge-peers); those that are there are kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from benchmarks.peers.pipe import Peer
from benchmarks.peers.systems import ROOT, Place, default_place
from qwen_edge.model.export_checkpoint import export_checkpoint
from qwen_edge.model.export_gguf import export_gguf
from qwen_edge.model.packed import open_model
from qwen_edge.model.synthetic import make_synthetic

ENVIRONMENT = {"PYTHONPATH": str(ROOT)}


def make_ggufs(place: Place) -> None:
    """Q4_0 bit for bit, and what llama.cpp's quantizer makes of the fp16 weights."""
    with open_model(place.qedge) as model:
        for kind, floats in (("q4_0", None), ("f16", "f16")):
            if not place.gguf(kind).exists():
                export_gguf(model, place.gguf(kind), floats=floats)
    command = [place.python("llama"), "-m", "benchmarks.peers.serve_llama"]
    cores = sorted(os.sched_getaffinity(0))
    with Peer(command, cores, ENVIRONMENT) as quantizer:
        for kind in ("q4_0", "q4_k_m"):
            output = place.gguf(f"{kind}-default")
            if not output.exists():
                names = {"source": str(place.gguf("f16")), "output": str(output)}
                quantizer.ask("quantize", **names, kind=kind, threads=len(cores))


def export_openvino(place: Place, checkpoint: Path) -> None:
    """Symmetric INT4 with groups of 128, as OpenVINO makes it of the bf16 checkpoint."""
    program = str(Path(place.python("openvino")).with_name("optimum-cli"))
    command = [program, "export", "openvino", "--model", str(checkpoint)]
    command += ["--task", "text-generation-with-past", "--weight-format", "int4", "--sym"]
    command += ["--group-size", "128", "--ratio", "1.0", str(place.models / "openvino")]
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    tokenizer = parser.parse_args().tokenizer
    place = default_place()
    place.models.mkdir(parents=True, exist_ok=True)
    if not place.qedge.exists():
        make_synthetic("qwen3-0.6b", place.qedge, tokenizer_json=tokenizer)
    if place.has("llama"):
        make_ggufs(place)
    checkpoint = place.models / "hf"
    if place.has("transformers") and not checkpoint.exists():
        with open_model(place.qedge) as model:
            export_checkpoint(model, checkpoint)
    if place.has("openvino") and not (place.models / "openvino").exists():
        export_openvino(place, checkpoint)


if __name__ == "__main__":
    main()
