"""Adapters through the program: asked with, switched in a chat, merged, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qwen_edge.model.packed import open_model
from qwen_edge.session.models import demo_path
from tests.cli.program import EXACT, run, terminal
from tests.cli.running import TINY
from tests.cli.test_convert import write_checkpoint
from tests.model.adapters import random_pairs, write_adapter

DEMO = ("-m", "demo")
SYSTEM = "You are a friendly helper that knows about rivers and mountains and towns. " * 5


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that makes another model of the demo."""
    with open_model(demo_path()) as model:
        pairs = random_pairs(model.config, 16, size=12)
    return write_adapter(tmp_path_factory.mktemp("adapters") / "other", pairs, 16)


def answer(home: Path, *arguments: str, **changes: str) -> dict[str, object]:
    done = run(home, "run", *DEMO, *EXACT, "-n", "20", "--json", *arguments, changes=changes)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_flag_environment_and_file(home: Path, adapter: Path) -> None:
    plain = answer(home, "Hello!")["ids"]
    adapted = answer(home, "--lora", str(adapter), "Hello!")["ids"]
    assert plain != adapted
    weights = str(adapter / "adapter_model.safetensors")
    assert answer(home, "Hello!", QWEN_EDGE_LORA=weights)["ids"] == adapted
    assert answer(home, "--lora", "off", "Hello!", QWEN_EDGE_LORA=weights)["ids"] == plain
    assert answer(home, "--lora", str(adapter), "--lora-scale", "0", "Hello!")["ids"] == plain
    assert run(home, "config", "set", "lora", str(adapter)).returncode == 0
    assert answer(home, "Hello!")["ids"] == adapted
    done = run(home, "run", *DEMO, *EXACT, "--explain", "Hello!")
    assert f"{adapter} (file" in done.stderr
    assert "The adapter other has rank 16 and takes" in done.stderr


def test_it_is_part_of_the_predicted_peak(home: Path, adapter: Path) -> None:
    peaks = [
        json.loads(run(home, "doctor", *DEMO, "--json", changes=changes).stdout)
        for changes in ({}, {"QWEN_EDGE_LORA": str(adapter)})
    ]
    plain, adapted = (peak["configuration"]["predicted_peak"] for peak in peaks)
    weights = 2 * 16 * 5 * (4 * 256 + 2 * 128 + 5 * 256 + 3 * 768 + 3 * 256)
    assert adapted - plain > weights / 2


@pytest.mark.parametrize("system", [True, False])
def test_computed_prompts_belong_to_their_adapter(
    home: Path, adapter: Path, system: bool, tmp_path: Path
) -> None:
    """What was computed with an adapter is of no use without it, nor the other way round."""
    kept = ("-s", SYSTEM) if system else ("--prompt-cache", str(tmp_path / "my.prompt"))
    text = "Hello!" if system else SYSTEM
    with_it = ("--lora", str(adapter))
    fresh = [answer(tmp_path / "fresh", "--prompt-cache-size", "off", *options,
                    *(("-s", SYSTEM) if system else ()), text)["ids"]
             for options in ((), with_it)]  # fmt: skip
    for options, ids, cached in (
        ((), fresh[0], False),
        (with_it, fresh[1], False),
        (with_it, fresh[1], True),
        ((), fresh[0], system),
    ):
        found = answer(home, *kept, *options, text)
        usage = found["usage"]
        assert isinstance(usage, dict)
        assert (usage["cached_tokens"] > 0) == cached
        assert found["ids"] == ids


def test_a_chat_switches_adapters(home: Path, adapter: Path) -> None:
    lines = ["Hello!", f"/lora {adapter}", "/lora", "What is 2 + 2?", "/lora off", "/lora",
             "And 3 + 3?"]  # fmt: skip
    done = run(home, "chat", *DEMO, *EXACT, "-n", "20", "--stats", stdin="\n".join(lines).encode())
    assert done.returncode == 0, done.stderr
    said = done.stderr
    assert "The adapter other, rank 16, from here on; the conversation is read anew" in said
    assert "The adapter other, rank 16, takes" in said
    assert "No adapter from here on; the conversation is read anew without it." in said
    assert "There is no adapter; write /lora PATH." in said
    assert said.count("(0 cached)") == 3
    conversations = list((home / "conversations").glob("*.json"))
    (saved,) = (json.loads(path.read_text()) for path in conversations)
    asked = [each["content"] for each in saved["messages"] if each["role"] == "user"]
    assert asked == ["Hello!", "What is 2 + 2?", "And 3 + 3?"]


def test_the_answer_is_that_of_the_adapter(home: Path, tmp_path: Path, adapter: Path) -> None:
    switched = run(
        home, "chat", *DEMO, *EXACT, "-n", "20",
        stdin=f"Hello!\n/clear\n/lora {adapter}\nWho are you?\n".encode(),
    )  # fmt: skip
    direct = run(
        tmp_path / "other", "chat", *DEMO, *EXACT, "-n", "20", "--lora", str(adapter),
        stdin=b"Who are you?\n",
    )  # fmt: skip
    assert direct.stdout
    assert switched.stdout.endswith(direct.stdout)


def test_at_a_terminal(home: Path, tmp_path: Path, adapter: Path) -> None:
    """A wrong path is told of and changes nothing; the note is one dim line."""
    with terminal(home, "chat", *DEMO, *EXACT, "-n", "20", columns=200) as screen:
        screen.wait_for("Ctrl-D leaves")
        screen.wait_for("> ")
        screen.send(f"/lora {tmp_path / 'none'}\r")
        screen.wait_for("There is no adapter")
        screen.wait_for("> ")
        screen.send(f"/lora {adapter}\r")
        screen.wait_for("\x1b[2mThe adapter other, rank 16, from here on.\x1b[0m\n")
        screen.wait_for("> ")
        screen.send("Hello!\r")
        screen.wait_for("\n> ")
        screen.send("/lora off\r")
        screen.wait_for("the conversation is read anew without it.")
        screen.wait_for("> ")
        screen.send("\x04")
        assert screen.finish() == 0


def test_what_a_run_refuses(home: Path, tmp_path: Path) -> None:
    with open_model(demo_path()) as model:
        config = model.config
    good = random_pairs(config, 4)
    bad = {name: (a * np.float32(np.nan), b) for name, (a, b) in good.items()}
    cases = [
        (str(tmp_path / "none"), 3, "no adapter"),
        (str(tmp_path), 3, "adapter_model.safetensors"),
        (str(write_adapter(tmp_path / "high", random_pairs(config, 65), 65)), 2, "rank 65"),
        (str(write_adapter(tmp_path / "dora", good, 4, use_dora=True)), 2, "DoRA"),
        (str(write_adapter(tmp_path / "rank", good, 5)), 5, "rank 4"),
        (str(write_adapter(tmp_path / "nan", bad, 4)), 5, "not finite"),
        (str(write_adapter(tmp_path / "tiny", random_pairs(TINY, 4), 4)), 5, "model's is"),
    ]
    for path, code, said in cases:
        done = run(home, "run", *DEMO, "--lora", path, "Hello!")
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert said in done.stderr
        assert "hint:" in done.stderr
        assert "Traceback" not in done.stderr
        told = run(home, "doctor", *DEMO, changes={"QWEN_EDGE_LORA": path})
        assert "Traceback" not in told.stderr + told.stdout


def test_an_adapter_beyond_the_memory(home: Path, tmp_path: Path) -> None:
    with open_model(demo_path()) as model:
        large = write_adapter(tmp_path / "large", random_pairs(model.config, 64), 64)
    small = {"QWEN_EDGE_CONTEXT": "512", "QWEN_EDGE_KV": "int8"}
    report = json.loads(run(home, "doctor", *DEMO, "--json", changes=small).stdout)
    capped = small | {
        "QWEN_EDGE_MEMORY_CAP": str(report["configuration"]["predicted_peak"] + (1 << 20))
    }
    done = run(home, "run", *DEMO, "--lora", str(large), "Hi", changes=capped)
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    lines = f"/lora {large}\nHello!\n".encode()
    chat = run(home, "chat", *DEMO, *EXACT, "-n", "5", stdin=lines, changes=capped)
    assert "needs" in chat.stderr
    assert chat.returncode == 0, chat.stderr
    assert chat.stdout


def test_convert_merges(home: Path, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "Tiny", TINY)
    first = write_adapter(tmp_path / "one", random_pairs(TINY, 4, 1), 4)
    second = write_adapter(tmp_path / "two", random_pairs(TINY, 8, 2), 8)
    done = run(
        home, "convert", str(source), "--lora", str(first), "--lora", str(second),
        "--lora-scale", "1", "--lora-scale", "-0.5", "--method", "nearest",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = home / "models" / "Tiny-one-two-int4.qedge"
    assert done.stdout == f"{path}\n"
    info = json.loads(run(home, "models", "info", str(path), "--json").stdout)
    assert info["quantization"]["merged"] == "one x 1, two x -0.5"


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (("--lora", "none"), 3, "no adapter none"),
        (("--lora-scale", "2"), 2, "--lora-scale"),
        (("--lora", "a", "--lora", "b", "--lora", "c", "--lora-scale", "1", "--lora-scale", "2"), 2,
         "3 --lora and 2"),
        (("--lora", "a", "--lora-scale", "1000"), 2, "-100 to 100"),
    ],
)  # fmt: skip
def test_what_convert_refuses(
    home: Path, tmp_path: Path, extra: tuple[str, ...], code: int, said: str
) -> None:
    source = write_checkpoint(tmp_path / "Tiny", TINY)
    done = run(home, "convert", str(source), "-o", str(tmp_path / "m.qedge"), *extra)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "m.qedge").exists()


def test_evaluations_have_it_and_what_they_compare_with_has_not(
    home: Path, adapter: Path, tmp_path: Path
) -> None:
    text, kept = tmp_path / "text.txt", tmp_path / "plain.ref"
    text.write_text("Once upon a time there was a ship. What is 8 times 7? 56.\n" * 60)
    usual = ("eval", *DEMO, "--json", "--limit", "1")
    done = run(home, *usual, "--text", str(text), "--save-reference", str(kept))
    assert done.returncode == 0, done.stderr
    plain = json.loads(done.stdout)
    assert "adapter" not in plain["model"]
    with_it = ("--lora", str(adapter), "--lora-scale", "0.5")
    perplexity = plain["perplexity"]["perplexity"]
    for compared in (
        ("--text", str(text), "--against", "demo", *with_it),
        ("--reference", str(kept), *with_it),
    ):
        done = run(home, *usual, *compared)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["model"]["adapter"] == "other x 0.5"
        assert found["perplexity"]["perplexity"] != perplexity
        divergence = found["divergence"]
        assert divergence["reference_perplexity"]["perplexity"] == perplexity
        assert "adapter" not in divergence["reference"]
        assert divergence["kl"]["mean"] > 0.001
    # Without the adapter, or with nothing of it, nothing diverges.
    for none in ((), ("--lora", str(adapter), "--lora-scale", "0")):
        found = json.loads(run(home, *usual, "--reference", str(kept), *none).stdout)
        assert found["perplexity"]["perplexity"] == perplexity
    done = run(home, "eval", *DEMO, "--limit", "1", "--reference", str(kept), *with_it)
    assert "with the adapter other x 0.5" in done.stdout
