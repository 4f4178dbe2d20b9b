"""``--prompt-cache`` and the computed system prompts, as users meet them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.program import EXACT, run

SYSTEM = "You answer shortly and to the point, and you are always friendly about it. " * 8
CHINESE = "你的回答简短、切题，而且总是很友好。" * 12


def ask(home: Path, *arguments: str, **variables: str) -> tuple[dict[str, object], str]:
    """The JSON of an answer, and what was written beside it."""
    done = run(
        home, "run", "-m", "demo", *EXACT, "--json", "-n", "12", *arguments, changes=variables
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def cached(answer: dict[str, object]) -> int:
    usage = answer["usage"]
    assert isinstance(usage, dict)
    return int(usage["cached_tokens"])


@pytest.mark.parametrize("system", [SYSTEM, CHINESE])
def test_a_system_prompt_is_computed_once(tmp_path: Path, system: str) -> None:
    off = ask(tmp_path, "-s", system, "Hello!", "--prompt-cache-size", "off")[0]
    assert not (tmp_path / "prompts").exists()
    first, second, third = (
        ask(tmp_path, "-s", system, question)[0] for question in ("Hello!", "Hello!", "你好！")
    )
    assert off["ids"] == first["ids"] == second["ids"]
    assert cached(off) == cached(first) == 0
    assert cached(second) == cached(third) > 64


def test_the_setting_switches_it_off(tmp_path: Path) -> None:
    for _ in range(2):
        answer, _ = ask(tmp_path, "-s", SYSTEM, "Hello!", QWEN_EDGE_PROMPT_CACHE_SIZE="off")
        assert cached(answer) == 0
    assert not (tmp_path / "prompts").exists()


def test_models_and_doctor_tell_of_it_and_clear_it(tmp_path: Path) -> None:
    assert "Computed prompts" not in run(tmp_path, "models").stderr
    ask(tmp_path, "-s", SYSTEM, "Hello!")
    listed = run(tmp_path, "models")
    assert "Computed prompts: 1," in listed.stderr
    assert "models clear-cache" in listed.stderr
    report = run(tmp_path, "doctor", "-m", "demo").stdout
    assert "Prompts" in report
    assert "1 computed" in report
    assert str(tmp_path / "prompts") in report.replace("\n", "").replace(" ", "")
    facts = json.loads(run(tmp_path, "doctor", "--json").stdout)["computed_prompts"]
    assert facts["path"] == str(tmp_path / "prompts")
    assert (facts["prompts"], facts["size"] > 0) == (1, True)
    cleared = run(tmp_path, "models", "clear-cache", changes={"QWEN_EDGE_LANG": "zh"})
    assert cleared.returncode == 0
    assert cleared.stderr.startswith("已删除 1 个")
    assert list((tmp_path / "prompts").iterdir()) == []


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = str(tmp_path / "my.prompt")
    plain, _ = ask(tmp_path, "What is 2 + 3?")
    first, notes = ask(tmp_path, "--prompt-cache", file, "What is 2 + 3?")
    second, more = ask(tmp_path, "--prompt-cache", file, "What is 2 + 3?")
    assert plain["ids"] == first["ids"] == second["ids"]
    prompt = second["prompt_ids"]
    assert isinstance(prompt, list)
    assert (cached(first), cached(second)) == (0, len(prompt) - 1)
    assert notes == more == ""


def test_one_note_about_a_damaged_file(tmp_path: Path) -> None:
    file = tmp_path / "my.prompt"
    plain, _ = ask(tmp_path, "--prompt-cache", str(file), "Hello!")
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    answer, notes = ask(tmp_path, "--prompt-cache", str(file), "Hello!")
    assert answer["ids"] == plain["ids"]
    assert notes == f"The prompt cache {file} is damaged; it is made anew.\n"
    assert file.read_bytes() == content
    file.write_bytes(content[:-1])
    _, notes = ask(tmp_path, "--prompt-cache", str(file), "Hello!", QWEN_EDGE_LANG="zh")
    assert notes == f"提示词缓存 {file} 已损坏，将重新生成。\n"


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for command in ("run", "chat"):
        done = run(tmp_path, command, "-m", "demo", "--prompt-cache", str(notes), stdin=b"Hello!\n")
        assert done.returncode == 2
        assert done.stdout == ""
        assert "exists and is not a prompt cache" in done.stderr
        assert "hint:" in done.stderr
    assert notes.read_text() == "mine"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "my.prompt"
    answer, notes = ask(tmp_path, "--prompt-cache", str(file), "Hello!")
    assert answer["text"]
    assert len(notes.splitlines()) == 1
    assert "cannot be written" in notes


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "my.prompt"
    ask(tmp_path, "--prompt-cache", str(file), "Hello!")
    file.chmod(0)
    _, notes = ask(tmp_path, "--prompt-cache", str(file), "Hello!")
    assert "cannot be read" in notes
    assert file.stat().st_mode & 0o777 == 0


def test_a_chat_goes_on_from_its_file(tmp_path: Path) -> None:
    file = str(tmp_path / "chat.prompt")
    first = run(
        tmp_path, "chat", "-m", "demo", *EXACT, "--prompt-cache", file,
        stdin=b"Hello!\nWhat is 2 + 3?\n",
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    second = run(
        tmp_path, "chat", "-m", "demo", *EXACT, "--prompt-cache", file, "--resume", "--stats",
        stdin=b"And 3 + 4?\n",
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert "(0 cached)" not in second.stderr
    assert "cached)" in second.stderr
