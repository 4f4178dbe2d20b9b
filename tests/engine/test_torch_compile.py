"""How torch's compiler is set up, what it keeps, and that its results are checked before use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen_edge.engine import torch_package
from qwen_edge.engine.interface import EngineConfig
from qwen_edge.engine.torch_compile import check_layers, group_size
from qwen_edge.engine.torch_engine import TorchEngine
from qwen_edge.engine.torch_package import package_path
from qwen_edge.model.packed import open_model
from qwen_edge.model.qwen3 import run_layers

DEMO = Path(__file__).resolve().parents[2] / "qwen_edge" / "demo" / "demo.qedge"


def python(code: str, home: Path) -> Any:
    """Runs code in a process of its own; what it prints last, read as JSON."""
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"QWEN_EDGE_HOME": str(home)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(("layers", "expected"), [(28, 4), (36, 4), (5, 1), (6, 3), (2, 2), (1, 1)])
def test_layers_are_compiled_in_equal_groups(layers: int, expected: int) -> None:
    assert group_size(layers) == expected


def test_on_android_it_gets_a_compiler_vectors_and_one_thread(tmp_path: Path) -> None:
    found = python(
        """
import json, sys, torch, torch._inductor.config as inductor
from qwen_edge.model.operators import native_operators
from qwen_edge.engine.torch_compile import configure
native_operators()
sys.platform = "android"
configure()
from torch._inductor.cpu_vec_isa import valid_vec_isa_list
print(json.dumps([inductor.cpp.cxx[1], inductor.compile_threads, inductor.cpp.vec_isa_ok,
                  [str(isa) for isa in valid_vec_isa_list()]]))
""",
        tmp_path,
    )
    assert found == ["clang++", 1, True, ["asimd"]]


COUNTING = f"""
import json
from pathlib import Path
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.torch_engine import TorchEngine
from qwen_edge.engine.torch_package import package_path
from qwen_edge.model.packed import open_model
with open_model(Path({str(DEMO)!r})) as model:
    with TorchEngine(model, EngineConfig(context=64, threads=1), "on") as engine:
        engine.forward([Row(0, 0, 5, True)])
        compiled = engine.compiled
from torch._dynamo.utils import counters
found = counters["aot_autograd"]
print(json.dumps([compiled, found["autograd_cache_hit"], found["autograd_cache_miss"],
                  found["autograd_cache_bypass"]]))
"""


def test_what_was_compiled_is_found_again(tmp_path: Path) -> None:
    assert python(COUNTING, tmp_path) == ["on", 0, 1, 0]
    assert python(COUNTING, tmp_path) == ["on", 1, 0, 0]
    assert {entry.name for entry in (tmp_path / "torch").iterdir()} == {"operators", "inductor"}


def test_layers_that_compute_something_else_are_not_trusted() -> None:
    with (
        open_model(DEMO) as model,
        TorchEngine(model, EngineConfig(context=64, threads=1), "off") as engine,
    ):
        network, caches = engine._network, engine._cache
        check_layers(run_layers, network, caches, 2)

        def wrong(*arguments: Any) -> torch.Tensor:
            return run_layers(*arguments) * 1.05

        with pytest.raises(ArithmeticError, match="off by 5"):
            check_layers(wrong, network, caches, 2)

        def broken(*arguments: Any) -> torch.Tensor:
            return run_layers(*arguments) * float("nan")

        with pytest.raises(ArithmeticError):
            check_layers(broken, network, caches, 2)


def test_two_models_in_a_process_have_compiled_code_of_their_own(tmp_path: Path) -> None:
    found = python(
        f"""
import json
from dataclasses import replace
from pathlib import Path
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.torch_engine import TorchEngine
from qwen_edge.engine.torch_package import package_path
from qwen_edge.model.packed import open_model
with open_model(Path({str(DEMO)!r})) as model:
    modes = []
    for epsilon in (1e-6, 1e-2):
        model.config = replace(model.config, rms_norm_eps=epsilon)
        with TorchEngine(model, EngineConfig(context=64, threads=1), "on") as engine:
            modes.append(engine.compiled)
print(json.dumps(modes))
""",
        tmp_path,
    )
    # The self-test would have found another's epsilon.
    assert found == ["on", "on"]


def test_a_changed_model_does_not_get_the_package_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "qwen3.py"
    changed.write_text("# another model")
    with (
        open_model(DEMO) as model,
        TorchEngine(model, EngineConfig(context=64, threads=1), "off") as engine,
    ):
        before = package_path(engine._network, engine._cache)
        monkeypatch.setattr(torch_package.inspect, "getfile", lambda found: str(changed))
        assert package_path(engine._network, engine._cache) != before


REMAKING = f"""
import json
from pathlib import Path
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.torch_engine import TorchEngine
from qwen_edge.host.paths import torch_folder
from qwen_edge.model.packed import open_model

class Told:
    def __init__(self): self.said = []
    def begin(self, what): self.said.append(what)
    def end(self): pass
    def warn(self, message, **values): self.said.append("warning: " + message.format(**values))

found = []
with open_model(Path({str(DEMO)!r})) as model:
    for damage in (None, b"", None):
        for package in (torch_folder() / "packages").glob("*.pt2"):
            if damage is not None:
                package.write_bytes(damage)
        told = Told()
        with TorchEngine(model, EngineConfig(context=64, threads=1), "aot", told) as engine:
            engine.forward([Row(0, 0, 5, True)])
            found.append([engine.compiled, told.said])
print(json.dumps(found))
"""


def test_a_damaged_package_is_made_anew(tmp_path: Path) -> None:
    first, damaged, again = python(REMAKING, tmp_path)
    assert first[0] == damaged[0] == again[0] == "aot"
    assert damaged[1] == ["Compiling the model for torch"]
    assert again[1] == []
