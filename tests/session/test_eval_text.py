"""Perplexity against transformers, divergence against numpy, and references in a file."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from qwen_edge.engine.watcher import Unwatched
from qwen_edge.errors import QwenEdgeError, UsageError
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.native.checksum import checksum
from qwen_edge.session.eval_models import Precision
from qwen_edge.session.eval_reference import Reference
from qwen_edge.session.eval_result import Report
from qwen_edge.session.eval_text_run import TextOptions, TextRun
from qwen_edge.session.models import demo_path
from qwen_edge.text.tokenizer import Tokenizer
from tests.engine.oracle import (
    SHAPES,
    native_logits,
    oracle_logits,
    oracle_of,
    random_model,
    save_checkpoint,
)

TEXT = (
    "The sea is wide, and the ships on it are few. 海很宽，船很少。 "
    "What is 17 + 25? It is 42. Who are you? I am a small model on your phone.\n"
) * 8
EXACT = Precision("f32", "f32")
DAILY = Precision("f16", "int8")
CONTEXT = 96
Floats = npt.NDArray[np.float64]


class Silent:
    """A watcher that counts."""

    def __init__(self, stop_after: int = 1 << 60) -> None:
        self.planned = self.done = 0
        self.setup = Unwatched()
        self._stop_after = stop_after

    def loaded(self, plan: object) -> None:
        pass

    def begin(self, tokens: int) -> None:
        self.planned = tokens

    def step(self, tokens: int) -> None:
        self.done += tokens
        if self.done > self._stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No settings of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("QWEN_EDGE_") and name not in ("QWEN_EDGE_LIBRARY", "QWEN_EDGE_ISA"):
                patch.delenv(name)
        patch.setenv("QWEN_EDGE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A random checkpoint with 4 and 8 bits."""
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(random_model(SHAPES["narrow"]), folder / "hf")
    found = {}
    for bits in (4, 8):
        found[bits] = folder / f"int{bits}.qedge"
        convert(folder / "hf", found[bits], bits=bits)
    return found


def evaluated(path: Path, precision: Precision, text: str = TEXT, **options: object) -> Report:
    run = TextRun(
        {"model": str(path), "threads": 2},
        text,
        TextOptions(**({"context": CONTEXT} | options)),  # type: ignore[arg-type]
        precision,
        watcher := Silent(),
    )
    run.run()
    assert watcher.done == watcher.planned > 0
    return run.report(complete=True)


def token_ids(packed: PackedModel, text: str) -> list[int]:
    table = packed.tensors["tokenizer"]
    tokenizer = Tokenizer.from_blob(packed.address("tokenizer"), table.nbytes, packed)
    return tokenizer.encode(text)


def log_softmax(logits: npt.NDArray[np.float32]) -> Floats:
    wide = torch.from_numpy(logits).double()
    return torch.log_softmax(wide, dim=-1).numpy()


def half_windows(ids: list[int], context: int) -> list[list[int]]:
    return [ids[i : i + context] for i in range(0, len(ids) - context + 1, context)]


def second_half(rows: Floats) -> Floats:
    """The rows that predict the scored tokens of a window."""
    return rows[len(rows) // 2 : -1]


def oracle_nats(path: Path, context: int, stride: int | None) -> Floats:
    """Negative log probabilities as transformers has them, window by window."""
    with open_model(path) as packed:
        ids = token_ids(packed, TEXT)
        oracle = oracle_of(packed)
    found: list[float] = []
    if stride is None:
        for window in half_windows(ids, context):
            rows = log_softmax(oracle_logits(oracle, window))
            found += [-rows[i - 1, window[i]] for i in range(context // 2 + 1, context)]
        return np.array(found)
    # Hugging Face's guide: the last (end - previous end) targets of each window.
    previous = 0
    for begin in range(0, len(ids), stride):
        end = min(begin + context, len(ids))
        rows = log_softmax(oracle_logits(oracle, ids[begin:end]))
        first = max(previous, 1) - begin
        found += [-rows[i - 1, ids[begin + i]] for i in range(first, end - begin)]
        previous = end
        if end == len(ids):
            break
    return np.array(found)


@pytest.mark.parametrize("stride", [None, 40])
def test_perplexity_is_transformers(models: dict[int, Path], stride: int | None) -> None:
    expected = oracle_nats(models[4], CONTEXT, stride)
    found = evaluated(models[4], EXACT, stride=stride).perplexity
    assert found is not None
    assert found.tokens == len(expected)
    assert found.nats.value == pytest.approx(expected.mean(), rel=1e-6)
    assert found.nats.error == pytest.approx(
        expected.std(ddof=1) / np.sqrt(len(expected)), rel=1e-4
    )
    assert found.perplexity.value == pytest.approx(np.exp(expected.mean()), rel=1e-4)


def test_perplexity_of_the_demo_model_is_transformers() -> None:
    expected = oracle_nats(demo_path(), 128, None)
    found = evaluated(demo_path(), EXACT, context=128).perplexity
    assert found is not None
    assert found.tokens == len(expected)
    assert found.perplexity.value == pytest.approx(np.exp(expected.mean()), rel=1e-4)
    daily = evaluated(demo_path(), DAILY, context=128).perplexity
    assert daily is not None
    assert daily.perplexity.value == pytest.approx(found.perplexity.value, rel=0.1)


def numpy_divergences(models: dict[int, Path], truth: int, model: int) -> tuple[Floats, Floats]:
    """Divergences of the scored positions, and where the first choices agree."""
    with open_model(models[truth]) as first, open_model(models[model]) as second:
        ids = token_ids(first, TEXT)
        found, same = [], []
        for window in half_windows(ids, CONTEXT):
            p, q = (
                second_half(
                    log_softmax(native_logits(one, window, kv_type="f16", prefill_rows=128))
                )
                for one in (first, second)
            )
            found.append((np.exp(p) * (p - q)).sum(axis=1))
            same.append(p.argmax(axis=1) == q.argmax(axis=1))
    return np.concatenate(found), np.concatenate(same)


def test_divergence_is_numpys(models: dict[int, Path]) -> None:
    expected, same = numpy_divergences(models, 8, 4)
    report = evaluated(models[4], DAILY, against=str(models[8]))
    found = report.divergence
    assert found is not None
    assert found.reference["model"] == "hf"
    assert found.positions == len(expected)
    assert found.mean.value == pytest.approx(expected.mean(), rel=0.02)
    for value, share in ((found.median, 0.5), (found.p90, 0.9), (found.p99, 0.99)):
        assert value == pytest.approx(np.quantile(expected, share), rel=0.05)
    assert found.largest == pytest.approx(expected.max(), rel=0.05)
    assert abs(found.same_top - same.sum()) <= 1
    alone = evaluated(models[8], DAILY).perplexity
    assert report.perplexity == evaluated(models[4], DAILY).perplexity
    assert found.perplexity == alone


def test_a_model_is_no_way_from_itself(models: dict[int, Path]) -> None:
    found = evaluated(models[4], DAILY, against=str(models[4])).divergence
    assert found is not None
    assert found.largest < 1e-12
    assert found.same_top == found.positions
    assert tuple(found.change) == (0.0, 0.0)


def test_a_reference_in_a_file_does_for_the_model(models: dict[int, Path], tmp_path: Path) -> None:
    path = tmp_path / "reference"
    saved = evaluated(models[8], DAILY, save=path, stride=64)
    direct = evaluated(models[4], DAILY, against=str(models[8]), stride=64)
    report = evaluated(models[4], DAILY, "", reference=path, context=None)
    assert report.perplexity == direct.perplexity
    assert report.source == direct.source
    assert report.settings == direct.settings
    found, expected = report.divergence, direct.divergence
    assert found is not None
    assert expected is not None
    # What the text's own tokens got is kept exactly, all others in 16 bits.
    assert found.perplexity == expected.perplexity == saved.perplexity
    assert (found.change, found.same_top) == (expected.change, expected.same_top)
    assert found.mean.value == pytest.approx(expected.mean.value, abs=1e-6)
    assert found.largest == pytest.approx(expected.largest, abs=1e-5)
    assert found.reference == expected.reference
    some = evaluated(models[4], DAILY, "", reference=path, context=None, limit=2).divergence
    assert some is not None
    assert some.positions == CONTEXT - 1 + 64


def test_what_was_found_until_an_interrupt(models: dict[int, Path], tmp_path: Path) -> None:
    path = tmp_path / "reference"
    options = TextOptions(context=CONTEXT, against=str(models[8]), save=path)
    watcher = Silent(stop_after=500)
    run = TextRun({"model": str(models[4])}, TEXT, options, DAILY, watcher)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    report = run.report(complete=False)
    assert report.perplexity is not None
    assert report.divergence is not None
    scored = report.perplexity.tokens
    assert 0 < scored == report.divergence.positions
    assert report.source["windows_done"] == 2
    whole = evaluated(models[4], DAILY, limit=scored // (CONTEXT // 2 - 1)).perplexity
    assert whole == report.perplexity
    # Half a reference is none.
    assert not list(tmp_path.iterdir())


def test_other_vocabularies_are_refused(models: dict[int, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="different vocabularies"):
        evaluated(models[4], DAILY, against=str(demo_path()))
    path = tmp_path / "reference"
    evaluated(demo_path(), DAILY, save=path)
    with pytest.raises(UsageError, match="another vocabulary"):
        evaluated(models[4], DAILY, "", reference=path, context=None)
    with pytest.raises(UsageError, match="a window takes 96"):
        evaluated(models[4], DAILY, "too short")


VOCAB, IDENTITY = 401, 77
_HEADER = struct.Struct("<8s8IQQ")


@pytest.fixture(scope="module")
def reference(models: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small reference's bytes, with an identity of our own."""
    path = tmp_path_factory.mktemp("reference") / "file"
    evaluated(models[4], DAILY, save=path, limit=2)
    data = bytearray(path.read_bytes())
    numbers = list(_HEADER.unpack_from(data))
    numbers[9] = IDENTITY
    return forged(bytes(data), numbers)


def forged(data: bytes, numbers: list[object]) -> bytes:
    """The file with another header, whose checksum is right."""
    head = _HEADER.pack(*numbers)
    return head + struct.pack("<Q", checksum(head)) + data[_HEADER.size + 8 :]


def read_all(path: Path) -> int:
    """Reads a reference to its end; returns the rows in it."""
    with Reference(path, VOCAB, IDENTITY) as opened:
        return sum(
            len(judged.rows)
            for window in opened.text.windows
            for judged in opened.judge(opened.text, window)
        )


def test_references_are_read_to_the_end(reference: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(reference)
    assert read_all(path) == 2 * (CONTEXT // 2 - 1)


@pytest.mark.parametrize("part", range(12))
def test_damage_is_found(reference: bytes, tmp_path: Path, part: int) -> None:
    path = tmp_path / "file"
    for step in range(8):
        place = min(part * 6 + step, 70) if part < 6 else (part * 8 + step) * len(reference) // 96
        damaged = bytearray(reference)
        damaged[place] ^= 1 << step
        path.write_bytes(damaged)
        # The padding of the tables is covered by their checksum, too.
        with pytest.raises(UsageError):
            read_all(path)


@pytest.mark.parametrize("size", [0, 5, 63, 64, 100, 1000, -9, -1])
def test_a_reference_cut_short_is_refused(reference: bytes, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(reference[:size])
    with pytest.raises(UsageError):
        read_all(path)
    path.write_bytes(reference + b"\0")
    with pytest.raises(UsageError, match="damaged"):
        read_all(path)


@pytest.mark.parametrize("field", range(1, 10))
@pytest.mark.parametrize("value", [0, 1, 3, 5000, 2**24, 2**31, 2**32 - 1])
def test_forged_numbers_are_refused(
    reference: bytes, tmp_path: Path, field: int, value: int
) -> None:
    numbers = list(_HEADER.unpack_from(reference))
    numbers[field] = value if numbers[field] != value else value + 1
    path = tmp_path / "file"
    path.write_bytes(forged(reference, numbers))
    with pytest.raises(UsageError):
        read_all(path)


def test_forged_scores_are_refused(reference: bytes, tmp_path: Path) -> None:
    """A block with a right checksum whose numbers are none."""
    rows = CONTEXT // 2 - 1
    block_bytes = rows * (16 + 8 + 2 * VOCAB) + 8
    start = len(reference) - block_bytes
    # The logarithm of the first row, and the step of the last.
    for place, value in ((0, struct.pack("<d", float("nan"))), (rows * 24 - 4, b"\0\0\x80\x7f")):
        block = bytearray(reference[start:-8])
        block[place : place + len(value)] = value
        path = tmp_path / "file"
        path.write_bytes(reference[:start] + block + struct.pack("<Q", checksum(bytes(block))))
        with pytest.raises(UsageError, match="damaged"):
            read_all(path)


def test_what_is_no_reference(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, said in (
        (tmp_path, "not a reference"),
        (pipe, "not a reference"),
        (demo_path(), "not a reference"),
        (tmp_path / "nothing", "cannot be read: No such file"),
    ):
        with pytest.raises(UsageError, match=said):
            read_all(path)


def test_a_reference_needs_its_space(
    models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen_edge.model import replacing_file

    monkeypatch.setattr(replacing_file, "free_bytes", lambda path: 1000)
    with pytest.raises(QwenEdgeError, match="of disk space"):
        evaluated(models[4], DAILY, save=tmp_path / "reference")
    assert not list(tmp_path.iterdir())
