"""Start-up: what a short answer imports, and how long that takes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import PROGRAM, ROOT, environment

# Seconds of processor time for interpreter and imports; 0.15 s are promised on an idle machine.
BUDGET = float(os.environ.get("QWEN_EDGE_TEST_IMPORT_SECONDS", "0.15"))
HEAVY = {
    "torch", "numpy", "transformers", "tokenizers", "safetensors", "typer", "click", "rich",
    "pydantic", "jinja2", "psutil", "asyncio", "ssl", "http", "socket", "subprocess", "logging",
    "shutil", "tempfile", "multiprocessing", "unittest",
}  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which modules are compiled once, as in an installed package."""
    folder = tmp_path_factory.mktemp("startup")
    variables = environment(folder / "home", PYTHONPYCACHEPREFIX=str(folder / "cache"))
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


def modules_after(arguments: list[str], stdin: str, variables: dict[str, str]) -> set[str]:
    """The modules that a run of the program has imported in the end."""
    code = (
        "import sys\n"
        "from qwen_edge.cli.app import run_program\n"
        "code = run_program(sys.argv[1:])\n"
        "print('\\n' + ' '.join(sys.modules), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=variables,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["run", "-m", "demo", "--no-think", "-n", "5", "Hello!"], ""),
        (["run", "-m", "demo", "--think", "-n", "5", "--seed", "3"], "Hello!"),
        (["chat", "-m", "demo", "-n", "5"], "Hello!\nAnd?\n"),
        (["--version"], ""),
    ],
)
def test_answers_import_nothing_heavy(
    arguments: list[str], stdin: str, compiled: dict[str, str]
) -> None:
    found = {name.split(".")[0] for name in modules_after(arguments, stdin, compiled)}
    assert not found & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [["models", "list"], ["config", "keys"], ["doctor"], ["bench", "-m", "demo", "--budget", "4"]],
)
def test_no_command_of_the_phone_imports_torch(
    arguments: list[str], compiled: dict[str, str]
) -> None:
    found = modules_after(arguments, "", compiled)
    assert not found & {"torch", "numpy", "transformers"}


def processor_seconds(arguments: list[str], variables: dict[str, str]) -> float:
    """User and system time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        arguments, stdin=subprocess.DEVNULL, capture_output=True, env=variables, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_imports_keep_to_their_budget(compiled: dict[str, str]) -> None:
    command = [sys.executable, "-c", "import qwen_edge.cli.app, qwen_edge.cli.run"]
    processor_seconds(command, compiled)
    # The least of several: a busy machine only ever adds.
    assert min(processor_seconds(command, compiled) for _ in range(7)) <= BUDGET


def test_an_answer_costs_little_more_than_its_imports(compiled: dict[str, str]) -> None:
    command = [*PROGRAM, "run", "-m", "demo", "--no-think", "-t", "0", "Hello!"]
    processor_seconds(command, compiled)
    assert min(processor_seconds(command, compiled) for _ in range(5)) <= 0.35


def test_modules_do_nothing_when_imported(tmp_path: Path) -> None:
    # The build hook belongs to the build system; torch's and its users' modules need torch.
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "qwen_edge").rglob("*.py"))
        if path.stem not in ("__main__", "build_hook")
    ]
    code = (
        "import importlib, sys, threading\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name.removesuffix('.__init__'))\n"
        "    except ModuleNotFoundError as error:\n"
        "        assert not error.name.startswith('qwen_edge'), error\n"
        "print(threading.active_count(), end='')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1", "")
    assert not list(tmp_path.iterdir())
