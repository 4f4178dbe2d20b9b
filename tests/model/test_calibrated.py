"""The walk through a model: its inputs are transformers', and what it leaves behind."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from qwen_edge.errors import UsageError
from qwen_edge.model.calibrated import Stored, walk, walk_bytes
from qwen_edge.model.config import EMBEDDING, HEAD, tensor_shapes
from qwen_edge.model.convert import convert, open_source
from qwen_edge.model.packed import open_model
from qwen_edge.quant.layout import Layout
from qwen_edge.quant.methods import METHODS, Guide
from qwen_edge.quant.packing import dequantize
from tests.engine.oracle import SHAPES, random_model, save_checkpoint

Floats = npt.NDArray[np.float32]
TEXT = "The quick brown fox jumps over the lazy dog. " * 30 + "敏捷的狐狸跳过懒狗。" * 20


@pytest.fixture(params=["untied", "wide-heads"])
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def checkpoint(shape: str, tmp_path: Path) -> Path:
    return save_checkpoint(random_model(SHAPES[shape]), tmp_path / "hf")


def exact_store(folder: Path, guides: dict[str, Guide | None]) -> Callable[..., Stored | None]:
    """Keeps every tensor as it is, in fp32, and the guide that it would be rounded by."""
    source = open_source(folder)

    def store(name: str, guide: Guide | None = None, keep: bool = False) -> Stored | None:
        guides[name] = guide
        tensor = source.tensors[name]
        found = tensor.floats(0, tensor.rows)
        data = bytearray(4 * tensor.rows * tensor.cols)
        target = (ctypes.c_ubyte * len(data)).from_buffer(data)
        dequantize(Layout(found.type, tensor.rows, tensor.cols), found.data, target)
        return Stored(Layout("f32", tensor.rows, tensor.cols), data) if keep else None

    return store


def hooked_squares(model: torch.nn.Module, ids: list[int], length: int) -> dict[str, Floats]:
    """Sums of squares of every linear layer's inputs, by hooks of torch."""
    sums: dict[str, Floats] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            sums[name] = sums.get(name, 0) + (rows**2).sum(0).numpy()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(watch(f"{name}.weight"))
    with torch.no_grad():
        for begin in range(0, len(ids), length):
            model(torch.tensor([ids[begin : begin + length]]))
    return sums


def test_the_inputs_are_those_of_transformers(shape: str, checkpoint: Path) -> None:
    ids = [int(i) for i in np.random.default_rng(2).integers(0, SHAPES[shape]["vocab_size"], 1300)]
    guides: dict[str, Guide | None] = {}
    with open_source(checkpoint) as source:
        names = set(tensor_shapes(source.config))
        walk(source, ids, "aware", names, exact_store(checkpoint, guides))
        assert set(guides) == names
        tied = source.config.tied
    truth = hooked_squares(random_model(SHAPES[shape]), ids, 512)
    if tied:
        truth[EMBEDDING] = truth.pop(HEAD)
    for name, squares in truth.items():
        guide = guides[name]
        assert guide is not None, name
        assert guide.importance is not None, name
        found = np.ctypeslib.as_array(guide.importance)
        np.testing.assert_allclose(found, squares, rtol=2e-3, atol=1e-5 * squares.max())
    assert {name for name, guide in guides.items() if guide} == set(truth)


def test_only_what_is_rounded_has_a_guide(checkpoint: Path) -> None:
    guides: dict[str, Guide | None] = {}
    down = "model.layers.1.mlp.down_proj.weight"
    key = "model.layers.0.self_attn.k_proj.weight"
    with open_source(checkpoint) as source:
        walk(source, [5], "gptq", {down, key}, exact_store(checkpoint, guides))
    # Those with the same inputs share it.
    together = {key, key.replace("k_proj", "q_proj"), key.replace("k_proj", "v_proj")}
    assert {name for name, guide in guides.items() if guide} == {down, *together}


def logits(folder: Path, path: Path, shape: str, ids: list[int]) -> Floats:
    """Of transformers, with the weights of a model file."""
    model = random_model(SHAPES[shape])
    with open_model(path) as packed, torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.empty(parameter.shape)
            dequantize(packed.tensors[name].layout, packed.address(name), values.data_ptr())
            parameter.copy_(values)
        return model(torch.tensor([ids])).logits[0].numpy()  # type: ignore[no-any-return]


def test_compensation_brings_the_logits_nearer(
    shape: str, checkpoint: Path, tmp_path: Path
) -> None:
    ids = list((TEXT[:400] + TEXT[-60:]).encode())
    with torch.no_grad():
        truth = random_model(SHAPES[shape])(torch.tensor([ids])).logits[0].numpy()
    off = {}
    for method in ("nearest", "gptq"):
        path = tmp_path / f"{method}.qedge"
        convert(checkpoint, path, method=method, codebook="iq4_nl", calibration=TEXT)
        found = logits(checkpoint, path, shape, ids)
        off[method] = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    assert off["gptq"] < off["nearest"]


@pytest.mark.parametrize("method", ["aware", "gptq"])
def test_the_threads_do_not_matter(checkpoint: Path, tmp_path: Path, method: str) -> None:
    made = set()
    for threads in (1, 2, 5):
        path = tmp_path / "out.qedge"
        convert(checkpoint, path, method=method, calibration=TEXT, threads=threads)
        made.add(path.read_bytes())
    assert len(made) == 1


def test_what_the_file_says(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "a.qedge", method="gptq", codebook="iq4_nl")
    convert(checkpoint, tmp_path / "b.qedge", method="aware", calibration=TEXT, bits=8)
    with open_model(tmp_path / "a.qedge") as model:
        assert model.quantization["method"] == "errors compensated column by column"
    with open_model(tmp_path / "b.qedge") as model:
        assert model.quantization["method"] == "scales searched by the size of the inputs"
        assert model.quantization["bits"] == 8


def test_a_method_and_a_text_that_do_not_serve(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no method best"):
        convert(checkpoint, tmp_path / "out.qedge", method="best")
    with pytest.raises(UsageError, match="text is empty"):
        convert(checkpoint, tmp_path / "out.qedge", method="gptq", calibration="")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("at", ["model.layers.0.self_attn.q_proj.weight",
                                "model.layers.2.mlp.down_proj.weight", EMBEDDING])  # fmt: skip
def test_breaking_off_leaves_nothing(checkpoint: Path, tmp_path: Path, at: str) -> None:
    output = tmp_path / "out.qedge"
    output.write_bytes(b"old")

    def stop(done: int, total: int, name: str) -> None:
        assert 0 <= done <= total
        if name == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, output, method="gptq", calibration=TEXT, progress=stop)
    assert output.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "out.qedge"]


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """Three times the layers of 6 MB each, the same peak; and nothing heavy is imported."""
    script = """
import json, sys
from pathlib import Path
from qwen_edge.model.convert import convert

convert(Path(sys.argv[1]), Path(sys.argv[2]), method="gptq", calibration="a text " * 200)
lines = open("/proc/self/status").read().splitlines()
peak = int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0]) << 10
heavy = [name for name in ("torch", "numpy", "safetensors", "jinja2") if name in sys.modules]
print(json.dumps({"peak": peak, "heavy": heavy}))
"""
    peaks, expected = [], 0
    for layers in (2, 6):
        wide = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": layers,
                "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
                "vocab_size": 300, "tie_word_embeddings": True}  # fmt: skip
        folder = tmp_path / str(layers)
        save_checkpoint(random_model(wide).bfloat16(), folder)
        command = [sys.executable, "-c", script, folder, tmp_path / "out.qedge"]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        figures = json.loads(run.stdout)
        assert figures["heavy"] == []
        peaks.append(figures["peak"])
        with open_source(folder) as source:
            expected = walk_bytes(source.config, "gptq", 1400)
    # The four layers more are 20 MB as they come.
    assert peaks[1] - peaks[0] < 8e6
    assert max(peaks) <= expected


def test_what_takes_too_much_memory_gives_way(checkpoint: Path, tmp_path: Path) -> None:
    def used(memory: int | None, method: str = "gptq") -> tuple[str, str]:
        made = convert(checkpoint, tmp_path / "out", method=method, calibration=TEXT, memory=memory)
        with open_model(tmp_path / "out") as model:
            assert model.quantization["method"] == METHODS[made.method]
        return made.method, made.too_large

    with open_source(checkpoint) as source:
        config = source.config
    tokens = len(TEXT.encode())
    enough = walk_bytes(config, "gptq", tokens)
    assert used(None) == used(enough) == ("gptq", "")
    assert used(walk_bytes(config, "aware", 1)) == ("nearest", "gptq")
    assert used(0, "aware") == ("nearest", "aware")
    assert used(0, "nearest") == ("nearest", "")
    # Between the two: the squares of the inputs fit in, their second moments do not.
    assert walk_bytes(config, "aware", tokens) < enough
    assert used(walk_bytes(config, "aware", tokens)) == ("aware", "gptq")
