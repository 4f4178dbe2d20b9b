"""The Python API."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import qwen_edge
from qwen_edge.engine.stats import GenerationStats
from qwen_edge.errors import MemoryLimitError, ModelNotFoundError, UsageError


@pytest.fixture(scope="module")
def llm() -> Iterator[qwen_edge.LLM]:
    with qwen_edge.load("demo", context=512, threads=1) as loaded:
        yield loaded


EXACT = {"temperature": 0.0, "thinking": False}


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import qwen_edge; qwen_edge.__version__\n"
        "print(sorted(set(sys.modules) - before - {'__future__', 'typing'}))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    added = eval(done.stdout)
    assert [name for name in added if name.startswith("qwen_edge")] == ["qwen_edge"]


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lood'"):
        qwen_edge.lood  # noqa: B018


def test_a_prompt_and_a_conversation_are_answered(llm: qwen_edge.LLM) -> None:
    prompt = llm.chat("Hello!", **EXACT)
    messages = llm.chat([{"role": "user", "content": "Hello!"}], **EXACT)
    assert prompt.text == messages.text != ""
    assert prompt.prompt_ids == messages.prompt_ids
    assert prompt.finish_reason == prompt.stats.finish_reason == "stop"
    assert len(prompt.ids) == len(prompt.steps) == prompt.stats.generated_tokens
    system = llm.chat(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}],
        **EXACT,
    )
    assert len(system.prompt_ids) > len(prompt.prompt_ids)


def test_the_cache_is_kept_between_calls(llm: qwen_edge.LLM) -> None:
    llm.chat("Hello!", **EXACT)
    again = llm.chat("Hello!", **EXACT)
    assert again.stats.cached_tokens == len(again.prompt_ids) - 1


def test_a_stream_yields_text_and_then_statistics(llm: qwen_edge.LLM) -> None:
    *pieces, stats = llm.stream("Hello!", **EXACT)
    assert isinstance(stats, GenerationStats)
    assert all(isinstance(piece, str) and piece for piece in pieces)
    assert "".join(map(str, pieces)) == llm.chat("Hello!", **EXACT).text


def test_thoughts_are_told_apart(llm: qwen_edge.LLM) -> None:
    answer = llm.chat("What is 2 + 2?", temperature=0.0, thinking=True, max_tokens=200)
    assert answer.thinking
    assert "<think>" not in answer.thinking + answer.text
    *pieces, _ = llm.stream("What is 2 + 2?", temperature=0.0, thinking=True, max_tokens=200)
    assert "".join(map(str, pieces)) == answer.text


def test_options_of_one_call(llm: qwen_edge.LLM) -> None:
    whole = llm.chat("Hello!", **EXACT)
    assert llm.chat("Hello!", max_tokens=2, **EXACT).ids == whole.ids[:2]
    stopped = llm.chat("Hello!", stop=whole.text[3:5], **EXACT)
    assert stopped.text == whole.text[: whole.text.index(whole.text[3:5])]
    likely = llm.chat("Hello!", logprobs=2, **EXACT)
    assert all(step.top[0][0] == step.id and len(step.top) == 2 for step in likely.steps)
    drawn = [
        llm.chat("Hello!", thinking=False, temperature=2, top_p=1.0, seed=seed).text
        for seed in (3, 3, 4)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"max_tokens": 0},
        {"top_p": 0},
        {"seed": "x"},
        {"logprobs": -1},
        {"thinking_budget": 0},
        {"tempreature": 1},
    ],
)
def test_bad_options_are_usage_errors(llm: qwen_edge.LLM, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        llm.chat("Hello!", **options)  # type: ignore[arg-type]
    assert llm.chat("Hello!", **EXACT).text


@pytest.mark.parametrize("messages", [[], [{"content": "x"}], [{"role": "user"}], [3]])
def test_bad_messages_are_usage_errors(llm: qwen_edge.LLM, messages: object) -> None:
    with pytest.raises(UsageError):
        llm.chat(messages, **EXACT)  # type: ignore[arg-type]


def test_a_prompt_that_does_not_fit_is_a_usage_error(llm: qwen_edge.LLM) -> None:
    with pytest.raises(UsageError, match="context holds 512"):
        llm.chat("word " * 1000, **EXACT)


def test_one_answer_at_a_time(llm: qwen_edge.LLM) -> None:
    stream = llm.stream("Hello!", **EXACT)
    next(stream)
    with pytest.raises(UsageError, match="busy"):
        llm.chat("Hello!", **EXACT)
    with pytest.raises(UsageError, match="busy"):
        llm.close()
    refused: list[Exception] = []

    def ask() -> None:
        try:
            llm.chat("Hello!", **EXACT)
        except UsageError as error:
            refused.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert len(refused) == 1
    stream.close()  # type: ignore[attr-defined]
    assert llm.chat("Hello!", **EXACT).text


def test_an_interrupt_leaves_the_model_usable(llm: qwen_edge.LLM) -> None:
    expected = llm.chat("Hello!", **EXACT).text
    for attempt in range(20):
        timer = threading.Timer(0.002 * attempt, signal.raise_signal, [signal.SIGINT])
        with contextlib.suppress(KeyboardInterrupt):
            timer.start()
            llm.chat("Tell me a long story.", temperature=5.0, top_p=1.0, max_tokens=400)
            timer.join()
            # A signal raised in another thread reaches this one a moment later.
            time.sleep(0.01)
        assert llm.chat("Hello!", **EXACT).text == expected


def test_a_closed_model_says_so() -> None:
    loaded = qwen_edge.load("demo", context=64)
    loaded.close()
    loaded.close()
    with pytest.raises(UsageError, match="closed"):
        loaded.chat("Hello!")


def test_loading_fails_as_the_command_line_does() -> None:
    with pytest.raises(ModelNotFoundError):
        qwen_edge.load("./absent.qedge")
    with pytest.raises(UsageError, match="no setting"):
        qwen_edge.load("demo", contxt=3)
    with pytest.raises(UsageError):
        qwen_edge.load("demo", context=1)
    with pytest.raises(MemoryLimitError):
        qwen_edge.load("demo", memory_cap="1MB")


def test_loading_leaves_the_process_uncapped() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with qwen_edge.load("demo", context=64):
        assert resource.getrlimit(resource.RLIMIT_AS) == before
    with qwen_edge.load("demo", context=64, memory_cap="500MB"):
        assert resource.getrlimit(resource.RLIMIT_AS) != before
    assert resource.getrlimit(resource.RLIMIT_AS) == before
