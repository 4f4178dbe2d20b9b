"""``--engine``: the same program over another engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen_edge.model.export_checkpoint import export_checkpoint
from qwen_edge.model.packed import open_model
from qwen_edge.session.models import demo_path
from tests.cli.program import EXACT, run

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "Demo-0.5"
    with open_model(demo_path()) as model:
        export_checkpoint(model, path, floats="f32")
    return path


def test_run_with_transformers(home: Path, folder: Path) -> None:
    native = run(home, "run", "-m", "demo", *EXACT, "Hello!")
    library = ("-m", str(folder), "--engine", "transformers", *EXACT)
    done = run(home, "run", *library, "--weights", "f32", "Hello!")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", native.stdout)
    told = run(home, "run", *library, "--weights", "int8", "--json", "--logprobs", "2", "Hello!")
    assert (told.returncode, told.stderr) == (0, "")
    table = json.loads(told.stdout)
    assert table["model"] == "Demo-0.5"
    assert table["logprobs"][0]["top"][0]["logprob"] <= 0
    explained = run(home, "run", *library, "--weights", "nf4", "--no-kv-cache", "--explain")
    lines = [line.split() for line in explained.stderr.splitlines()]
    shown = {line[0]: line[1] for line in lines if len(line) > 1}
    assert (shown["engine"], shown["weights"], shown["kv"]) == ("transformers", "nf4", "bf16")
    assert (shown["kv-cache"], shown["lookup"]) == ("off", "off")


def test_chat_with_transformers_keeps_its_cache(home: Path, folder: Path) -> None:
    done = run(
        home, "chat", "-m", str(folder), "--engine", "transformers", *EXACT, "-n", "12", "--stats",
        stdin=b"Hello!\nAnd you?\n",
    )  # fmt: skip
    assert done.returncode == 0
    cached = [line for line in done.stderr.splitlines() if line.startswith("prompt:")]
    assert len(cached) == 2
    assert "(0 cached)" in cached[0]
    assert "(0 cached)" not in cached[1]


def test_eval_with_transformers(home: Path, folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("The sea is blue, and the sky is blue, too. " * 20)
    library = ("--engine", "transformers", "-m", str(folder))
    common = ("eval", "--text", str(text), "-c", "64", "--json")
    exact = run(home, *common, "-m", "demo", "--activations", "f32")
    done = run(home, *common, *library, "--weights", "f32")
    assert done.returncode == 0, done.stderr
    ours, theirs = (json.loads(result.stdout) for result in (exact, done))
    assert theirs["settings"]["engine"] == "transformers"
    assert theirs["perplexity"]["perplexity"] == pytest.approx(
        ours["perplexity"]["perplexity"], rel=1e-4
    )
    refused = run(home, *common, *library, "--activations", "f32")
    assert refused.returncode == 2
    assert "do not apply to the engine transformers" in refused.stderr


def test_auto_says_what_it_came_to(home: Path, folder: Path) -> None:
    told = run(home, "run", "-m", "demo", "--engine", "auto", "--explain")
    assert told.returncode == 0
    assert told.stderr.splitlines()[-1].startswith("auto takes native: nothing was measured here")
    shown = run(home, "run", "-m", str(folder), "--engine", "auto", "--explain")
    assert "auto takes transformers: only it takes a checkpoint's folder." in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-m", "demo", "--engine", "transformers"), 2, "takes a checkpoint's folder"),
        (("-m", "FOLDER"), 3, "--engine transformers"),
        (("-m", "FOLDER", "--engine", "torch"), 3, "is a folder"),
        (("-m", "FOLDER", "--engine", "transformers", "--kv", "int8"), 2, "allowed are bf16"),
        (
            ("-m", "FOLDER", "--engine", "transformers", "--prompt-cache", "FOLDER/x"),
            2,
            "keeps no prompts on disk",
        ),
    ],
)
def test_what_does_not_go_together(
    home: Path, folder: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    named = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    done = run(home, "run", *named, "Hello!")
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") <= 2
    assert "Traceback" not in done.stderr
