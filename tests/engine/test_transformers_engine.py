"""The transformers engine: the interface's duties, its oracle's role, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from qwen_edge.engine.generate import Generation
from qwen_edge.engine.interface import Engine, EngineConfig, Row, SamplingParams
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.transformers_engine import TransformersEngine
from qwen_edge.errors import DamagedModelError, MemoryLimitError, QwenEdgeError, UsageError
from qwen_edge.model.checkpoint_folder import open_folder
from qwen_edge.model.convert import convert
from qwen_edge.model.export_checkpoint import export_checkpoint
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.quant.layout import WeightFormat
from qwen_edge.session.opened import open_tokenizer
from qwen_edge.text.chat_template import encode_chat
from tests.engine.conftest import QUESTIONS
from tests.engine.oracle import (
    SHAPES,
    array,
    engine_logits,
    native_logits,
    random_model,
    relative_error,
    save_checkpoint,
)  # fmt: skip

GREEDY = SamplingParams(temperature=0)
CONFIG = EngineConfig(context=256, threads=1, prefill_threads=1, prefill_rows=16, sequences=2)
EXACT = {"kv_type": "f32", "activations": "f32"}
FLOATS = WeightFormat("f32", 0, False, ())
TOKENS = 64


@pytest.fixture(scope="module")
def folder(demo: PackedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's weights as a checkpoint of floats, exactly."""
    path = tmp_path_factory.mktemp("checkpoint") / "demo-f32"
    export_checkpoint(demo, path, floats="f32")
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[TransformersEngine]:
    with TransformersEngine(open_folder(folder), CONFIG, "f32") as engine:
        yield engine


@pytest.fixture
def prompt(texts: list[list[int]]) -> list[int]:
    return texts[0][:40]


def greedy(engine: Engine, prompt: Sequence[int], tokens: int = TOKENS) -> list[int]:
    steps = Generation(engine, prompt, GREEDY, max_tokens=tokens, stop_ids=())
    return [step.id for step in steps]


def test_logits_are_those_of_the_native_oracle(
    engine: TransformersEngine, demo: PackedModel, texts: list[list[int]]
) -> None:
    for ids in texts[:3]:
        ids = ids[:120]
        ours = native_logits(demo, ids, **EXACT)
        assert relative_error(engine_logits(engine, ids), ours) < 1e-4


def test_a_rotary_base_of_its_own(tmp_path: Path) -> None:
    save_checkpoint(random_model(SHAPES["untied"]), tmp_path / "hf")
    table = json.loads((tmp_path / "hf" / "config.json").read_text())
    table.pop("rope_parameters", None)
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**table, "rope_theta": 5e5}))
    convert(tmp_path / "hf", tmp_path / "m.qedge", overrides=[("*", FLOATS)])
    ids = list(range(3, 63))
    with (
        open_model(tmp_path / "m.qedge") as packed,
        TransformersEngine(open_folder(tmp_path / "hf"), CONFIG, "f32") as engine,
    ):
        assert packed.config.rope_theta == 5e5
        truth = native_logits(packed, ids, **EXACT)
        assert relative_error(engine_logits(engine, ids), truth) < 1e-4


def test_the_same_answer_however_it_is_computed(
    engine: TransformersEngine, folder: Path, prompt: list[int], demo: PackedModel
) -> None:
    expected = greedy(engine, prompt)
    with NativeEngine(demo, EngineConfig(context=256, threads=1, **EXACT)) as native:  # type: ignore[arg-type]
        assert greedy(native, prompt) == expected
    config = EngineConfig(context=256, threads=1, prefill_rows=7, keep_cache=False)
    with TransformersEngine(open_folder(folder), config, "f32") as anew:
        generation = Generation(anew, prompt, GREEDY, max_tokens=20, stop_ids=())
        assert [step.id for step in generation] == expected[:20]
        assert generation.stats.cached_tokens == 0


def test_without_its_cache_the_library_sees_the_whole_sequence(
    folder: Path, prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EngineConfig(context=256, threads=1, prefill_rows=16, keep_cache=False)
    with TransformersEngine(open_folder(folder), config, "f32") as anew:
        calls: list[tuple[int, bool]] = []

        def note(module: Any, given: Any, named: dict[str, Any]) -> None:
            calls.append((named["input_ids"].shape[1], named["use_cache"]))

        anew._model.register_forward_pre_hook(note, with_kwargs=True)
        greedy(anew, prompt, 3)
        assert calls == [(len(prompt) + i, False) for i in range(3)]


def test_the_cache_is_cut_and_shared(engine: TransformersEngine, prompt: list[int]) -> None:
    whole = engine_logits(engine, prompt)
    engine.truncate(10)
    assert list(engine.cached_ids()) == prompt[:10]
    engine.fork(0, 1, 8)
    assert list(engine.cached_ids(1)) == prompt[:8]
    # Rows of two sequences in one call, interleaved.
    rows = [Row(1, 8, prompt[8], True), Row(0, 10, prompt[10], True), Row(1, 9, prompt[9], True)]
    found = [array(logits) for logits in engine.forward(rows)]
    for logits, position in zip(found, (8, 10, 9), strict=True):
        assert relative_error(logits, whole[position]) < 1e-5
    assert engine.forward([Row(0, 11, prompt[11])]) == []
    engine.fork(0, 0, 5)
    assert list(engine.cached_ids()) == prompt[:5]
    assert list(engine.cached_ids(1)) == prompt[:10]


def test_rows_out_of_range(engine: TransformersEngine) -> None:
    engine.truncate(0)
    engine.truncate(0, 1)
    for row in (Row(2, 0, 5), Row(0, 1, 5), Row(0, -1, 5), Row(0, 0, -1), Row(0, 0, 1 << 20)):
        with pytest.raises(UsageError):
            engine.forward([row])
    with pytest.raises(UsageError, match="at most 16 rows"):
        engine.forward([Row(0, i, 5) for i in range(17)])
    for call in (lambda: engine.truncate(1), lambda: engine.fork(0, 1, 1)):
        with pytest.raises(UsageError):
            call()
    assert list(engine.cached_ids()) == []


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: not enough memory"
        ),
        MemoryError(),
        KeyboardInterrupt(),
        RuntimeError("something else"),
    ],
)
def test_a_call_that_fails_halfway(
    engine: TransformersEngine, prompt: list[int], failure: BaseException
) -> None:
    whole = engine_logits(engine, prompt)
    engine.truncate(20)
    layer = engine._model.model.layers[3]

    def fail(*ignored: object) -> None:
        raise failure

    handle = layer.register_forward_pre_hook(fail)
    about_memory = isinstance(failure, MemoryError) or "memory" in str(failure)
    with pytest.raises(MemoryLimitError if about_memory else type(failure)):
        engine.forward([Row(0, 20, prompt[20], True)])
    handle.remove()
    assert list(engine.cached_ids()) == prompt[:20]
    logits = engine.forward([Row(0, 20, prompt[20], True)])[0]
    assert relative_error(array(logits), whole[20]) < 1e-5


def test_a_closed_engine_says_so(folder: Path) -> None:
    engine = TransformersEngine(open_folder(folder), CONFIG)
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.forward([Row(0, 0, 1)])


@pytest.mark.parametrize(
    ("weights", "double", "worst"),
    [("bf16", False, 0.03), ("nf4", False, 0.4), ("nf4", True, 0.4), ("fp4", False, 0.5),
     ("int8", False, 0.15)],
)  # fmt: skip
def test_kinds_of_weights(
    folder: Path, prompt: list[int], engine: TransformersEngine, weights: str, double: bool,
    worst: float, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    truth = engine_logits(engine, prompt)
    with TransformersEngine(open_folder(folder), CONFIG, weights, double_quant=double) as held:
        found = engine_logits(held, prompt)
        linear = held._model.model.layers[0].mlp.down_proj
        bytes_each = linear.weight.element_size() * linear.weight.numel() / (256 * 768)
    # How far off a format is; hardly anything would be if it had not come to pass.
    assert 1e-4 < relative_error(found, truth) < worst
    assert bytes_each == {"bf16": 2, "int8": 1}.get(weights, 0.5)
    # Neither progress bars nor warnings.
    assert capfd.readouterr() == ("", "")


def quantized(folder: Path, output: Path, **settings: Any) -> Path:
    """The checkpoint as bitsandbytes and transformers write it."""
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=BitsAndBytesConfig(**settings),
        device_map="cpu",
        dtype=torch.float32,
    )
    model.save_pretrained(output)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(folder / name, output)
    return output


@pytest.mark.parametrize("double", [False, True])
def test_nf4_answers_like_the_native_engine(folder: Path, tmp_path: Path, double: bool) -> None:
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": double}
    path = quantized(folder, tmp_path / "nf4", **nf4)
    # What bitsandbytes left as floats stays so; everything else is taken over.
    overrides = [("model.embed_tokens.weight", FLOATS)]
    convert(path, tmp_path / "m.qedge", overrides=overrides)
    opened = open_folder(path)
    assert opened.quantized is not None
    assert (opened.quantized.kind, opened.quantized.double) == ("nf4", double)
    config = EngineConfig(context=256, threads=1)
    exact = EngineConfig(context=256, threads=1, **EXACT)  # type: ignore[arg-type]
    with (
        open_model(tmp_path / "m.qedge") as packed,
        NativeEngine(packed, exact) as native,
        # The setting has no say where the checkpoint is quantized.
        TransformersEngine(opened, config, "bf16") as library,
    ):
        tokenizer = open_tokenizer(packed)
        for question in QUESTIONS[:4]:
            said = [{"role": "user", "content": question}]
            prompt = encode_chat(tokenizer, packed.chat_template, said, enable_thinking=False)
            assert greedy(library, prompt) == greedy(native, prompt)


def break_config(**changes: object) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def without(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).unlink()


def cut(path: Path) -> None:
    weights = path / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1000)


def pickled(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "not JSON": (lambda path: (path / "config.json").write_text("{"), "config.json"),
    "no config": (without("config.json"), "config.json"),
    "no tokenizer": (without("tokenizer.json"), "tokenizer.json"),
    "no weights": (without("model.safetensors"), "safetensors"),
    "pickle": (pickled, "pickled"),
    "truncated": (cut, "truncated"),
    "other kind": (break_config(model_type="llama"), "llama"),
    "other shape": (break_config(hidden_size=512), "config.json says"),
    "huge": (break_config(num_hidden_layers=10**9), "layers"),
    "GPTQ": (
        break_config(quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 32}),
        "gptq",
    ),
    "no bits": (break_config(quantization_config={"quant_method": "bitsandbytes"}), "4 nor 8"),
    "compute type": (
        break_config(
            quantization_config={
                "quant_method": "bitsandbytes", "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "os.system",
            }
        ),
        "compute_dtype",
    ),
    "claims 4 bits": (
        break_config(
            quantization_config={
                "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
            }
        ),
        "no tensor is quantized",
    ),
    "adapter": (
        lambda path: (path / "adapter_config.json").write_text("{}"), "LoRA adapter",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_folders_are_one_sentence(folder: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "broken"
    shutil.copytree(folder, path)
    change, said = BROKEN[kind]
    change(path)
    with pytest.raises(QwenEdgeError) as caught:
        TransformersEngine(open_folder(path), CONFIG)
    error = caught.value
    assert said in str(error)
    assert "\n" not in str(error)
    assert error.hint
    assert error.exit_code in (3, 5)


def test_code_in_a_folder_is_never_run(folder: Path, tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "code"
    shutil.copytree(folder, path)
    (path / "modeling_evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w').close()\n")
    break_config(
        auto_map={"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.C"},
        attn_implementation="evil/kernel",
        _attn_implementation="evil/kernel",
    )(path)
    (path / "generation_config.json").write_text('{"temperature": 0.5, "num_beams": "many"}')
    with TransformersEngine(open_folder(path), CONFIG, "f32") as loaded:
        ids = [5, 6, 7]
        np.testing.assert_allclose(engine_logits(loaded, ids), engine_logits(engine, ids))
    assert not (tmp_path / "run").exists()


def test_missing_weights_are_never_made_up(folder: Path, tmp_path: Path) -> None:
    # 4-bit codes without what they stand for: the library would begin with random numbers.
    path = quantized(folder, tmp_path / "nf4", load_in_4bit=True, bnb_4bit_quant_type="nf4")
    break_config(quantization_config=None)(path)
    with pytest.raises(DamagedModelError):
        TransformersEngine(open_folder(path), CONFIG)
