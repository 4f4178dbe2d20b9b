"""``--engine torch`` as its users meet it: what compiles, what fails, what is kept and cleared."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from pathlib import Path

import pytest

from tests.cli.program import EXACT, PROGRAM, run, terminal

pytest.importorskip("torch")

ASK = ("run", "-m", "demo", *EXACT, "-n", "6", "Hello!")
TORCH = ("--engine", "torch")
EAGER = (*TORCH, "--compile", "off")
# As a user with one core has it: the tests share theirs.
ALONE = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run(tmp_path_factory.mktemp("native"), *ASK).stdout


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose cache holds the operators and the compiled model, with a quiet log of it."""
    home = tmp_path_factory.mktemp("warm")
    done = run(home, *ASK, *TORCH, changes=ALONE, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return home


def compiler(folder: Path, script: str) -> dict[str, str]:
    """An environment with a compiler that does as the shell script says."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return ALONE | {"CXX": str(path)}


def test_compiled_and_eager_answer_as_native_does(warm: Path, answer: str) -> None:
    for mode in ("auto", "off", "on"):
        done = run(warm, *ASK, *TORCH, "--compile", mode, changes=ALONE, timeout=300)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", answer), mode


def test_a_compilation_is_shown_and_leaves_a_clean_screen(tmp_path: Path, answer: str) -> None:
    # A compiler that is slow enough for the line to appear.
    slow = compiler(tmp_path, 'sleep 1\nexec g++ "$@"')
    with terminal(tmp_path / "home", *ASK, *EAGER, columns=40, **slow) as shown:
        shown.wait_for("Building the operators for torch  0:0", timeout=60)
        assert shown.finish(60) == 0
        after = shown.screen.rpartition("\r\x1b[K")[2]
    assert "Building" not in after
    assert after == answer
    drawn = [re.sub(r"\x1b\[[0-9]*m", "", part) for part in shown.screen.split("\r\x1b[K")]
    assert max(map(len, drawn[:-1])) < 40
    zh = ALONE | {"QWEN_EDGE_LANG": "zh"}
    broken = run(tmp_path / "other", *ASK, *EAGER, changes=zh | {"CXX": "false"})
    assert broken.stderr.startswith("警告：无法编译 torch 算子")


ONLY_OPERATORS = (
    'case "$*" in *operators.cpp*|*--version*) exec g++ "$@";; esac\necho broken >&2; exit 1'
)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 1", "The operators for torch cannot be built"),
        ("echo 'x.cpp:1: error: nothing works' >&2; exit 1", "(The C++ compiler "),
        ("kill -9 $$", "The operators for torch cannot be built"),
        (ONLY_OPERATORS, "torch's compiler does not work here"),
    ],
)
def test_a_compiler_that_fails_costs_one_warning(
    tmp_path: Path, answer: str, script: str, said: str
) -> None:
    changes = compiler(tmp_path, script)
    done = run(tmp_path / "home", *ASK, *TORCH, changes=changes, timeout=300)
    assert (done.returncode, done.stdout) == (0, answer)
    assert done.stderr.startswith("warning: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    # What failed is not kept for the next start.
    assert not list((tmp_path / "home").rglob("*.partial"))


@pytest.mark.parametrize(
    "changes", [{"PATH": "/nonexistent", "CXX": ""}, {"CXX": "/nonexistent/c++"}, {"CXX": "'"}]
)
def test_without_a_compiler_the_slow_operators_serve(
    tmp_path: Path, answer: str, changes: dict[str, str]
) -> None:
    done = run(tmp_path, *ASK, *TORCH, changes=ALONE | changes, timeout=120)
    assert (done.returncode, done.stdout) == (0, answer)
    assert re.fullmatch(
        r"warning: The operators for torch cannot be built \(.*\); slow ones are used.\n",
        done.stderr,
    )


def test_a_cache_that_cannot_be_written_costs_one_warning(tmp_path: Path, answer: str) -> None:
    (tmp_path / "torch").write_text("in the way")
    done = run(tmp_path, *ASK, *TORCH, changes=ALONE, timeout=120)
    assert (done.returncode, done.stdout) == (0, answer)
    assert done.stderr.count("\n") == 1
    assert "Not a directory" in done.stderr


def test_a_full_disk_costs_one_warning(tmp_path: Path, answer: str) -> None:
    # No file beyond 64 KB: as if there were no room for it.
    program = ("sh", "-c", 'ulimit -f 128; exec "$@"', "sh")
    with terminal(
        tmp_path, *ASK, *TORCH, columns=1000, program=(*program, *PROGRAM), **ALONE
    ) as shown:
        assert shown.finish(120) == 0
    lines = shown.screen.rpartition("\r\x1b[K")[2]
    assert lines.endswith(answer)
    assert len(re.findall("warning:", shown.screen)) == 1
    # Once there is room it is built.
    again = run(tmp_path, *ASK, *EAGER, changes=ALONE, timeout=120)
    assert (again.returncode, again.stderr, again.stdout) == (0, "", answer)


def test_damaged_operators_are_built_again(tmp_path: Path, warm: Path, answer: str) -> None:
    library = next((warm / "torch" / "operators").iterdir())
    damaged = tmp_path / "torch" / "operators" / library.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"\x7fELF nothing")
    done = run(tmp_path, *ASK, *EAGER, changes=ALONE, timeout=120)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", answer)
    assert damaged.stat().st_size > 10000


@pytest.mark.parametrize("mode", ["off", "on"])
def test_ctrl_c_ends_a_compilation_with_all_its_processes(
    tmp_path: Path, warm: Path, mode: str
) -> None:
    pids, home = tmp_path / "pids", tmp_path / "home"
    wait = f"echo $$ >>{shlex.quote(str(pids))}\nsleep 600 &\necho $! >>{pids}\nwait"
    # With its operators at hand, the program begins with the model.
    first = '*" -v"|*--version*) exec g++ "$@";;'
    operators = f'{first} *operators.cpp*) exec g++ "$@";;' if mode == "on" else first
    changes = compiler(tmp_path, f'case "$*" in {operators} esac\n{wait}')
    with terminal(home, *ASK, *TORCH, "--compile", mode, **changes) as shown:
        deadline = time.monotonic() + 60
        while not (pids.exists() and pids.read_text().count("\n") == 2):
            assert time.monotonic() < deadline, shown.screen
            time.sleep(0.05)
        shown.press_ctrl_c()
        assert shown.finish(30) == 130
    assert "Traceback" not in shown.screen
    assert shown.screen.endswith("\r\x1b[K") or "0:0" not in shown.screen
    for pid in map(int, pids.read_text().split()):
        assert not _alive(pid)
    assert not list(home.rglob("*.partial"))
    assert not list(home.rglob("*.pt2"))


def _alive(pid: int) -> bool:
    for _ in range(40):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_a_chat_keeps_its_cache_and_compiles_once(warm: Path) -> None:
    done = run(
        warm, "chat", "-m", "demo", *TORCH, *EXACT, "-n", "12", "--stats",
        stdin=b"Hello!\nAnd you?\nWhat is 2 + 3?\n", changes=ALONE, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0
    assert not re.search("warning|torch|ompil", done.stderr)
    cached = [line for line in done.stderr.splitlines() if line.startswith("prompt:")]
    assert ["(0 cached)" in line for line in cached] == [True, False, False]


def test_convert_compiles_ahead_of_time(tmp_path: Path) -> None:
    made = run(tmp_path, "convert", "demo", "--aot", "--kv", "int8", changes=ALONE, timeout=300)
    assert made.returncode == 0, made.stderr
    package = Path(made.stdout.strip())
    assert package.stat().st_size > 100_000
    assert package.is_relative_to(tmp_path / "torch")
    assert re.fullmatch(r"[0-9.]+ [KM]iB; --engine torch starts from it .*\n", made.stderr)
    # Nothing is left to compile.
    asked = (*ASK, *TORCH, "--kv", "int8", "--compile", "aot")
    done = run(tmp_path, *asked, changes=ALONE, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in package.parent.iterdir()] == [package.name]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("demo", "--aot", "--bits", "4"), 2, "--aot takes no other option than --kv"),
        (("demo", "--aot", "-o", "x.qedge"), 2, "--aot takes no other option than --kv"),
        (("demo", "--aot", "--to", "gguf"), 2, "--aot takes no other option than --kv"),
        (("demo", "--aot", "--threads", "2"), 2, "--aot takes no other option than --kv"),
        (("demo", "--kv", "int8"), 2, "--kv goes with --aot"),
        (("demo", "--aot", "--kv", "int3"), 2, "is no value for kv"),
        (("absent", "--aot"), 3, "There is no model absent"),
    ],
)
def test_what_does_not_go_together(
    home: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = run(home, "convert", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_convert_without_a_compiler_says_so(home: Path) -> None:
    done = run(home, "convert", "demo", "--aot", changes=ALONE | {"CXX": "false"}, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: The operators for torch cannot be built (The C++ compiler")
    assert "pkg install clang" in hint


def test_doctor_tells_of_torch(warm: Path, home: Path) -> None:
    told = run(warm, "doctor")
    assert re.search(r"^torch +\S+, its operators are built$", told.stdout, re.MULTILINE)
    assert "doctor --clear-cache" in told.stdout.replace("\n", " ")
    table = json.loads(run(warm, "doctor", "--json").stdout)["torch"]
    parts = {part: table["cache"][part] for part in ("operators", "inductor", "packages")}
    assert table["built"]
    assert table["cache"]["bytes"] == sum(parts.values())
    assert parts["operators"] > 10_000 < parts["packages"]
    fresh = run(home, "doctor", "--torch", changes=ALONE, timeout=120)
    assert re.search(r"^torch +\S+, loaded with its operators in ", fresh.stdout, re.MULTILINE)
    assert list((home / "torch" / "operators").iterdir())
    broken = run(home / "x", "doctor", "--torch", changes=ALONE | {"CXX": "false"}, timeout=120)
    assert broken.returncode == 0
    assert "its operators do not load" in broken.stdout
    assert broken.stderr.count("warning: ") == 1
