"""``qwen-edge bench``: what it measures, how it shows it, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.cli.messages_zh import MESSAGES
from qwen_edge.session.bench_result import QUANTITIES, read_report
from tests.cli.program import PROGRAM, environment, run, terminal

QUICK = ("bench", "-m", "demo", "--quick", "--budget", "6")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of the demo model, as JSON."""
    folder = tmp_path_factory.mktemp("bench")
    done = run(folder / "home", *QUICK, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    path = folder / "result.json"
    path.write_text(done.stdout)
    return path


@pytest.fixture
def altered(measured: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies of the result with decode speeds and fields of one's own."""

    def make(name: str, decode: list[float], **fields: object) -> Path:
        table = json.loads(measured.read_text()) | fields
        for one in table["measures"]:
            if (one["key"], one["size"]) == ("decode", 0):
                one["samples"] = decode
        path = tmp_path / name
        path.write_text(json.dumps(table))
        return path

    return make


def test_json_holds_every_sample(measured: Path) -> None:
    table = json.loads(measured.read_text())
    assert (table["schema"], table["kind"], table["complete"]) == (1, "bench", True)
    assert table["model"]["name"] == "demo"
    assert table["model"]["bytes_per_token"] < table["model"]["bytes"]
    assert table["settings"]["isa"]
    assert table["device"]["cores"] >= 1
    found = {(one["key"], one["size"]) for one in table["measures"]}
    assert {
        ("load", None), ("first-token-cold", None), ("first-token-warm", None), ("prefill", 128),
        ("decode", 0), ("decode-share", 0), ("batch", 1), ("bandwidth", None),
        ("processor-share", None), ("peak-memory", None),
    } <= found  # fmt: skip
    for one in table["measures"]:
        assert one["min"] <= one["median"] <= one["max"]
        assert {one["min"], one["max"]} <= set(one["samples"])
        assert (one["unit"], one["better"]) == QUANTITIES[one["key"]][:2]
        if one["key"] not in ("speed-drift", "memory-growth", "leak"):
            assert min(one["samples"]) > 0
    # The demo model's context ends before these depths.
    left_out = " ".join(remark["text"] for remark in table["remarks"])
    assert "decode at depth 2,048 is left out: it takes a context of" in left_out
    assert len(read_report(measured).measures) == len(table["measures"])


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_table_fits_the_terminal(home: Path, columns: int, language: str) -> None:
    from qwen_edge.cli.text_cells import cell_width

    variables = {"QWEN_EDGE_LANG": language, "COLUMNS": str(columns), "NO_COLOR": "1"}
    with terminal(home, *QUICK, columns=columns, **variables) as opened:
        assert opened.finish(60) == 0
    # The progress line erases itself.
    lines = opened.screen.rpartition("\r\x1b[K")[2].splitlines()
    assert len(lines) > 20
    assert all(cell_width(line) <= columns for line in lines), lines
    assert "\x1b" not in "".join(lines)
    assert any("█" in line for line in lines)
    heading = {"en": "Prefill, tokens/s", "zh": "预填充，词元/秒"}[language]
    assert heading in lines


def test_progress_shows_what_is_measured(home: Path) -> None:
    with terminal(home, *QUICK) as opened:
        opened.wait_for("first token, new process")
        opened.wait_for("decode at depth 0")
        assert opened.finish(60) == 0
    assert "\x1b[36m█" in opened.screen


def test_markdown_is_a_table_and_the_plot_is_svg(home: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    done = run(home, *QUICK, "--markdown", "--plot", str(plot))
    assert done.returncode == 0
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[0] == "| what | median | range | samples |"
    assert rows[1] == "|---|---|---|---|"
    assert any(row.startswith("| prefill of 128 tokens | ") for row in rows)
    assert all(row.count("|") == 5 for row in rows)
    assert done.stderr == f"The plot is in {plot}.\n"
    root = ElementTree.parse(plot).getroot()
    drawn = [element.tag.rpartition("}")[2] for element in root.iter()]
    # A bar for each measure with bars, and the white ground.
    bars = sum(row.startswith(("| prefill", "| decode", "| batch")) for row in rows)
    assert drawn.count("rect") == bars + 1
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    assert "Prefill, tokens/s" in texts
    assert any(text.startswith("demo, 4 bits") for text in texts)


def compared(home: Path, *arguments: str | Path) -> list[str]:
    done = run(home, "bench", "compare", *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines() + done.stderr.splitlines()


def verdict(lines: list[str]) -> str:
    line = next(line for line in lines if line.startswith("decode at depth 0"))
    return line.rpartition("%")[2].strip()


def test_compare_marks_what_is_beyond_the_noise(home: Path, altered: Callable[..., Path]) -> None:
    slow = altered("slow.json", [98.0, 100.0, 101.0, 99.0, 102.0])
    fast = altered("fast.json", [148.0, 150.0, 152.0, 149.0, 151.0])
    noisy = altered("noisy.json", [91.0, 104.0, 99.0, 109.0, 98.0])
    few = altered("few.json", [150.0])
    assert verdict(compared(home, slow, fast)) == "faster"
    assert verdict(compared(home, fast, slow)) == "slower"
    assert verdict(compared(home, slow, noisy)) == ""
    assert verdict(compared(home, slow, few)) == "too few samples"
    same = compared(home, slow, slow)
    assert not any(line.endswith((" faster", " slower", " less", " more")) for line in same)
    markdown = compared(home, slow, fast, "--markdown")
    assert any(line.startswith("| decode at depth 0 |") and "faster" in line for line in markdown)


def test_compare_says_what_else_differs(home: Path, altered: Callable[..., Path]) -> None:
    here = altered("here.json", [100.0])
    there = altered("there.json", [100.0], device={"processor": "another"}, complete=False)
    lines = compared(home, here, there)
    assert "The machines differ: this compares them as much as anything else." in lines
    assert "A result was broken off before its end." in lines
    assert "The machines differ" not in " ".join(compared(home, here, here))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no JSON", b"[]", b"{}", b"null", b"[" * 100_000, b'{"schema": 1}',
        b'{"schema": 2, "kind": "bench"}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_damaged_results_are_refused(home: Path, measured: Path, content: bytes) -> None:
    damaged = measured.with_name("damaged.json")
    damaged.write_bytes(content)
    done = run(home, "bench", "compare", str(measured), str(damaged))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {damaged} is not a result of this program's benchmark.")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("samples", []), ("samples", ["fast"]), ("samples", [float("nan")]), ("samples", 5),
        ("key", "unheard-of"), ("key", ["decode"]), ("size", "0"), ("size", 1.5),
    ],
)  # fmt: skip
def test_damaged_measures_are_refused(home: Path, measured: Path, key: str, value: Any) -> None:
    table = json.loads(measured.read_text())
    table["measures"][0][key] = value
    damaged = measured.with_name("damaged.json")
    damaged.write_text(json.dumps(table))
    done = run(home, "bench", "compare", str(damaged), str(measured))
    assert done.returncode == 2
    assert "is not a result of this program's benchmark" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("surplus",), "bench measures, or compares two results."),
        (("compare", "a.json"), "bench measures, or compares two results."),
        (("compare", "a.json", "b.json"), "The result a.json cannot be read: No such file"),
        (("--json", "--markdown"), "--json and --markdown exclude each other."),
        (("--budget", "0"), "--budget takes a number from 1 to 86400, not '0'."),
        (("--synthetic", "9b"), "There is no synthetic model qwen3-9b with 4 bits."),
        (("--synthetic", "0.6b", "-m", "demo"), "--synthetic and --model exclude each other."),
        (("--plot", "plot.gif"), "plot.gif ends in neither .svg nor .png."),
        (("--plot", "/nowhere/plot.svg"), "There is no folder /nowhere."),
        (("-m", "demo", "--kv", "int3"), "'int3' is no value for kv"),
    ],
)
def test_usage_errors(home: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(home, "bench", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_ctrl_c_shows_what_was_measured(home: Path) -> None:
    with terminal(home, "bench", "-m", "demo", "--budget", "600") as opened:
        opened.wait_for("prefill of 2,048 tokens", 60)
        opened.press_ctrl_c()
        assert opened.finish(60) == 130
    assert "Start" in opened.screen
    assert "Broken off: this is what was measured until then." in opened.screen


def test_ctrl_c_during_another_process_is_no_failure(home: Path) -> None:
    with terminal(home, *QUICK) as opened:
        opened.wait_for("first token, new process")
        opened.press_ctrl_c()
        assert opened.finish(60) == 130
    assert "error" not in opened.screen


def test_ctrl_c_gives_json_too(home: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "bench", "-m", "demo", "--article", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home, QWEN_EDGE_ISA="scalar"),
    )
    try:
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    # Where nothing was measured yet there is nothing to write.
    assert not output or json.loads(output)["complete"] is False


def test_article_reports_its_rows_and_repeats(home: Path, tmp_path: Path) -> None:
    done = run(home, "bench", "-m", "demo", "--article", "--json")
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table["kind"] == "article"
    samples = {one["key"]: one["samples"] for one in table["measures"]}
    assert len(samples["answer-speed"]) == len(samples["first-token-warm"]) == 10
    assert len(samples["load"]) == 1
    shown = run(home, "bench", "-m", "demo", "--article", "--markdown").stdout
    for row in ("load time", "first token latency", "mean speed", "least speed", "greatest speed",
                "peak memory", "processor share of all cores"):  # fmt: skip
        assert f"| {row} | " in shown
    repeats = next(line for line in shown.splitlines() if line.startswith("The repeats"))
    assert len(repeats.partition(": ")[2].split(", ")) == 10


def run_with_tiny_shape(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the program with a tiny model's shape in place of Qwen3-0.6B's."""
    code = (
        "import sys\n"
        "from qwen_edge.cli.app import run_program\n"
        "from qwen_edge.model import synthetic\n"
        "from tests.cli.running import TINY\n"
        "synthetic.CONFIGS['qwen3-0.6b'] = TINY\n"
        "sys.exit(run_program(sys.argv[1:]))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "bench", "--quick", "--budget", "6", *arguments],
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("--synthetic", "0.6b"), ("--synthetic", "Qwen3-0.6B")])
def test_random_weights_are_made_and_deleted(home: Path, arguments: tuple[str, ...]) -> None:
    done = run_with_tiny_shape(home, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    assert "A model of the shape qwen3-0.6b with random weights is made" in done.stderr
    table = json.loads(done.stdout)
    assert table["model"]["name"] == "qwen3-0.6b-synthetic"
    assert table["model"]["source"].startswith("random weights")
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_depths_that_do_not_fit_are_left_out(home: Path, measured: Path) -> None:
    done = run(home, *QUICK, "--json", "--context", "256")
    table = json.loads(done.stdout)
    sizes = {one["size"] for one in table["measures"] if one["key"] == "prefill"}
    assert sizes == {32, 128}
    reasons = [remark["text"] for remark in table["remarks"]]
    assert any("prefill of 512 tokens is left out: it takes a context" in text for text in reasons)


def test_every_name_has_a_translation() -> None:
    assert {quantity.name for quantity in QUANTITIES.values()} - MESSAGES.keys() == set()
