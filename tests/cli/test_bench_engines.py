"""``qwen-edge bench --engine all``: its table, its JSON, and two of those compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_edge.cli.messages_zh import MESSAGES
from qwen_edge.cli.text_cells import cell_width
from qwen_edge.session.bench_contenders import CONTENDERS
from tests.cli.program import SLOWLY, environment, run, terminal

# A machine without any package but this program's own, and the same engine twice.
PROGRAM = (
    sys.executable,
    "-c",
    "import importlib.util, sys\n"
    "known = importlib.util.find_spec\n"
    "importlib.util.find_spec = lambda name: None if name == 'torch' else known(name)\n"
    "from qwen_edge.session import bench_contenders, bench_engines\n"
    "first = bench_contenders.FIRST\n"
    "again = first._replace(name='torch compiled')\n"
    "bench_engines.CONTENDERS = (first, again, *bench_contenders.CONTENDERS[2:])\n"
    "bench_engines.EnginesBench.__init__.__kwdefaults__['contenders'] = bench_engines.CONTENDERS\n"
    "from qwen_edge.cli.app import run_program\n"
    "sys.exit(run_program(sys.argv[1:]))\n",
)
ALL = ("bench", "--engine", "all", "-m", "demo", "--quick", "--budget", "8")


def program(home: Path, *arguments: str, **changes: str) -> tuple[int, str, str]:
    """Runs the program as it is on that machine; returns exit code, output and errors."""
    done = subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, env=environment(home, **changes),
        timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result, as JSON."""
    folder = tmp_path_factory.mktemp("engines")
    code, output, errors = program(folder / "home", *ALL, "--json")
    assert (code, errors) == (0, "")
    path = folder / "result.json"
    path.write_text(output)
    return path


def test_json_holds_every_sample_of_every_engine(measured: Path) -> None:
    table = json.loads(measured.read_text())
    assert (table["schema"], table["kind"], table["complete"]) == (1, "engines", True)
    assert table["settings"]["engine"] == "all"
    found = {(one["engine"], one["key"]) for one in table["measures"]}
    for engine in ("native", "torch compiled"):
        for key in (
            "ready", "first-token-cold", "prefill", "decode", "process-peak", "packages"
        ):  # fmt: skip
            assert (engine, key) in found
    assert ("", "bandwidth") in found
    said = [remark["text"] for remark in table["remarks"]]
    assert said[0] == (
        "torch eager is left out: The engine torch needs the package torch, which is not installed."
    )
    assert len(said) == len(CONTENDERS) - 2


@pytest.mark.parametrize("columns", [40, 80, 100])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_fits_the_terminal(home: Path, columns: int, language: str) -> None:
    variables = {"QWEN_EDGE_LANG": language, "NO_COLOR": "1"}
    with terminal(home, *ALL, columns=columns, program=PROGRAM, **variables) as opened:
        opened.wait_for({"en": "process start to ready", "zh": "进程启动"}[language][:8])
        assert opened.finish(60) == 0
    lines = opened.screen.rpartition("\r\x1b[K")[2].splitlines()
    assert all(cell_width(line) <= columns for line in lines), lines
    assert {"en": "Engines side by side", "zh": "各引擎并排比较"}[language] in lines
    ratio = {"en": "ratio", "zh": "比值"}[language]
    if columns == 100:
        head = next(line for line in lines if ratio in line)
        assert {"en": "engine", "zh": "引擎"}[language] in head
    # A row, or a block of lines, for each engine.
    names = {"en": ("native", "torch compiled"), "zh": ("原生", "torch 编译")}[language]
    for name in names:
        assert any(name in line and "left out" not in line for line in lines)


def test_markdown_is_a_table(home: Path) -> None:
    code, output, _ = program(home, *ALL, "--markdown")
    assert code == 0
    rows = [line for line in output.splitlines() if line.startswith("|")]
    assert rows[0] == (
        "| engine | ready | 1st token | prefill | decode | ratio | memory | packages |"
    )
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| native", "| torch compiled"]
    assert " | 1.00 | " in rows[2]
    assert "- torch eager is left out: " in output


def test_results_of_all_engines_are_compared_by_engine(home: Path, measured: Path) -> None:
    table = json.loads(measured.read_text())
    for one in table["measures"]:
        if (one["key"], one["engine"]) == ("decode", "torch compiled"):
            one["samples"] = [sample * 3 for sample in one["samples"]]
    faster = measured.with_name("faster.json")
    faster.write_text(json.dumps(table))
    done = run(home, "bench", "compare", str(measured), str(faster), "--markdown")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    changed = next(row for row in rows if row.startswith("| torch compiled: decode at depth 0 "))
    assert "+200%" in changed
    same = next(row for row in rows if row.startswith("| native: decode at depth 0 "))
    assert "+0%" in same
    single = run(home, "bench", "-m", "demo", "--quick", "--budget", "5", "--json")
    other = measured.with_name("single.json")
    other.write_text(single.stdout)
    done = run(home, "bench", "compare", str(measured), str(other))
    assert "The results are of different procedures: their rows differ." in done.stderr


def test_a_damaged_engine_is_refused(home: Path, measured: Path) -> None:
    table = json.loads(measured.read_text())
    table["measures"][0]["engine"] = 5
    damaged = measured.with_name("damaged.json")
    damaged.write_text(json.dumps(table))
    done = run(home, "bench", "compare", str(measured), str(damaged))
    assert done.returncode == 2
    assert "is not a result of this program's benchmark" in done.stderr


def test_ctrl_c_shows_what_was_measured(home: Path) -> None:
    # With the fast kernels all would be over before the key is pressed.
    with terminal(home, *ALL[:-1], "600", program=PROGRAM, columns=100, **SLOWLY) as opened:
        opened.wait_for("torch compiled: process start", 60)
        opened.press_ctrl_c()
        assert opened.finish(60) == 130
    assert "Engines side by side" in opened.screen
    assert "Broken off: this is what was measured until then." in opened.screen


@pytest.mark.parametrize(
    "arguments", [("--article",), ("--plot", "a.svg"), ("--compile", "on"), ("--weights", "nf4")]
)
def test_what_excludes_each_other(home: Path, arguments: tuple[str, ...]) -> None:
    done = run(home, "bench", "-m", "demo", "--engine", "all", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--engine all and {arguments[0]} exclude each other." in done.stderr


def test_other_commands_do_not_know_all(home: Path) -> None:
    done = run(home, "run", "-m", "demo", "--engine", "all", "Hello!")
    assert done.returncode == 2
    assert "'all' is no value for engine" in done.stderr


def test_every_engine_of_ours_has_a_translation() -> None:
    ours = {one.name for one in CONTENDERS if not one.name.startswith("transformers")}
    assert ours - MESSAGES.keys() == set()
