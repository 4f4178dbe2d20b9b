"""``qwen-edge eval``: figures, forms, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import run, terminal

WORDS = "Once upon a time there was a ship. What is 8 times 7? 8 x 7 = 56. 你好，我是模型。\n"
DEMO = ("eval", "-m", "demo")
QUESTIONS = [
    {"question": "What is the capital of France?", "choices": ["Berlin", "Paris"], "answer": "B",
     "category": "facts"},
    {"question": "What is 2 + 3?", "A": "4", "B": "6", "C": "5", "answer": "C",
     "category": "sums"},
    {"question": "What is the opposite of hot?", "choices": ["cold", "green"], "answer": 0,
     "category": "facts"},
]  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(WORDS * 30)
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    return path


def as_json(home: Path, *arguments: str | Path) -> Any:
    done = run(home, *DEMO, "--json", *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_json_has_everything(home: Path, text: Path) -> None:
    table = as_json(home, "--text", text)
    assert (table["schema"], table["kind"], table["complete"]) == (1, "eval", True)
    assert table["model"]["name"] == "demo"
    settings = table["settings"]
    assert (settings["kv"], settings["activations"]) == ("f16", "int8")
    assert (settings["context"], settings["stride"]) == (512, None)
    windows = table["source"]["windows"]
    assert windows >= 1
    assert table["source"]["tokens"] == 512 * windows
    found = table["perplexity"]
    assert found["tokens"] == 255 * windows
    assert 1 < found["perplexity"] < 4096
    assert "divergence" not in table
    assert "choices" not in table


@pytest.mark.parametrize("extra", [(), ("--stride", "100"), ("--against", "demo")])
def test_the_same_bytes_whatever_the_threads(
    home: Path, text: Path, extra: tuple[str, ...]
) -> None:
    written = [
        run(
            home, *DEMO, "--text", str(text), "--json", "-c", "128", *extra,
            "--threads", threads, "--prefill-threads", threads,
        ).stdout
        for threads in ("1", "2", "2")
    ]  # fmt: skip
    assert written[0] == written[1] == written[2] != ""


def test_a_pipe_is_a_text(home: Path, text: Path) -> None:
    whole = as_json(home, "--text", text)
    for arguments in ((), ("--text", "-")):
        done = run(home, *DEMO, "--json", *arguments, stdin=text.read_bytes())
        assert json.loads(done.stdout) == whole
    # A byte order mark is no part of the text.
    done = run(home, *DEMO, "--json", stdin=b"\xef\xbb\xbf" + text.read_bytes())
    assert json.loads(done.stdout) == whole


def test_control_tokens_are_text_unless_asked_for(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "chats.txt"
    path.write_text(
        "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\nHi!<|im_end|>\n" * 8
    )
    plain, special = as_json(home, "-c", 64, "--text", path), None
    special = as_json(home, "-c", 64, "--text", path, "--special")
    assert special["source"]["tokens"] < plain["source"]["tokens"]
    assert special["perplexity"]["nats"] < plain["perplexity"]["nats"]


def test_the_same_figures_without_the_kv_cache(home: Path, text: Path, questions: Path) -> None:
    for source in (("--text", text, "-c", "64", "--limit", "2"), ("--choices", questions)):
        with_cache = as_json(home, *source)
        assert as_json(home, *source, "--no-kv-cache") == with_cache


def test_windows_are_limited_and_precision_is_chosen(home: Path, text: Path) -> None:
    table = as_json(home, "--text", text, "-c", 64, "--limit", 2, "--kv", "int4")
    assert table["source"]["windows"] == 2
    assert table["settings"]["kv"] == "int4"
    exact = as_json(home, "--text", text, "-c", 64, "--limit", 2, "--activations", "fp32")
    assert (exact["settings"]["kv"], exact["settings"]["activations"]) == ("f32", "f32")
    assert exact["settings"]["isa"] == "scalar"
    assert exact["perplexity"]["nats"] != table["perplexity"]["nats"]
    assert exact["perplexity"]["nats"] == pytest.approx(table["perplexity"]["nats"], rel=0.1)


def test_a_reference_is_kept_and_compared_with(home: Path, text: Path, tmp_path: Path) -> None:
    path, result = tmp_path / "reference", tmp_path / "result.json"
    saved = as_json(
        home, "--text", text, "-c", 64, "--activations", "f32", "--save-reference", path
    )
    done = run(home, *DEMO, "--reference", str(path), "-o", str(result))
    assert done.returncode == 0, done.stderr
    assert "Against the reference\ndemo.qedge: demo, KV f32, activations f32\n" in done.stdout
    found = json.loads(result.read_text())["divergence"]
    assert found["reference_perplexity"] == saved["perplexity"]
    assert 0 < found["kl"]["median"] <= found["kl"]["p99"] <= found["kl"]["largest"] < 0.5
    assert found["same_top_interval"][0] <= found["same_top"] <= found["same_top_interval"][1]
    assert found["same_top"] > 0.8
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    path.write_bytes(damaged)
    refused = run(home, *DEMO, "--reference", str(path))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"The reference {path} is damaged." in refused.stderr


def test_questions_are_answered(home: Path, questions: Path) -> None:
    for scoring in ("letter", "text"):
        table = as_json(home, "--choices", questions, "--scoring", scoring)
        found = table["choices"]
        assert found["asked"] == 3
        assert found["right"] == sum(q["chosen"] == q["answer"] for q in found["questions"])
        assert list(found["categories"]) == ["facts", "sums"]
        assert found["guessing"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)
        low, high = found["interval"]
        assert low <= found["accuracy"] <= high
        for question in found["questions"]:
            scores = question["scores"]
            assert scores[question["chosen"]] == max(scores) < 0
    # What the demo model was trained to say.
    assert found["categories"]["facts"]["accuracy"] == 1.0
    assert as_json(home, "--choices", questions, "--limit", 1)["choices"]["asked"] == 1


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_tables_fit_the_terminal(
    home: Path, text: Path, questions: Path, columns: int, language: str
) -> None:
    from qwen_edge.cli.text_cells import cell_width

    variables = {"QWEN_EDGE_LANG": language, "NO_COLOR": "1"}
    for arguments in (("--text", text, "-c", "64", "--against", "demo"), ("--choices", questions)):
        with terminal(home, *DEMO, *map(str, arguments), columns=columns, **variables) as opened:
            assert opened.finish(60) == 0
        lines = opened.screen.rpartition("\r\x1b[K")[2].splitlines()
        assert len(lines) > 6
        assert all(cell_width(line) <= columns for line in lines), lines
        heading = {"en": ("Perplexity", "Accuracy"), "zh": ("困惑度", "正确率")}[language]
        assert set(heading) & set(lines)


def test_markdown_is_a_table(home: Path, text: Path, questions: Path) -> None:
    done = run(home, *DEMO, "--text", str(text), "--markdown", "--against", "demo")
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[:2] == ["| what | value |", "|---|---|"]
    assert any(row.startswith("| perplexity | ") and "±" in row for row in rows)
    assert any(row.startswith("| same first choice | 100.00%") for row in rows)
    done = run(home, *DEMO, "--choices", str(questions), "--markdown")
    assert "| category | right | accuracy | 95 % |" in done.stdout
    assert " tokens/s" in done.stderr


def test_ctrl_c_shows_what_was_measured(home: Path, text: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    arguments = ("--text", str(text), "-c", "64", "--activations", "f32", "-o", str(result))
    with terminal(home, *DEMO, *arguments) as opened:
        opened.wait_for("Evaluating [##")
        opened.press_ctrl_c()
        assert opened.finish(60) == 130
    assert "perplexity" in opened.screen
    assert "Broken off: this is what was measured until then." in opened.screen
    table = json.loads(result.read_text())
    assert table["complete"] is False
    assert 0 < table["source"]["windows_done"] < table["source"]["windows"]
    assert table["perplexity"]["tokens"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--text", "EMPTY"), "EMPTY is empty."),
        (("--text", "SHORT"), "The text has 2 tokens, and a window takes 512."),
        (("--text", "ONE", "--stride", "9"), "The text has 1 tokens; there is nothing to predict."),
        (("--text", "BINARY"), "BINARY is not UTF-8 text: byte 3 is wrong."),
        (("--text", "nowhere"), "nowhere cannot be read: No such file"),
        (("--text", "."), ". cannot be read: Is a directory."),
        (("--choices", "EMPTY"), "EMPTY is empty."),
        (("--choices", "BAD"), "Line 2 is not JSON."),
        (("--choices", "OUTSIDE"), 'Line 1: the answer "C" is none of the 2 choices.'),
        (("--choices", "LONG", "-c", "64"), "Line 1: the question takes"),
        (("--choices", "OUTSIDE", "--scoring", "sound"), "--scoring cannot be sound."),
        (("--text", "SHORT", "--scoring", "text"), "--scoring works with --choices only."),
        (("--text", "SHORT", "--choices", "BAD"), "--choices and --text exclude each other."),
        (("--reference", "x", "--text", "SHORT"), "--reference and --text exclude each other."),
        (("--json", "--markdown"), "--json and --markdown exclude each other."),
        (("--reference", "nowhere"), "The reference nowhere cannot be read: No such file"),
        (("--reference", "BINARY"), "BINARY is not a reference of this program."),
        (("--text", "SHORT", "-c", "9"), "'9' is no value for context"),
        (("--text", "SHORT", "--stride", "513"), "--stride takes a number from 1 to 512"),
        (("--text", "SHORT", "--limit", "0"), "--limit takes a number from 1 to"),
        (("--text", "SHORT", "--kv", "int3"), "'int3' is no value for kv"),
        (("--text", "SHORT", "--activations", "int4"), "--activations cannot be int4."),
    ],
)
def test_usage_errors(home: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    long = {"question": "Why? " * 100, "choices": ["x", "y"], "answer": 0}
    contents = {
        "EMPTY": b" \n",
        "SHORT": b"Hello!",
        "ONE": b"!",
        "BINARY": b"ab\xff" * 50,
        "BAD": json.dumps(QUESTIONS[0]).encode() + b"\n{'question'}\n",
        "OUTSIDE": b'{"question": "Q", "choices": ["x", "y"], "answer": "C"}',
        "LONG": json.dumps(long).encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    words = [str(tmp_path / word) if word in contents else word for word in arguments]
    done = run(home, *DEMO, *words)
    assert (done.returncode, done.stdout) == (2, "")
    for name in contents:
        said = said.replace(f"{name} is", f"{tmp_path / name} is")
    assert said in done.stderr


def test_nothing_to_evaluate(home: Path) -> None:
    with terminal(home, *DEMO) as opened:
        assert opened.finish() == 2
    assert "There is nothing to evaluate." in opened.screen


def test_models_that_do_not_fit_are_refused(home: Path, text: Path) -> None:
    threads = ("--threads", "1", "--prefill-threads", "1")
    single = run(home, *DEMO, "--text", str(text), *threads, "--memory-cap", "1MB")
    assert single.returncode == 4
    needed = float(single.stderr.split(" needs ")[1].split(" MiB")[0])
    cap = f"{needed + 6:.0f}MiB"
    assert run(home, *DEMO, "--text", str(text), *threads, "--memory-cap", cap).returncode == 0
    both = run(home, *DEMO, "--text", str(text), *threads, "--memory-cap", cap, "--against", "demo")
    assert (both.returncode, both.stdout) == (4, "")
    assert "demo and demo side by side need" in both.stderr
    assert "--save-reference FILE with demo, then --reference FILE." in both.stderr
