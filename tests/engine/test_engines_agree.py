"""The same model file in every engine: native, torch eager and compiled, and plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from qwen_edge.engine import torch_engine, torch_package
from qwen_edge.engine.interface import Engine, EngineConfig, Row
from qwen_edge.engine.torch_engine import TorchEngine
from qwen_edge.errors import UsageError
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.text.chat_template import encode_chat
from qwen_edge.text.tokenizer import Tokenizer
from tests.engine.oracle import SHAPES, engine_logits, random_model, relative_error
from tests.engine.test_logits import (
    FP32_LIMIT,
    INT4_CACHE_LIMIT,
    INT8_CACHE_LIMIT,
    INT8_LIMIT,
    tokens,
)
from tests.engine.test_quantized_logits import AWQ, FLOATS, GPTQ, model_config
from tests.engine.torch_engines import answer, compute, no_operators, open_engine
from tests.model.files import BLOB
from tests.model.grouped import Kind, write_quantized
from tests.model.operator_cases import FORMATS

pytestmark = pytest.mark.usefixtures("compilations")

# Engines that share the native kernels differ by what a compiler does to additions.
SHARED_LIMIT = 1e-3
# Of each KV cache, to the engine of fp32.
ORACLE_LIMITS = {"f16": INT8_LIMIT, "int8": INT8_CACHE_LIMIT, "int4": INT4_CACHE_LIMIT}
# Every part of a layer is stored in another way.
MIXED = {
    "q_proj": "levels", "k_proj": "minimums", "v_proj": "int8", "o_proj": "int4-128",
    "gate_proj": "nf4 bytes", "up_proj": "bf16", "down_proj": "int8 minimums",
    "model.embed_tokens.weight": "f16", "lm_head": "int8-128",
}  # fmt: skip
IMPORTED = {"gptq": GPTQ, "awq": AWQ, "gptq8": Kind(bits=8, symmetric=True, act_order=True)}
QUESTIONS = ["Hello!", "Who are you?", "What is 7 + 5?", "你好", "Tell me a short story."]


def make_model(kind: str, folder: Path) -> Path:
    shape = SHAPES["untied"]
    oracle = random_model(shape)
    weights = {name: p.detach().numpy() for name, p in oracle.named_parameters()}
    path = folder / f"{kind}.qedge"
    if kind in IMPORTED:
        write_quantized(folder / kind, model_config(shape), weights, IMPORTED[kind])
        overrides = [("model.embed*", FLOATS), ("lm_head*", FLOATS)]
    else:
        oracle.save_pretrained(folder / kind)
        mixed = MIXED if kind == "mixed" else {}
        overrides = [(name, FORMATS[form]) for name, form in mixed.items()]
    convert(folder / kind, path, tokenizer=BLOB, overrides=overrides)
    return path


@pytest.fixture(scope="module", params=["int4", "mixed", *IMPORTED])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PackedModel]:
    path = make_model(request.param, tmp_path_factory.mktemp("models"))
    with open_model(path) as model:
        yield model


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackedModel]:
    with open_model(make_model("mixed", tmp_path_factory.mktemp("models"))) as model:
        yield model


def settings(kv_type: str, **others: int) -> EngineConfig:
    activations = "f32" if kv_type == "f32" else "int8"
    values = {"context": 160, "threads": 2, "prefill_rows": 64} | others
    return EngineConfig(kv_type=kv_type, activations=activations, **values)


def logits_of(kind: str, model: PackedModel, config: EngineConfig) -> np.ndarray:
    with open_engine(kind, model, config) as engine:
        return engine_logits(engine, tokens(model))


def test_logits_of_every_layout(model: PackedModel) -> None:
    exact = logits_of("native", model, settings("f32"))
    for kind in ("eager", "plain"):
        assert relative_error(logits_of(kind, model, settings("f32")), exact) <= FP32_LIMIT
    for kv_type, limit in ORACLE_LIMITS.items():
        native = logits_of("native", model, settings(kv_type))
        assert relative_error(logits_of("eager", model, settings(kv_type)), native) <= SHARED_LIMIT
        assert relative_error(logits_of("plain", model, settings(kv_type)), exact) <= limit


# --- calls of any shape


def converse(engine: Engine, ids: list[int]) -> np.ndarray:
    """Logits of calls that prefill in chunks, mix sequences, truncate and fork."""
    results = [compute(engine, [Row(0, i, token, i % 9 == 0) for i, token in enumerate(ids[:50])])]
    # One row at a time, and rows of two sequences in one call.
    results += [compute(engine, [Row(0, i, ids[i], True)]) for i in (50, 51)]
    mix = [Row(i % 2, 52 + i // 2 if i % 2 == 0 else i // 2, ids[i], i > 4) for i in range(12)]
    results.append(compute(engine, mix))
    engine.truncate(33)
    results.append(compute(engine, [Row(0, 33 + i, ids[90 + i], True) for i in range(3)]))
    engine.fork(0, 1, 20)
    results.append(compute(engine, [Row(1, 20, ids[7], True), Row(0, 36, ids[8], True)]))
    # Nothing is wanted of these.
    assert engine.forward([Row(1, 21 + i, ids[i]) for i in range(17)]) == []
    engine.fork(1, 1, 30)
    results.append(compute(engine, [Row(1, 30, ids[9], True)]))
    assert list(engine.cached_ids(0)) == [*ids[:33], *ids[90:93], ids[8]]
    assert list(engine.cached_ids(1)) == [*ids[:20], ids[7], *ids[:9], ids[9]]
    return np.concatenate(results)


@pytest.mark.parametrize("kv_type", ["f16", "int8", "int4", "f32"])
def test_calls_of_any_shape(mixed: PackedModel, kv_type: str) -> None:
    config = settings(kv_type, sequences=2)
    with open_engine("native", mixed, config) as engine:
        truth = converse(engine, tokens(mixed))
    limits = {"eager": SHARED_LIMIT, "plain": ORACLE_LIMITS.get(kv_type, FP32_LIMIT)}
    if kv_type == "int8":
        limits |= {"compiled": SHARED_LIMIT, "packaged": SHARED_LIMIT}
    for kind, limit in limits.items():
        with open_engine(kind, mixed, config) as engine:
            assert relative_error(converse(engine, tokens(mixed)), truth) <= limit


@pytest.mark.parametrize("kind", ["eager", "plain"])
def test_rows_spread_over_calls_in_any_way(mixed: PackedModel, kind: str) -> None:
    ids = tokens(mixed)
    with open_engine(kind, mixed, settings("int8", prefill_rows=150)) as engine:
        whole = engine_logits(engine, ids)
        for chunk in (1, 13, 64):
            limit = INT8_LIMIT if kind == "plain" else 6e-3
            assert relative_error(engine_logits(engine, ids, chunk), whole) <= limit


@pytest.mark.parametrize("kind", ["eager", "plain"])
def test_what_is_refused_changes_nothing(mixed: PackedModel, kind: str) -> None:
    with open_engine(kind, mixed, settings("int8", context=20, prefill_rows=4)) as engine:
        before = compute(engine, [Row(0, i, 7 + i, True) for i in range(3)])
        for rows in (
            [],
            [Row(0, 4, 5)],
            [Row(1, 0, 5)],
            [Row(-1, 0, 5)],
            [Row(0, 3, -1)],
            [Row(0, 3, mixed.config.vocab_size)],
            [Row(0, 3, 5), Row(0, 3, 5)],
            [Row(0, 3 + i, 5) for i in range(5)],
        ):
            with pytest.raises(UsageError):
                engine.forward(rows)
        for length in (-1, 4):
            with pytest.raises(UsageError):
                engine.truncate(length)
        assert list(engine.cached_ids()) == [7, 8, 9]
        engine.truncate(0)
        assert np.array_equal(compute(engine, [Row(0, i, 7 + i, True) for i in range(3)]), before)
        for start in range(3, 20):
            engine.forward([Row(0, start, 5)])
        with pytest.raises(UsageError):
            engine.forward([Row(0, 20, 5)])
        engine.close()
        with pytest.raises(UsageError, match="closed"):
            engine.forward([Row(0, 0, 5)])


# --- packages of compiled layers


def test_models_that_differ_have_packages_of_their_own(tmp_path: Path) -> None:
    """The same shapes with another epsilon, and with one layer stored in another way."""
    oracle = random_model(SHAPES["narrow"])
    for name, epsilon in (("plain", 1e-6), ("other", 1e-3)):
        oracle.config.rms_norm_eps = epsilon
        oracle.save_pretrained(tmp_path / name)
    overrides = [("model.layers.3.*_proj.weight", FORMATS["int8"])]
    for source, target, wanted in (
        ("plain", "a", []),
        ("other", "b", []),
        ("plain", "c", overrides),
    ):
        convert(tmp_path / source, tmp_path / target, tokenizer=BLOB, overrides=wanted)
    for name in ("a", "b", "c"):
        with open_model(tmp_path / name) as model:
            native = logits_of("native", model, settings("int8"))
            with TorchEngine(model, settings("int8"), "auto") as engine:
                # No package can serve layers that differ.
                assert engine.compiled == ("on" if name == "c" else "aot")
                error = relative_error(engine_logits(engine, tokens(model), 1), native)
            assert error <= INT8_CACHE_LIMIT


def test_a_package_serves_contexts_of_any_length(mixed: PackedModel) -> None:
    ids = tokens(mixed)[:12]
    for context in (12, 16, 17, 2048):
        config = settings("int8", context=context)
        with open_engine("eager", mixed, config) as eager:
            truth = engine_logits(eager, ids, 1)
        with open_engine("packaged", mixed, config) as engine:
            assert relative_error(engine_logits(engine, ids, 1), truth) <= SHARED_LIMIT


# --- the demo model


def chat_ids(demo: PackedModel, messages: list[dict[str, str]]) -> list[int]:
    blob = demo.tensors["tokenizer"]
    tokenizer = Tokenizer.from_blob(demo.address("tokenizer"), blob.nbytes, demo)
    return encode_chat(tokenizer, demo.chat_template, messages, enable_thinking=False)


def demo_results(
    kind: str, demo: PackedModel, kv_type: str, prompts: list[list[int]]
) -> tuple[np.ndarray, list[list[int]]]:
    """Logits of the last prompt, and greedy answers to all."""
    with open_engine(kind, demo, settings(kv_type, context=512)) as engine:
        logits = engine_logits(engine, prompts[-1])
        return logits, [answer(engine, prompt, 48) for prompt in prompts]


@pytest.mark.parametrize("kv_type", ["f16", "int8", "int4"])
def test_the_demo_model(demo: PackedModel, kv_type: str) -> None:
    prompts = [chat_ids(demo, [{"role": "user", "content": text}]) for text in QUESTIONS]
    native, text = demo_results("native", demo, kv_type, prompts)
    for kind in ("eager", "compiled", "packaged"):
        logits, same = demo_results(kind, demo, kv_type, prompts)
        assert same == text
        assert relative_error(logits, native) <= SHARED_LIMIT


# How far a token's logit may be from the largest, in standard deviations of all: two that are
# nearly as likely may change places.
TIES = {"f16": 0.02, "int8": 0.02, "int4": 0.2}


@pytest.mark.parametrize("kv_type", TIES)
def test_plain_torch_would_say_the_same(demo: PackedModel, kv_type: str) -> None:
    """Its additions are in another order, and single codes of INT8 are rounded otherwise."""
    prompts = [chat_ids(demo, [{"role": "user", "content": text}]) for text in QUESTIONS]
    native, answers = demo_results("native", demo, kv_type, prompts)
    alike = []
    with open_engine("plain", demo, settings(kv_type, context=512)) as engine:
        error = relative_error(engine_logits(engine, prompts[-1]), native)
        for prompt, text in zip(prompts, answers, strict=True):
            logits = engine_logits(engine, prompt + text)[len(prompt) - 1 : -1]
            behind = logits.max(1) - logits[np.arange(len(text)), text]
            assert (behind <= TIES[kv_type] * logits.std(1)).all()
            alike += (behind == 0).tolist()
    assert np.mean(alike) >= 0.98
    assert error <= ORACLE_LIMITS[kv_type]


def test_the_demo_model_in_fp32(demo: PackedModel) -> None:
    prompt = chat_ids(demo, [{"role": "user", "content": QUESTIONS[0]}])
    answers = []
    for kind in ("native", "eager", "plain"):
        with open_engine(kind, demo, settings("f32")) as engine:
            answers.append(answer(engine, prompt, 24))
    assert answers[0] == answers[1] == answers[2]


def test_a_chat_without_recompiling(demo: PackedModel) -> None:
    """Thirty turns, each of another length, in the native engine's words."""
    config = settings("int8", context=2048)
    stats = torch._dynamo.utils.counters["stats"]
    with (
        open_engine("compiled", demo, config) as ours,
        open_engine("native", demo, config) as native,
    ):
        messages: list[dict[str, str]] = []
        ids: list[int] = []
        graphs = None
        for turn in range(30):
            question = " ".join([QUESTIONS[turn % 5]] * (1 + turn * 7 % 6))
            messages.append({"role": "user", "content": question})
            ids += chat_ids(demo, messages[-1:])
            reply = answer(ours, ids, 5 + turn % 4)
            assert reply == answer(native, ids, 5 + turn % 4)
            ids += reply
            graphs = graphs or stats["unique_graphs"]
            assert graphs > 0
            assert stats["unique_graphs"] == graphs
        assert not torch._dynamo.utils.counters["graph_break"]


class Warnings:
    """A ``Watcher`` that keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.messages: list[str] = []

    def begin(self, what: str) -> None:
        self.begun.append(what)

    def warn(self, message: str, **values: object) -> None:
        self.messages.append(message.format(**values))


def test_without_a_compiler_there_is_one_warning(
    demo: PackedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_engine, "native_operators", no_operators)
    told = Warnings()
    with TorchEngine(demo, settings("int8"), "on", told) as engine:
        assert engine.compiled == "off"
        assert len(answer(engine, [5, 6, 7], 3)) == 3
    assert len(told.messages) == 1
    assert "There is no C++ compiler" in told.messages[0]


@pytest.mark.parametrize("mode", ["on", "auto"])
def test_a_failed_compilation_is_one_warning(
    mode: str, demo: PackedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the compiler crashed\nand said so at length")

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(torch_package, "make_package", fail)
    monkeypatch.setattr(torch_package, "find_package", lambda *_: None)
    told = Warnings()
    with TorchEngine(demo, settings("int8"), mode, told) as engine:
        assert engine.compiled == "off"
        with open_engine("eager", demo, settings("int8")) as eager:
            assert answer(engine, [5, 6, 7], 8) == answer(eager, [5, 6, 7], 8)
    assert len(told.messages) == 1
    assert "the compiler crashed" in told.messages[0]
    assert "at length" not in told.messages[0]
