"""The program around its commands: dispatch, help, completion, errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qwen_edge
from qwen_edge.cli import bench, chat
from qwen_edge.cli import run as run_command
from qwen_edge.cli.commands import COMMANDS
from qwen_edge.cli.model_options import ENGINE_OPTIONS, MODEL_OPTIONS
from qwen_edge.cli.options import Option, Values, parse_plain, typer_command
from qwen_edge.cli.text_cells import cell_width
from tests.cli.program import PROGRAM, environment, run

TABLES = {"run": run_command.OPTIONS, "chat": chat.OPTIONS, "bench": bench.OPTIONS}


def test_version(home: Path) -> None:
    expected = f"qwen-edge {qwen_edge.__version__}\n"
    assert run(home, "--version").stdout == expected
    # Through typer, as any other order of options goes.
    assert run(home, "--version", "run").stdout == expected


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_all_commands(home: Path, arguments: tuple[str, ...]) -> None:
    done = run(home, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for name, text in COMMANDS.items():
        assert f"  {name}" in done.stdout
        assert text in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(home: Path, name: str) -> None:
    done = run(home, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: qwen-edge {name} ")


def test_listing_commands_imports_none_of_them(home: Path) -> None:
    code = (
        "import sys; from qwen_edge.cli.app import run_program\n"
        "run_program(['--help'])\n"
        "print([m for m in sys.modules if m.startswith('qwen_edge.session')], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(home),
        check=True,
    )
    assert done.stderr == "[]\n"


def test_help_is_chinese_in_a_chinese_locale(home: Path) -> None:
    done = run(home, "run", "--help", changes={"LC_ALL": "zh_CN.UTF-8"})
    assert "使用的模型。" in done.stdout
    assert "与模型对话。" in run(home, "--help", changes={"LC_ALL": "zh_CN.UTF-8"}).stdout


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_fits_the_terminal(home: Path, language: str, columns: int) -> None:
    variables = {"QWEN_EDGE_LANG": language, "COLUMNS": str(columns)}
    for command in ((), *((name,) for name in COMMANDS), ("models", "list")):
        done = run(home, *command, "--help", changes=variables)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert max(map(cell_width, lines)) <= columns, lines
        assert "..." not in done.stdout.partition("\n\n")[2]
        options = "选项：" if language == "zh" else "Options:"
        assert options in lines


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rum",), "hint: Did you mean run?"),
        (("xyzzy",), "hint: Commands: chat, run,"),
        (("--nonsense",), "No such option: --nonsense"),
        (("run", "--nonsense"), "hint: See `qwen-edge run --help`."),
        (("run", "--max-tokens"), "requires an argument"),
        (("run", "--max-tokens", "-1", "hi"), "'-1' is no value for max-tokens (--max-tokens)."),
        (("run", "--max-tokens=many", "hi"), "hint: Allowed: 1 to 1048576."),
        (("run", "--temperature", "nan", "hi"), "'nan' is no value for temperature"),
        (("run", "--logprobs", "3", "hi"), "--logprobs works with --json only."),
        (("run", "--json", "--logprobs", "x", "hi"), "--logprobs takes a number from 0 to 100"),
        (("run", "--kv", "int3", "hi"), "'int3' is no value for kv"),
        (("chat", "surplus"), "hint: See `qwen-edge chat --help`."),
    ],
)
def test_usage_errors(home: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(home, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_are_chinese_in_a_chinese_locale(home: Path) -> None:
    done = run(home, "run", "-m", "nothing", "hi", changes={"LANG": "zh_CN.UTF-8", "LC_ALL": ""})
    assert done.returncode == 3
    assert done.stderr.startswith("错误：")
    assert "\n提示：" in done.stderr
    forced = run(
        home,
        "run", "-m", "nothing", "hi",
        changes={"LC_ALL": "zh_CN.UTF-8", "QWEN_EDGE_LANG": "en"},
    )  # fmt: skip
    assert forced.stderr.startswith("error: ")


def test_exit_codes_of_models(home: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.qedge"
    damaged.write_bytes(b"no model at all")
    assert run(home, "run", "-m", "./absent.qedge", "hi").returncode == 3
    assert run(home, "run", "-m", str(damaged), "hi").returncode == 5
    assert run(home, "run", "-m", "demo", "--memory-cap", "1MB", "hi").returncode == 4


def fail_with(home: Path, failure: str, *, home_is_writable: bool = True) -> tuple[int, str]:
    """Runs the program with a command that raises."""
    if not home_is_writable:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.write_text("a file, not a folder")
    code = (
        "import sys, qwen_edge.cli.run as command\n"
        "from qwen_edge.cli.app import run_program\n"
        f"def main(values): raise {failure}\n"
        "command.main = main\n"
        "sys.exit(run_program(['run', 'hi']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(home),
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_the_unexpected_is_a_sentence_and_a_log(home: Path) -> None:
    code, said = fail_with(home, "RuntimeError('private prompt')")
    log = home / "last-error.log"
    assert code == 1
    assert said.splitlines() == [
        "error: Something unexpected happened: RuntimeError.",
        f"hint: The details are in {log}; please send them with a report.",
    ]
    assert "RuntimeError: private prompt" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_written_is_not_mentioned(home: Path) -> None:
    code, said = fail_with(home, "RuntimeError", home_is_writable=False)
    assert (code, said) == (1, "error: Something unexpected happened: RuntimeError.\n")


def test_memory_and_interrupts_have_their_codes(home: Path) -> None:
    code, said = fail_with(home, "MemoryError")
    assert (code, said.splitlines()[0]) == (4, "error: Memory ran out.")
    assert fail_with(home, "KeyboardInterrupt") == (130, "")
    assert fail_with(home, "BrokenPipeError") == (0, "")


def shell(home: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in which ``qe`` is the program."""
    program = " ".join(f"'{part}'" for part in PROGRAM)
    return subprocess.run(
        ["bash", "-c", f'qe() {{ {program} "$@"; }}\n{script}'],
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["run --help", "--help", "config keys"])
def test_a_reader_that_leaves_ends_the_program_quietly(home: Path, command: str) -> None:
    done = shell(home, f'qe {command} | head -c 10; echo "[${{PIPESTATUS[0]}}]"')
    assert done.stdout.endswith("[0]\n")
    assert done.stderr == ""


def test_closed_and_full_standard_output(home: Path) -> None:
    closed = shell(home, "qe config keys >&-")
    assert (closed.returncode, closed.stderr) == (0, "")
    full = shell(home, "qe config keys >/dev/full")
    assert full.returncode == 1
    assert full.stderr.startswith("error: Writing to standard output failed: No space left")
    assert "Traceback" not in full.stderr


def complete(home: Path, *words: str) -> list[str]:
    """What bash would offer for the last word."""
    done = subprocess.run(
        PROGRAM,
        capture_output=True,
        text=True,
        env=environment(
            home,
            _QWEN_EDGE_COMPLETE="complete_bash",
            COMP_WORDS=" ".join(["qwen-edge", *words]),
            COMP_CWORD=str(len(words)),
        ),
        check=False,
    )
    return done.stdout.split()


def test_completion_knows_commands_options_and_models(home: Path) -> None:
    models = home / "models"
    models.mkdir(parents=True)
    (models / "Qwen3-0.6B.qedge").write_bytes(b"")
    assert complete(home, "mo") == ["models"]
    assert set(complete(home, "")) == set(COMMANDS)
    assert complete(home, "run", "--temp") == ["--temperature"]
    assert complete(home, "run", "--model", "Q") == ["Qwen3-0.6B"]
    assert complete(home, "chat", "-m", "d") == ["demo"]
    assert complete(home, "run", "--kv", "i") == ["int8", "int4"]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_scripts(home: Path, name: str) -> None:
    done = subprocess.run(
        [*PROGRAM, "--show-completion", name],
        capture_output=True,
        text=True,
        env=environment(home, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"),
        check=False,
    )
    assert done.returncode == 0
    assert "_QWEN_EDGE_COMPLETE" in done.stdout


def through_typer(options: tuple[Option, ...], argv: list[str]) -> Values | None:
    """The values that typer reads, None where it complains."""
    seen: list[Values] = []

    def note(values: Values) -> int:
        seen.append(values)
        return 0

    command = typer_command("x", options, note, "")
    try:
        with command.make_context("x", list(argv)) as context:
            command.invoke(context)
    except Exception:
        return None
    (values,) = seen
    # Typer may give a list that was not given as a tuple.
    return Values({key: [*v] if isinstance(v, (list, tuple)) else v for key, v in values.items()})


FLAGS = sorted({flag for table in TABLES.values() for option in table for flag in option.flags})
WORDS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(["--no-think", "--", "-", "--model=a=b", "--json=1", "-mx", "--max-tokens="]),
    st.sampled_from(["hi", "-1", "", "a b", "--nonsense", "-h", "世界"]),
)


@pytest.mark.parametrize("name", TABLES)
@settings(deadline=None, max_examples=150)
@given(argv=st.lists(WORDS, max_size=7))
def test_the_plain_parser_reads_what_typer_reads(name: str, argv: list[str]) -> None:
    options = TABLES[name]
    plain = parse_plain(argv, options)
    if plain is not None:
        assert plain == through_typer(options, argv)


def test_the_plain_parser_takes_ordinary_lines() -> None:
    argv = ["-m", "demo", "hello", "--top-p=0.5", "--stop", "a", "--stop=b", "--no-think", "you"]
    values = parse_plain(argv, run_command.OPTIONS)
    assert values is not None
    assert values.text("model") == "demo"
    assert values.many("prompt") == ["hello", "you"]
    assert values.text("top_p") == "0.5"
    assert values.many("stop") == ["a", "b"]
    assert values["thinking"] is False
    assert values["json"] is None
    rest = parse_plain(["--", "--model", "-x"], run_command.OPTIONS)
    assert rest is not None
    assert rest.many("prompt") == ["--model", "-x"]
    for unusual in (["--help"], ["--model"], ["--nonsense"], ["-mdemo"], ["--json=yes"]):
        assert parse_plain(unusual, run_command.OPTIONS) is None


def test_options_are_named_once() -> None:
    for table in TABLES.values():
        flags = [flag for option in table for flag in (*option.flags, option.off) if flag]
        assert len(flags) == len(set(flags))
        # A command may say more of an option, but calls it the same.
        assert {option.flags for option in ENGINE_OPTIONS} <= {option.flags for option in table}
    assert set(MODEL_OPTIONS) <= set(run_command.OPTIONS) & set(chat.OPTIONS)


def test_environment_and_file_reach_the_settings(home: Path) -> None:
    assert run(home, "config", "set", "context", "256").returncode == 0
    done = run(
        home, "run", "-m", "demo", "--explain", "--top-k", "3", changes={"QWEN_EDGE_SEED": "5"}
    )
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stderr.splitlines() if line}
    assert "256" in lines["context"]
    assert "config.toml" in lines["context"]
    assert "QWEN_EDGE_SEED" in lines["seed"]
    assert "--top-k" in lines["top-k"]
    assert done.stdout == ""


def test_python_m_and_json_stay_parsable(home: Path) -> None:
    done = run(home, "models", "--help")
    assert done.returncode == 0
    listed = run(home, "models", "list", "--json")
    assert isinstance(json.loads(listed.stdout), list)
    assert os.path.isabs(run(home, "config", "path").stdout.strip())
