"""The packed tokenizer: refused definitions, damaged blobs, cost of loading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.errors import DamagedModelError, QwenEdgeError, UsageError
from qwen_edge.text.pack_tokenizer import pack_tokenizer
from qwen_edge.text.tokenizer import Tokenizer

ROUNDS = int(os.environ.get("QWEN_EDGE_TEST_CORRUPTIONS", "2000"))
ROOT = Path(__file__).resolve().parents[2]


def run_python(code: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, (result.returncode, result.stderr[-2000:])
    return result.stdout


def changed(definition: dict[str, Any], path: list[Any], value: object) -> bytes:
    """The definition as JSON with one value exchanged."""
    copy: dict[str, Any] = json.loads(json.dumps(definition))
    place: Any = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(copy).encode()


REGEX = ["pre_tokenizer", "pretokenizers", 0, "pattern", "Regex"]


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["model", "type"], "Unigram", "Unigram"),
        (["model", "byte_fallback"], True, "byte_fallback"),
        (["model", "ignore_merges"], True, "ignore_merges"),
        (["model", "unk_token"], "<unk>", "unk_token"),
        (["model", "dropout"], 0.1, "dropout"),
        (["model", "end_of_word_suffix"], "</w>", "end_of_word_suffix"),
        (["normalizer"], None, "normalizer null"),
        (["normalizer", "type"], "NFKC", "NFKC"),
        (REGEX, r"\p{L}+", "L}+"),
        (["pre_tokenizer", "pretokenizers", 0, "behavior"], "Removed", "Removed"),
        (["pre_tokenizer", "pretokenizers", 1, "add_prefix_space"], True, "add_prefix_space"),
        (["pre_tokenizer"], None, "pre-tokenizer null"),
        (["post_processor"], {"type": "TemplateProcessing"}, "TemplateProcessing"),
        (["decoder"], {"type": "Metaspace"}, "Metaspace"),
        (["added_tokens", 0, "lstrip"], True, "lstrip"),
        (["added_tokens", 0, "normalized"], True, "normalized"),
        (["model", "vocab", "plain space"], 2000, "plain space"),
    ],
)
def test_what_is_not_built_in_is_refused_by_name(
    small_definition: dict[str, Any], path: list[Any], value: object, named: str
) -> None:
    with pytest.raises(DamagedModelError, match="not supported") as refusal:
        pack_tokenizer(changed(small_definition, path, value))
    assert named in str(refusal.value).replace("\\\\", "\\")


def test_what_is_quoted_is_safe_for_a_terminal(small_definition: dict[str, Any]) -> None:
    hostile = "\ud800 \x1b[31m \u202e 中"
    with pytest.raises(DamagedModelError, match="not supported") as refusal:
        pack_tokenizer(changed(small_definition, ["decoder"], {"type": hostile}))
    assert str(refusal.value).isprintable()
    assert "\\ud800" in str(refusal.value)
    assert "中" in str(refusal.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["model"], []),
        (["model", "vocab"], []),
        (["model", "vocab", "a"], -1),
        (["model", "vocab", "a"], 10**15),
        (["model", "vocab", "a"], "7"),
        (["model", "vocab", "a"], 5),
        (["model", "merges"], {}),
        (["model", "merges", 3], ["a"]),
        (["model", "merges", 3], ["a", "no such token"]),
        (["model", "merges", 3], "one two three"),
        (["model", "merges", 3], 5),
        (["added_tokens"], {}),
        (["added_tokens", 1], {"content": "x"}),
        (["added_tokens", 1, "id"], 10**12),
        (["added_tokens", 1, "content"], "\ud800"),
        (["pre_tokenizer", "pretokenizers"], 5),
    ],
)
def test_malformed_definitions(
    small_definition: dict[str, Any], path: list[Any], value: object
) -> None:
    with pytest.raises(DamagedModelError):
        pack_tokenizer(changed(small_definition, path, value))


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"model":' * 5000]
)
def test_what_is_not_a_definition_at_all(text: bytes) -> None:
    with pytest.raises(DamagedModelError):
        pack_tokenizer(text)


def test_a_byte_without_token_is_refused(small_definition: dict[str, Any]) -> None:
    vocab = {token: id for token, id in small_definition["model"]["vocab"].items() if token != "Ġ"}
    with pytest.raises(DamagedModelError, match="0x20"):
        pack_tokenizer(changed(small_definition, ["model", "vocab"], vocab))


def test_merges_that_collide_too_often_are_refused(
    small_definition: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The native reader looks no further than this, so packing must stop there."""
    monkeypatch.setattr("qwen_edge.text.pack_tokenizer._MAX_PROBES", 0)
    with pytest.raises(DamagedModelError, match="spread"):
        pack_tokenizer(json.dumps(small_definition).encode())


@pytest.mark.parametrize("size", [0, 1, 8, 95, 96, 200, 5000])
def test_a_truncated_blob(
    blob: bytes, open_blob_of: Callable[[bytes], Tokenizer], size: int
) -> None:
    with pytest.raises(DamagedModelError):
        open_blob_of(blob[:size] or bytes(8))


def test_other_versions_and_magics(blob: bytes, open_blob_of: Callable[[bytes], Tokenizer]) -> None:
    with pytest.raises(DamagedModelError, match="version 2"):
        open_blob_of(blob[:8] + b"\x02" + blob[9:])
    with pytest.raises(DamagedModelError, match="does not start"):
        open_blob_of(b"X" + blob[1:])


def test_impossible_addresses() -> None:
    with pytest.raises(UsageError):
        Tokenizer.from_blob(0, 1000)
    with pytest.raises(UsageError):
        Tokenizer.from_blob(4097, 1000)


def test_bytes_after_the_blob_do_not_matter(
    blob: bytes, open_blob_of: Callable[[bytes], Tokenizer]
) -> None:
    assert open_blob_of(blob + bytes(100)).encode("Hello world") == [9707, 1879]


CORRUPTION = """
import ctypes, mmap, random, sys
from qwen_edge.errors import QwenEdgeError
from qwen_edge.text.tokenizer import Tokenizer
from tests.text.make_text import make_texts

original = open(sys.argv[1], "rb").read()
original += bytes(-len(original) % 8)
rounds, page = int(sys.argv[2]), mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
size = -(-len(original) // page) * page
memory = mmap.mmap(-1, size + page)
view = (ctypes.c_char * (size + page)).from_buffer(memory)
base = ctypes.addressof(view)
# The page after the blob cannot be read: reading past the end ends this process.
assert libc.mprotect(ctypes.c_void_p(base + size), page, 0) == 0
texts = make_texts(9, 40) + ["a" * 300, "<|im_end|>" * 20]
chance = random.Random(10)
opened = 0
for number in range(rounds):
    blob = bytearray(original)
    if number % 4 == 0:
        del blob[chance.randrange(len(blob)) // 8 * 8 :]
    # The header and the small tables more often than their size would have it.
    reach = chance.choice([96, 96, 4096, len(blob)])
    for _ in range(chance.choice([1, 1, 2, 8, 64])):
        if blob:
            place = chance.randrange(min(reach, len(blob)))
            blob[place] = chance.choice([blob[place] ^ 1 << chance.randrange(8), 0, 255])
    start = size - len(blob) // 8 * 8
    memory[start:size] = bytes(blob[: size - start])
    try:
        tokenizer = Tokenizer.from_blob(base + start, size - start, view)
        opened += 1
    except QwenEdgeError:
        continue
    for text in chance.sample(texts, 3) + texts[-2:]:
        try:
            ids = tokenizer.encode(text, allow_special=True)
            tokenizer.decode(ids)
            tokenizer.decode([chance.randrange(tokenizer.vocab_size) for _ in range(20)])
        except QwenEdgeError:
            pass
print(opened)
"""


def test_damage_anywhere_is_an_error_and_never_a_crash(
    small_definition: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer"
    path.write_bytes(pack_tokenizer(json.dumps(small_definition).encode()))
    opened = int(run_python(CORRUPTION, str(path), str(ROUNDS)))
    assert ROUNDS // 20 < opened < ROUNDS


def test_damage_to_the_real_one(blob: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer"
    path.write_bytes(blob)
    run_python(CORRUPTION, str(path), str(max(50, ROUNDS // 20)))


LOADING = """
import ctypes, json, mmap, sys, time
from qwen_edge.text.tokenizer import Tokenizer

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

file = open(sys.argv[1], "rb")
Tokenizer.__init__  # the library is loaded by the first call: take that out of the measurement
from qwen_edge.text.tokenizer import _library
_library()
before = resident()
start = time.perf_counter()
memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
view = (ctypes.c_char * len(memory)).from_buffer(memory)
tokenizer = Tokenizer.from_blob(ctypes.addressof(view), len(memory), view)
seconds = time.perf_counter() - start
loaded = resident()
ids = tokenizer.encode("Why is the sky blue? 天空为什么是蓝色的？" * 20)
assert tokenizer.decode(ids).startswith("Why is")
print(json.dumps({"seconds": seconds, "kb": loaded - before, "kb_used": resident() - before}))
"""


def test_loading_costs_almost_nothing(blob: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer"
    path.write_bytes(blob)
    runs = [json.loads(run_python(LOADING, str(path))) for _ in range(3)]
    best = min(runs, key=lambda run: run["seconds"])
    print(best)
    assert best["seconds"] < 0.020
    assert best["kb"] < 15_000
    assert best["kb_used"] < 15_000


def test_packing_is_quick_and_modest(qwen3_dir: Path) -> None:
    code = (
        "import json, sys, time\n"
        "from qwen_edge.text.pack_tokenizer import pack_tokenizer\n"
        "text = open(sys.argv[1], 'rb').read(); start = time.process_time()\n"
        "pack_tokenizer(text)\n"
        "status = open('/proc/self/status').read().splitlines()\n"
        "peak = next(int(line.split()[1]) for line in status if line.startswith('VmHWM'))\n"
        "loaded = [name for name in ('numpy', 'torch', 'tokenizers') if name in sys.modules]\n"
        "print(json.dumps([time.process_time() - start, peak, loaded]))"
    )
    seconds, peak, loaded = json.loads(run_python(code, str(qwen3_dir / "tokenizer.json")))
    print(f"{seconds:.2f} s, {peak // 1024} MB at the peak")
    assert seconds < 10
    assert peak < 200_000
    assert not loaded


def test_errors_are_for_users(small_definition: dict[str, Any]) -> None:
    with pytest.raises(QwenEdgeError) as refusal:
        pack_tokenizer(changed(small_definition, ["model", "type"], "WordPiece"))
    assert refusal.value.exit_code == 5
    assert refusal.value.hint
