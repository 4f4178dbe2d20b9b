"""Thirty turns of a chat: memory stays, every turn is answered and its statistics are told."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.phone_chat import (
    MIB,
    Talk,
    TalkError,
    Weather,
    chat_command,
    faults_of,
    memory_group,
    questions,
    talk,
)
from qwen_edge.session.models import demo_path
from tests.cli.program import ENDLESS, SLOWLY, environment
from tests.session.hot_phone import HotPhone, hurried

TURNS = 30
# The context is full after a few turns.
SMALL = ("--context", "512", "-n", "48")
# What is told of a turn, some kilobytes each, is kept; of a demo's memory that is a larger share.
GROWTH = 0.05


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def small_questions(turns: int = TURNS) -> list[str]:
    return questions(turns, 300)


def command(*options: str, program: Sequence[str] | None = None) -> list[str]:
    chosen = {} if program is None else {"program": program}
    return chat_command(demo_path(), *SMALL, *options, **chosen)


@pytest.mark.parametrize("options", [(), ("--memory-cap", "64MiB"), ("--kv", "int4")])
def test_thirty_turns(home: Path, options: tuple[str, ...]) -> None:
    record = talk(command(*options), small_questions(), environment(home))
    assert faults_of(record, GROWTH) == []
    assert len(record["turns"]) == TURNS
    for turn in record["turns"]:
        assert turn["prompt"] > turn["cached"] >= 0
        assert min(turn["prefill_speed"], turn["speed"], turn["resident"], turn["file"]) > 0
        assert turn["reason"] in ("stop", "length")
    assert record["address_space_limit"] > record["turns"][-1]["virtual"]


def test_a_chat_on_a_hot_phone(home: Path, tmp_path: Path) -> None:
    phone = HotPhone(tmp_path / "phone")
    # Answers that end only where they must, one word a few milliseconds.
    chat = command("--threads", "2", *ENDLESS[:-2], "-n", "80", program=hurried(100))
    slow = environment(home, **SLOWLY, **phone.environ)
    record = talk(chat, questions(12, 150), slow, weather=Weather(phone, 12))
    assert faults_of(record, GROWTH, hot=True) == []


def test_thirty_turns_in_a_memory_group(home: Path) -> None:
    try:
        with memory_group(128 * MIB) as group:
            record = talk(command(), small_questions(), environment(home), group)
            assert record["group"]["limit_in_bytes"] == 128 * MIB
    except OSError as error:
        pytest.skip(f"no control groups: {error}")
    assert faults_of(record, GROWTH) == []


def test_a_chat_that_cannot_begin_is_told() -> None:
    with (
        Talk(chat_command(Path("missing.qedge")), dict(os.environ)) as chat,
        pytest.raises(TalkError, match="ended with 3"),
    ):
        chat.ask("Hello!")


def test_verdicts() -> None:
    turn = {"tokens": 5, "dropped": 2, "remarks": ()}
    good = {"exit_code": 0, "growth": 0.01, "turns": [turn] * 6}
    assert faults_of(good, 0.02) == []
    assert faults_of(good | {"growth": 0.03}, 0.02) == ["memory grew by 3.0%"]
    assert faults_of(good | {"exit_code": 4}, 0.02) == ["it ended with 4"]
    assert faults_of(good | {"turns": [turn, turn | {"tokens": 0}]}, 0.02) == [
        "no answer in turns [2]"
    ]
    assert faults_of(good | {"turns": [turn | {"dropped": 0}]}, 0.02) == [
        "the context was never full"
    ]
    assert "of a hot phone it said: " in faults_of(good, 0.02, hot=True)
