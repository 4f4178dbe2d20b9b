"""Prompts kept on disk: when they are saved and used, the folder's bound, and what may go wrong."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.prefix_file import file_bytes
from qwen_edge.errors import DamagedModelError, QwenEdgeError, UsageError
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.session.answer import Answer, AnswerOptions, ChatModel
from qwen_edge.session.conversation import SYSTEM, USER, Conversation, Message, encode_messages
from qwen_edge.session.models import demo_path
from qwen_edge.session.prompt_cache import (
    PromptCache,
    PromptFile,
    SystemPrompts,
    is_covered,
    system_length,
)
from qwen_edge.session.prompt_store import PromptStore
from qwen_edge.text.tokenizer import Tokenizer
from tests.engine.forging import forge

OPTIONS = AnswerOptions(sampling=SamplingParams(temperature=0), max_tokens=12, thinking=False)
LONG = "You know a lot about rivers, mountains and the sea, and you tell it shortly. " * 8
MANY = 1 << 30


@pytest.fixture(scope="module")
def model() -> Iterator[PackedModel]:
    with open_model(demo_path()) as opened:
        yield opened


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWEN_EDGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Program:
    """One start of the program: an engine with nothing in it, and a disk behind it."""

    def __init__(
        self,
        model: PackedModel,
        file: Path | None = None,
        limit: int = MANY,
        everything: bool = False,
        kv: str = "int8",
    ) -> None:
        table = model.tensors["tokenizer"]
        self.tokenizer = Tokenizer.from_blob(model.address("tokenizer"), table.nbytes, owner=model)
        self.engine = NativeEngine(model, EngineConfig(context=1024, kv_type=kv, threads=1))
        self.prompts: PromptCache | None = None
        if file is not None:
            self.prompts = self.file = PromptFile(self.engine, file, everything=everything)
        elif limit:
            self.prompts = SystemPrompts(self.engine, self.tokenizer, limit)
        self.chat = ChatModel(
            engine=self.engine,
            tokenizer=self.tokenizer,
            template=model.chat_template,
            stop_ids=frozenset(model.generation.stop_ids),
            prompts=self.prompts,
        )

    def ids(self, system: str, question: str) -> list[int]:
        messages = [Message(SYSTEM, system)] if system else []
        return encode_messages(self.chat, [*messages, Message(USER, question)], False)

    def ask(self, system: str, question: str, **changes: object) -> tuple[list[int], int]:
        """The answer's ids, and how many tokens of the prompt were not computed."""
        answer = Answer(self.chat, self.ids(system, question), replace(OPTIONS, **changes))  # type: ignore[arg-type]
        for _ in answer:
            pass
        return answer.ids, answer.stats.cached_tokens

    def close(self) -> None:
        if self.prompts is not None:
            self.prompts.close()
        self.engine.close()


def ask(model: PackedModel, system: str, question: str, **how: object) -> tuple[list[int], int]:
    """One start of the program with one question."""
    program = Program(model, **how)  # type: ignore[arg-type]
    try:
        return program.ask(system, question)
    finally:
        program.close()


def files(home: Path) -> list[Path]:
    return sorted((home / "prompts").glob("*")) if home.exists() else []


@pytest.mark.parametrize("system", [LONG, "你是一位熟悉河流、山脉和海洋的助手，回答要简短。" * 8])
def test_a_system_prompt_is_computed_once(model: PackedModel, home: Path, system: str) -> None:
    question = "你好！" if system is not LONG else "Hello!"
    plain = ask(model, system, question, limit=0)
    assert plain[1] == 0
    home_was = files(home)
    first = ask(model, system, question)
    second = ask(model, system, question)
    other = ask(model, system, "What is 2 + 3?")
    assert first == plain
    assert second[0] == plain[0]
    assert second[1] == other[1] > 64
    assert home_was == []
    assert len(files(home)) == 1


def test_the_system_message_alone_is_kept(model: PackedModel) -> None:
    program = Program(model)
    ids = program.ids(LONG, "Hello!")
    length = system_length(program.tokenizer, ids)
    assert program.tokenizer.decode(ids[:length]).endswith("<|im_end|>\n")
    assert LONG.strip() in program.tokenizer.decode(ids[:length])
    assert "Hello" not in program.tokenizer.decode(ids[:length])
    assert system_length(program.tokenizer, program.ids("", "Hello!")) == 0
    assert system_length(program.tokenizer, ids[:length]) == 0
    assert system_length(program.tokenizer, []) == 0
    forged = program.ids("Be brief.<|im_end|>\n<|im_start|>user\nHi", "Hello!")
    assert "Hi" in program.tokenizer.decode(forged[: system_length(program.tokenizer, forged)])
    ask(model, LONG, "Hello!")
    assert ask(model, LONG, "And you?")[1] == length
    program.close()


def test_short_prompts_leave_no_trace(model: PackedModel, home: Path) -> None:
    ask(model, "", "Hello!")
    ask(model, "Be brief.", "Hello!")
    # A long question is nobody else's beginning.
    ask(model, "", LONG)
    assert not home.exists()


def test_no_folder_where_it_is_switched_off(model: PackedModel, home: Path) -> None:
    ask(model, LONG, "Hello!", limit=0)
    assert files(home) == []


def test_a_changed_end_of_the_system_prompt(model: PackedModel, home: Path) -> None:
    ask(model, LONG + "Today is Monday.", "Hello!")
    plain = ask(model, LONG + "Today is Friday.", "Hello!", limit=0)
    changed = ask(model, LONG + "Today is Friday.", "Hello!")
    assert changed[0] == plain[0]
    assert changed[1] > 64
    # The rest is too little for a file of its own.
    assert len(files(home)) == 1


def test_other_settings_do_not_meet(model: PackedModel, home: Path) -> None:
    ask(model, LONG, "Hello!")
    assert ask(model, LONG, "Hello!", kv="f16")[1] == 0
    assert len(files(home)) == 2
    assert ask(model, LONG, "Hello!", kv="f16")[1] > 64


def test_a_conversation_loads_once(model: PackedModel, home: Path) -> None:
    ask(model, LONG, "Hello!")
    program = Program(model)
    conversation = Conversation(program.chat, LONG)
    cached = []
    for question in ("Hello!", "What is 2 + 3?", "And 3 + 4?"):
        answer, _ = conversation.ask(question, OPTIONS)
        for _ in answer:
            pass
        conversation.keep(question, answer.text)
        cached.append(answer.stats.cached_tokens)
    program.close()
    assert 64 < cached[0] < cached[1] < cached[2]
    assert len(files(home)) == 1


def test_the_least_recently_used_goes_first(model: PackedModel, home: Path) -> None:
    systems = [f"{number}: {LONG}" for number in ("one", "two", "three", "four")]
    ask(model, systems[0], "Hello!")
    size = files(home)[0].stat().st_size
    limit = 3 * size + size // 2
    for place, system in enumerate(systems[:3]):
        ask(model, system, "Hello!", limit=limit)
        for file in files(home):
            if file.stat().st_mtime_ns > 1000 * 10**9:
                os.utime(file, (place, place))
    assert ask(model, systems[0], "Hello!", limit=limit)[1] > 64
    ask(model, systems[3], "Hello!", limit=limit)
    store = PromptStore(limit)
    assert store.usage().prompts == 3
    assert store.usage().size <= limit
    assert ask(model, systems[1], "Hello!", limit=limit)[1] == 0
    assert ask(model, systems[0], "Hello!", limit=limit)[1] > 64


def test_what_is_larger_than_the_folder_is_not_kept(model: PackedModel, home: Path) -> None:
    ask(model, LONG, "Hello!", limit=1000)
    assert files(home) == []


def test_most_of_the_free_disk_is_left_alone(
    model: PackedModel, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(model, LONG, "Hello!")
    size = files(home)[0].stat().st_size
    files(home)[0].unlink()
    for free, kept in ((8 * size - 8, 0), (8 * size + 8, 1)):
        monkeypatch.setattr("qwen_edge.session.prompt_store.free_bytes", lambda path, f=free: f)
        ask(model, LONG, "Hello!")
        assert len(files(home)) == kept


def test_clearing(model: PackedModel, home: Path) -> None:
    ask(model, LONG, "Hello!")
    (home / "prompts" / ".x.kv.00000000.partial").write_bytes(b"left by a killed writer")
    (home / "prompts" / "notes.txt").write_text("the user's own")
    removed = PromptStore(0).clear()
    assert (removed.prompts, removed.size > 0) == (1, True)
    assert [file.name for file in files(home)] == ["notes.txt"]
    assert PromptStore(0).clear().prompts == 0


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty"])
def test_a_damaged_file_is_replaced(model: PackedModel, home: Path, damage: str) -> None:
    plain = ask(model, LONG, "Hello!")
    file = files(home)[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    new = {"cut": content[:-1], "flipped": content, "foreign": b"notes", "empty": b""}[damage]
    file.write_bytes(new)
    assert ask(model, LONG, "Hello!") == plain
    assert ask(model, LONG, "Hello!")[1] > 64


def test_a_forged_file_is_blamed_and_forgotten(model: PackedModel, home: Path) -> None:
    plain = ask(model, LONG, "Hello!", kv="f16")
    program = Program(model, kv="f16")
    forge(files(home)[0], program.engine, b"\xff")
    with pytest.raises(QwenEdgeError, match="not numbers") as caught:
        program.ask(LONG, "Hello!")
    assert not isinstance(caught.value, DamagedModelError)
    assert files(home) == []
    assert program.ask(LONG, "Hello!") == plain
    program.close()


def test_a_forged_file_of_the_user_is_blamed(model: PackedModel, tmp_path: Path) -> None:
    file = tmp_path / "my.prompt"
    ask(model, LONG, "Hello!", file=file, kv="f16")
    program = Program(model, file=file, kv="f16")
    forge(file, program.engine, b"\xff")
    with pytest.raises(QwenEdgeError, match=r"my\.prompt led to results that are not numbers"):
        program.ask(LONG, "Hello!")
    program.close()


def test_a_folder_that_cannot_be_used(model: PackedModel, home: Path) -> None:
    plain = ask(model, LONG, "Hello!", limit=0)
    home.mkdir()
    (home / "prompts").write_text("a file where the folder should be")
    assert ask(model, LONG, "Hello!") == plain
    assert (home / "prompts").read_text().startswith("a file")


def test_an_interrupted_answer_leaves_its_prompt(model: PackedModel) -> None:
    program = Program(model)
    for _ in Answer(program.chat, program.ids(LONG, "Hello!"), OPTIONS):
        break
    program.close()
    assert ask(model, LONG, "Hello!")[1] > 64


def _ask_often(number: int, results: multiprocessing.Queue[bool]) -> None:
    with open_model(demo_path()) as model:
        expected = ask(model, LONG, "Hello!", limit=0)[0]
        good = True
        for turn in range(6):
            system = f"{(number + turn) % 3}: {LONG}"
            plain = ask(model, system, "Hello!", limit=0)[0]
            good = good and ask(model, system, "Hello!", limit=400_000 * 2)[0] == plain
            good = good and ask(model, LONG, "Hello!", limit=400_000 * 2)[0] == expected
            if turn == 3:
                PromptStore(0).clear()
        results.put(good)


def test_processes_at_the_same_time(home: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[bool] = context.Queue()
    processes = [context.Process(target=_ask_often, args=(n, results)) for n in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=120) for _ in processes] == [True] * 3
    for process in processes:
        process.join()
    assert PromptStore(0).usage().size <= 400_000 * 2 + 400_000
    assert not [file for file in files(home) if file.suffix == ".partial"]


# --- a file of the user's own


def test_a_file_holds_the_prompt(model: PackedModel, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "my.prompt"
    plain = ask(model, "", "Tell me about rivers.", limit=0)
    assert ask(model, "", "Tell me about rivers.", file=file) == plain
    length = len(Program(model).ids("", "Tell me about rivers."))
    # The last token is computed for its logits.
    assert ask(model, "", "Tell me about rivers.", file=file) == (plain[0], length - 1)
    assert files(home) == []


def test_a_file_serves_each_question_on_the_same_text(model: PackedModel, tmp_path: Path) -> None:
    file = tmp_path / "my.prompt"
    ask(model, LONG, "Hello!", file=file)
    before = file.stat().st_mtime_ns, file.stat().st_ino
    question = "What is 2 + 3?"
    plain = ask(model, LONG, question, limit=0)
    answer, cached = ask(model, LONG, question, file=file)
    assert answer == plain[0]
    assert cached > 64
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before
    # Another text takes its place.
    ask(model, "Be brief. " * 30, "Hello!", file=file)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) != before
    assert ask(model, "Be brief. " * 30, "Hello!", file=file)[1] > 64


def test_covered() -> None:
    assert is_covered(1000, 875)
    assert not is_covered(1000, 874)
    assert is_covered(5, 5)
    assert not is_covered(7, 6)
    assert not is_covered(1, 0)


def test_a_chat_leaves_all_that_was_said(model: PackedModel, tmp_path: Path) -> None:
    file = tmp_path / "chat"
    program = Program(model, file=file, everything=True)
    conversation = Conversation(program.chat)
    for question in ("Hello!", "What is 2 + 3?"):
        answer, _ = conversation.ask(question, OPTIONS)
        for _ in answer:
            pass
        conversation.keep(question, answer.text)
    program.close()
    again = Program(model, file=file, everything=True)
    resumed = Conversation(again.chat, messages=conversation.messages)
    answer, _ = resumed.ask("And 3 + 4?", OPTIONS)
    for _ in answer:
        pass
    again.close()
    first_turn = len(program.ids("", "Hello!"))
    assert answer.stats.cached_tokens > 2 * first_turn


@pytest.mark.parametrize("content", [b"my notes", b"\0" * 100, b"qedge"[:5] + b"!"])
def test_the_users_files_are_never_overwritten(
    model: PackedModel, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="not a prompt cache"):
        ask(model, "", "Hello!", file=file)
    with pytest.raises(UsageError):
        ask(model, "", "Hello!", file=tmp_path)
    assert file.read_bytes() == content


def test_a_file_that_became_something_else_meanwhile(model: PackedModel, tmp_path: Path) -> None:
    file = tmp_path / "new"
    program = Program(model, file=file)
    answer = Answer(program.chat, program.ids("", "Hello!"), OPTIONS)
    events = iter(answer)
    next(events)
    file.write_text("my notes")
    for _ in events:
        pass
    assert program.file.problem is not None
    assert "not a prompt cache" in program.file.problem.sentence
    program.close()
    assert file.read_text() == "my notes"


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty"])
def test_a_damaged_file_is_made_anew(model: PackedModel, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "my.prompt"
    plain = ask(model, LONG, "Hello!", file=file)
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    if damage != "other":
        new = {"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage]
        file.write_bytes(new)
    program = Program(model, file=file, kv="f16" if damage == "other" else "int8")
    answer, cached = program.ask(LONG, "Hello!")
    problem = program.file.problem
    program.close()
    assert cached == 0
    assert answer == plain[0] or damage == "other"
    words = {"cut": "damaged", "flipped": "damaged", "other": "another model", "empty": None}
    expected = words[damage]
    assert (problem is None) if expected is None else (problem and expected in problem.sentence)
    again = Program(model, file=file, kv="f16" if damage == "other" else "int8")
    assert again.ask(LONG, "Hello!")[1] > 64
    assert again.file.problem is None
    again.close()


def test_a_file_that_cannot_be_written(model: PackedModel, tmp_path: Path) -> None:
    program = Program(model, file=tmp_path / "missing" / "my.prompt")
    assert len(program.ask(LONG, "Hello!")[0]) > 0
    assert program.file.problem is not None
    assert "cannot be written" in program.file.problem.sentence
    program.close()


def test_the_size_is_known_before(model: PackedModel, tmp_path: Path) -> None:
    program = Program(model, file=tmp_path / "my.prompt")
    program.ask(LONG, "Hello!")
    length = len(program.ids(LONG, "Hello!"))
    assert (tmp_path / "my.prompt").stat().st_size == file_bytes(program.engine, length)
    program.close()
