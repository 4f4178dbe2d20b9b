"""Keys and values in a file: the same answers, and nothing taken from a file that is not sound."""

from __future__ import annotations

import contextlib
import os
import resource
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_edge.engine.generate import Generation, extend
from qwen_edge.engine.interface import EngineConfig, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.prefix_file import (
    MAGIC,
    PrefixError,
    PrefixFile,
    Problem,
    file_bytes,
    write_prefix,
)
from qwen_edge.errors import DamagedModelError, QwenEdgeError, UsageError
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.native.checksum import checksum
from qwen_edge.session.models import demo_path
from tests.engine.forging import forge

PROMPT = [(7 * i + i * i) % 4000 + 3 for i in range(300)]
CONFIG = EngineConfig(context=512, kv_type="int8", threads=2, prefill_rows=64)
GREEDY = SamplingParams(temperature=0)


@pytest.fixture(scope="module")
def model() -> Iterator[PackedModel]:
    with open_model(demo_path()) as opened:
        yield opened


@pytest.fixture
def engine(model: PackedModel) -> Iterator[NativeEngine]:
    with NativeEngine(model, CONFIG) as made:
        yield made


def compute(engine: NativeEngine, ids: list[int]) -> None:
    for start in range(0, len(ids), 64):
        extend(engine, ids[start : start + 64], 0, wants_logits=False)


def answer(engine: NativeEngine, prompt: list[int]) -> list[tuple[int, float | None]]:
    steps = Generation(engine, prompt, GREEDY, max_tokens=12, stop_ids=(), logprobs=2)
    return [(step.id, step.logprob) for step in steps]


def saved(engine: NativeEngine, path: Path, length: int = 300) -> Path:
    compute(engine, PROMPT[:length])
    write_prefix(engine, engine.prefix_identity(), length, path, durable=True)
    return path


def load(engine: NativeEngine, path: Path, length: int | None = None) -> int:
    with PrefixFile(path) as file:
        prefix = file.prefix(engine, engine.prefix_identity())
        file.load(engine, prefix, len(prefix.ids) if length is None else length)
        return len(prefix.ids)


def problem(engine: NativeEngine, path: Path) -> Problem | None:
    try:
        load(engine, path)
    except PrefixError as error:
        return error.problem
    return None


@pytest.mark.parametrize(
    ("kv", "activations"),
    [("f16", "int8"), ("int8", "int8"), ("int4", "int8"), ("f32", "f32")],
)
@pytest.mark.parametrize("stored", [1, 16, 255, 256, 300])
def test_answers_are_the_same_bit_for_bit(
    model: PackedModel, tmp_path: Path, kv: str, activations: str, stored: int
) -> None:
    config = replace(CONFIG, kv_type=kv, activations=activations)
    with NativeEngine(model, config) as first, NativeEngine(model, config) as second:
        plain = answer(first, PROMPT)
        first.truncate(0)
        file = saved(first, tmp_path / "prompt", stored)
        assert load(second, file) == stored
        assert list(second.cached_ids()) == PROMPT[:stored]
        assert answer(second, PROMPT) == plain


def test_a_part_of_the_file_is_enough(engine: NativeEngine, tmp_path: Path) -> None:
    other = [*PROMPT[:123], 9, 8, 7]
    plain = answer(engine, other)
    engine.truncate(0)
    file = saved(engine, tmp_path / "prompt")
    engine.truncate(0)
    load(engine, file, 123)
    assert len(engine.cached_ids()) == 123
    assert answer(engine, other) == plain


def test_a_loaded_prompt_can_be_forked_and_cut(model: PackedModel, tmp_path: Path) -> None:
    config = replace(CONFIG, sequences=2)
    with NativeEngine(model, config) as engine:
        plain = answer(engine, PROMPT)
        file = saved_again(engine, tmp_path / "prompt")
        load(engine, file)
        engine.fork(0, 1, 280)
        engine.truncate(10)
        assert answer(engine, PROMPT) == plain
        engine.fork(1, 0, 280)
        assert answer(engine, PROMPT) == plain


def saved_again(engine: NativeEngine, path: Path) -> Path:
    engine.truncate(0)
    return saved(engine, path)


def test_the_file_has_its_predicted_size_and_is_private(
    engine: NativeEngine, tmp_path: Path
) -> None:
    file = saved(engine, tmp_path / "prompt")
    assert file.stat().st_size == file_bytes(engine, 300)
    assert file.stat().st_mode & 0o077 == 0
    assert file.read_bytes().startswith(MAGIC)
    assert os.listdir(tmp_path) == ["prompt"]


def test_identity_follows_what_keys_and_values_depend_on(
    model: PackedModel, tmp_path: Path
) -> None:
    def identity(opened: PackedModel, **changes: object) -> bytes:
        with NativeEngine(opened, replace(CONFIG, **changes)) as made:  # type: ignore[arg-type]
            return made.prefix_identity()

    base = identity(model)
    assert identity(model, threads=1, context=100, prefill_rows=3, sequences=2) == base
    assert identity(model, kv_type="f16") != base
    assert identity(model, activations="f32") != base
    content = bytearray(demo_path().read_bytes())
    copy = tmp_path / "demo.qedge"

    def of_copy() -> bytes:
        copy.write_bytes(content)
        os.utime(copy, ns=(1, demo_path().stat().st_mtime_ns))
        with open_model(copy) as opened:
            return identity(opened)

    assert of_copy() == base
    tensor = model.tensors["model.layers.2.mlp.up_proj.weight"]
    middle = tensor.offset + tensor.nbytes // 2 // 64 * 64
    content[middle] ^= 1
    assert of_copy() != base
    content[middle] ^= 1
    os.utime(copy, ns=(1, 1))
    with open_model(copy) as opened:
        assert identity(opened) != base


@pytest.mark.parametrize("change", ["kv_type", "activations"])
def test_other_settings_are_told_of(
    engine: NativeEngine, model: PackedModel, tmp_path: Path, change: str
) -> None:
    file = saved(engine, tmp_path / "prompt")
    other = replace(CONFIG, **{change: {"kv_type": "f16", "activations": "f32"}[change]})  # type: ignore[arg-type]
    with NativeEngine(model, other) as second:
        assert problem(second, file) is Problem.OTHER
        assert second.cached_ids() == []


def test_every_truncation_is_found(engine: NativeEngine, tmp_path: Path) -> None:
    content = saved(engine, tmp_path / "prompt", 20).read_bytes()
    cut = tmp_path / "cut"
    header = 64 + 4 * 20
    lengths = [*range(1, header + 200), *range(header + 200, len(content), 997), len(content) - 1]
    for length in lengths:
        cut.write_bytes(content[:length])
        assert problem(engine, cut) is Problem.DAMAGED, length
    cut.write_bytes(content + b"\0")
    assert problem(engine, cut) is Problem.DAMAGED
    cut.write_bytes(b"")
    assert problem(engine, cut) is Problem.ABSENT
    cut.write_bytes(content)
    assert problem(engine, cut) is None


def test_every_changed_byte_is_found(engine: NativeEngine, tmp_path: Path) -> None:
    content = bytearray(saved(engine, tmp_path / "prompt", 20).read_bytes())
    file = tmp_path / "changed"
    places = [*range(512), *range(512, len(content), 211)]
    for place in places:
        content[place] ^= 1 << place % 8
        file.write_bytes(content)
        found = problem(engine, file)
        if place < len(MAGIC):
            assert found is Problem.FOREIGN
        else:
            # The version is read before anything else is believed.
            assert found is (Problem.OTHER if place < 12 else Problem.DAMAGED), place
        content[place] ^= 1 << place % 8


@pytest.mark.parametrize("value", [0, 1, 19, 21, 1 << 20, (1 << 20) + 1, (1 << 32) - 1])
@pytest.mark.parametrize("place", [12, 16, 20, 24])
def test_forged_numbers_are_refused(
    engine: NativeEngine, tmp_path: Path, place: int, value: int
) -> None:
    content = bytearray(saved(engine, tmp_path / "prompt", 20).read_bytes())
    if (place, value) == (20, 0):
        return
    struct.pack_into("<I", content, place, value)
    head = checksum(bytes(content[:56]))
    struct.pack_into("<Q", content, 56, head)
    file = tmp_path / "forged"
    file.write_bytes(content)
    assert problem(engine, file) is Problem.DAMAGED


@pytest.mark.parametrize("pattern", [b"\xff", b"\x7c", b"\x00\x7c", b"\x80", b"random"])
def test_forged_values_do_no_harm(model: PackedModel, tmp_path: Path, pattern: bytes) -> None:
    # NaN, infinite and absurd scales with right checksums: a wrong answer or an error.
    for kv in ("f16", "int8", "int4"):
        with NativeEngine(model, replace(CONFIG, kv_type=kv)) as engine:
            engine.truncate(0)
            file = saved(engine, tmp_path / kv)
            forge(file, engine, pattern)
            assert problem(engine, file) is None
            for sampling in (GREEDY, SamplingParams(seed=1), SamplingParams(top_k=0, seed=1)):
                engine.truncate(299)
                steps = Generation(engine, PROMPT, sampling, max_tokens=5, stop_ids=())
                with contextlib.suppress(DamagedModelError):
                    assert all(0 <= step.id < engine.vocab_size for step in steps)


@pytest.mark.parametrize("content", [b"x", b"qedge-model", b"\0" * 5000, MAGIC[:-1] + b"!"])
def test_other_files_are_foreign(engine: NativeEngine, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    assert problem(engine, file) is Problem.FOREIGN


def test_what_is_no_file_is_foreign(engine: NativeEngine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        assert problem(engine, path) is Problem.FOREIGN
    assert problem(engine, tmp_path / "none") is Problem.ABSENT


def test_a_full_disk_leaves_the_old_file(engine: NativeEngine, tmp_path: Path) -> None:
    file = saved(engine, tmp_path / "prompt", 40)
    before = file.read_bytes()
    engine.truncate(0)
    compute(engine, PROMPT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (0, 100, len(before) + 4096, file_bytes(engine, 300) - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            with pytest.raises(QwenEdgeError):
                write_prefix(engine, engine.prefix_identity(), 300, file, durable=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert file.read_bytes() == before
        assert os.listdir(tmp_path) == ["prompt"]


def test_a_failed_load_leaves_an_empty_sequence(engine: NativeEngine, tmp_path: Path) -> None:
    content = bytearray(saved(engine, tmp_path / "prompt").read_bytes())
    content[-1] ^= 1
    (tmp_path / "prompt").write_bytes(content)
    assert problem(engine, tmp_path / "prompt") is Problem.DAMAGED
    assert list(engine.cached_ids()) == []
    plain = answer(engine, PROMPT)
    engine.truncate(0)
    assert answer(engine, PROMPT) == plain


def test_a_longer_file_than_the_context(model: PackedModel, tmp_path: Path) -> None:
    with NativeEngine(model, CONFIG) as engine:
        file = saved(engine, tmp_path / "prompt")
    with NativeEngine(model, replace(CONFIG, context=100)) as short:
        load(short, file, 90)
        assert len(short.cached_ids()) == 90
        with pytest.raises(UsageError):
            load(short, file, 101)
        assert list(short.cached_ids()) == []
