"""The torch engine reads the weights where the file is mapped: it has no copy of them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_edge.model.synthetic import CONFIGS, make_synthetic

ROOT = Path(__file__).parents[2]
# What the torch engine may take beyond the native engine and the import of torch.
ALLOWANCE = 60 << 20

PROGRAM = """
import json, sys
from pathlib import Path
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.native import NativeEngine
from qwen_edge.model.packed import open_model

def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: 1024 * int(fields[name].split()[0]) for name in ("VmHWM", "RssAnon")}

_, path, engine, *others = sys.argv
if others:
    import torch
if engine != "none":
    if engine == "torch":
        from qwen_edge.engine.torch_engine import TorchEngine
    config = EngineConfig(context=64, threads=1, prefill_rows=32)
    with open_model(Path(path)) as model, (
        TorchEngine(model, config, "off") if engine == "torch" else NativeEngine(model, config)
    ) as running:
        running.forward([Row(0, i, 7 * i, i == 15) for i in range(16)])
        for i in range(16, 20):
            running.forward([Row(0, i, 7 * i, True)])
        print(json.dumps(memory()))
else:
    print(json.dumps(memory()))
"""


def measure(path: Path, *arguments: str) -> dict[str, int]:
    """Memory in bytes of a process that computed a few rows."""
    command = [sys.executable, "-c", PROGRAM, str(path), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    result: dict[str, int] = json.loads(done.stdout)
    return result


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise")
def test_weights_are_not_copied(tmp_path: Path) -> None:
    # Few layers: the embedding alone takes 88 MB.
    config = replace(CONFIGS["qwen3-0.6b"], layers=2)
    path = make_synthetic("qwen3-0.6b", tmp_path / "model.qedge", config=config)
    # The operators' build is not to be counted.
    measure(path, "torch", "import torch")
    bare, native = measure(path, "none"), measure(path, "native")
    imported, ours = measure(path, "none", "import torch"), measure(path, "torch", "import torch")
    assert native["VmHWM"] > bare["VmHWM"] + 80e6
    torch_costs = imported["VmHWM"] - bare["VmHWM"]
    assert ours["VmHWM"] <= native["VmHWM"] + torch_costs + ALLOWANCE
    assert ours["RssAnon"] <= native["RssAnon"] + imported["RssAnon"] + ALLOWANCE
