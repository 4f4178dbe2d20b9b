"""Predicted and real peaks of the engines that need torch, and the memory cap over them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_edge.model.config import ModelConfig
from qwen_edge.model.export_checkpoint import export_checkpoint
from qwen_edge.model.packed import open_model
from qwen_edge.model.synthetic import make_synthetic
from qwen_edge.session.footprint import library_bytes, predict_peak
from qwen_edge.session.plan import make_plan
from tests.cli.program import environment
from tests.cli.running import TINY

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

MIB = 1 << 20
# Large enough that its weights show beside the libraries, small enough to be written quickly.
CONFIG: ModelConfig = replace(
    TINY, hidden_size=512, intermediate_size=2048, layers=4, heads=8, kv_heads=4, head_dim=64
)
LIBRARY = {"engine": "transformers"}
CASES: dict[str, dict[str, str]] = {
    "torch": {"engine": "torch", "compile": "off"},
    "bf16": {**LIBRARY, "weights": "bf16"},
    "f32": {**LIBRARY, "weights": "f32"},
    "nf4": {**LIBRARY, "weights": "nf4"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    with open_model(make_synthetic("small", place / "m.qedge", config=CONFIG)) as model:
        export_checkpoint(model, place / "small")
    return place / "small"


def python(code: str, home: Path, *arguments: str) -> tuple[int, str, str]:
    """Runs a program; returns its exit code and what it wrote."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        env=environment(home),
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


IMPORTS = """
import json, sys
from qwen_edge.session.engines import load_packages
from qwen_edge.session.plan import make_plan
from qwen_edge.host.memory_facts import own_memory
load_packages(make_plan(json.loads(sys.argv[1])).choice)
print(own_memory().peak)
"""
RUN = "import sys; from qwen_edge.cli.app import run_program; sys.exit(run_program(sys.argv[1:]))"
REFUSED = """
import sys
from qwen_edge.cli.app import run_program
code = run_program(sys.argv[1:])
print("torch" in sys.modules)
sys.exit(code)
"""


@pytest.mark.parametrize("case", CASES)
def test_the_predicted_peak_is_the_real_one(case: str, folder: Path, tmp_path: Path) -> None:
    model = folder.parent / "m.qedge" if case == "torch" else folder
    flags = {"model": str(model), "context": "1024", **CASES[case]}
    plan = make_plan(flags)
    plan.model.close()
    code, out, err = python(IMPORTS, tmp_path, json.dumps(flags))
    assert (code, err) == (0, "")
    imports = int(out)
    expected = library_bytes(plan.choice)
    if torch.version.cuda is None:
        assert imports == pytest.approx(expected, rel=0.3)
    # Just as much as it takes, and not what importing takes besides.
    cap = plan.runtime.predicted_peak
    code, out, err = python(
        RUN, tmp_path, "run", *(f"--{key}={value}" for key, value in flags.items()),
        "--memory-cap", str(cap), "--raw", "--json", "-n", "8", "-t", "0", "word " * 120,
    )  # fmt: skip
    assert code == 0, err
    answer = json.loads(out)
    peak = answer["memory"]["peak"]
    used = answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert used > 500
    predicted = predict_peak(plan.facts, plan.engine, used, plan.choice) - expected + imports
    assert peak < 1.1 * predicted
    temporary = plan.facts.folder.temporary if plan.facts.folder else 0
    assert peak > 0.85 * (predicted - temporary)


def test_too_little_is_refused_before_anything_is_imported(folder: Path, tmp_path: Path) -> None:
    code, out, err = python(
        REFUSED, tmp_path, "run", "-m", str(folder), "--engine", "transformers", "--memory-cap",
        "300MB", "Hello",
    )  # fmt: skip
    assert code == 4
    assert "and the cap is" in err
    assert out == "False\n"


CAPPED = """
import sys
from dataclasses import replace
from qwen_edge.errors import MemoryLimitError
from qwen_edge.session.answer import Answer
from qwen_edge.session.conversation import USER, Message, encode_messages
from qwen_edge.session.loaded import LoadedModel
from qwen_edge.session import plan as plans
from qwen_edge.session.plan import make_plan
# The room for threads would do for a model as small as this.
plans.address_only = lambda threads, choice: 0
plan = make_plan({"model": sys.argv[1], "engine": "transformers", "weights": sys.argv[2]})
try:
    with LoadedModel(replace(plan, budget=int(sys.argv[3]))) as loaded:
        ids = encode_messages(loaded.chat, [Message(USER, "word " * 150)], False)
        list(Answer(loaded.chat, ids, loaded.answer_options()))
except MemoryLimitError as error:
    sys.exit(error.sentence)
"""


@pytest.mark.parametrize("weights", ["bf16", "f32"])
def test_running_out_of_memory_is_an_error_that_is_told(
    folder: Path, tmp_path: Path, weights: str
) -> None:
    code, out, err = python(CAPPED, tmp_path, str(folder), weights, str(40 * MIB))
    assert (code, out) == (1, "")
    assert err.strip() in (
        "An allocation failed under the memory cap.",
        "Memory use reached {used}, and the cap is {cap}.",
    )
