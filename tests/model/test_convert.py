"""Conversion: the weights that come out are the quantizer's, whatever the checkpoint looks like."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from qwen_edge.errors import DamagedModelError, ModelNotFoundError, QwenEdgeError, UsageError
from qwen_edge.model.config import ModelConfig, tensor_shapes
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.model.synthetic import byte_tokenizer_json
from qwen_edge.quant.layout import NF4, UINT4, Layout, WeightFormat
from qwen_edge.quant.packing import dequantize
from qwen_edge.quant.round_to_nearest import quantize
from tests.model.files import BLOB, TINY, encode, random_weights, write_checkpoint

UNTIED = replace(TINY, tied=False)
Floats = npt.NDArray[np.float32]


def stored(model: PackedModel, name: str) -> bytes:
    return ctypes.string_at(model.address(name), model.tensors[name].nbytes)


def values(model: PackedModel, name: str) -> Floats:
    info = model.tensors[name]
    output = np.empty((info.rows, info.cols), np.float32)
    dequantize(info.layout, model.address(name), output.ctypes.data)
    return output


def quantized(layout: Layout, weights: Floats) -> bytes:
    data = np.zeros(layout.nbytes, np.uint8)
    weights = np.ascontiguousarray(weights)
    quantize(layout, weights.ctypes.data, "f32", data.ctypes.data)
    return data.tobytes()


def check_model(path: Path, weights: Any, bits: int, group: int) -> None:
    """Every tensor is the quantizer's, and near the source."""
    with open_model(path) as model:
        assert model.quantization["bits"] == bits
        for name, info in model.tensors.items():
            if name == "tokenizer":
                continue
            source = np.asarray(weights[name], np.float32)
            if source.ndim == 1:
                assert info.layout == Layout("f32", 1, len(source))
                assert np.array_equal(values(model, name)[0], source)
                continue
            assert (info.type, info.group) == (f"q{bits}", group)
            assert stored(model, name) == quantized(info.layout, source)
            off = np.linalg.norm(values(model, name) - source) / np.linalg.norm(source)
            assert off < {4: 0.11, 8: 0.0075}[bits]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(
    ("bits", "group", "config", "shards"),
    [(4, 32, TINY, 1), (4, 128, UNTIED, 2), (8, 32, UNTIED, 3), (8, 64, TINY, 1)],
)
def test_every_tensor_is_the_quantizers(
    tmp_path: Path, dtype: str, bits: int, group: int, config: ModelConfig, shards: int
) -> None:
    weights = write_checkpoint(tmp_path / "in", config, dtype=dtype, shards=shards)
    if dtype == "F16":
        weights = {n: w.astype(np.float16).astype(np.float32) for n, w in weights.items()}
    output = tmp_path / "out.qedge"
    result = convert(tmp_path / "in", output, bits=bits, group=group, tokenizer=BLOB)
    assert result.path == output
    assert result.size == output.stat().st_size
    assert result.error.count == sum(w.size for w in weights.values() if w.ndim == 2)
    assert result.worst_error.relative >= result.error.relative
    check_model(output, weights, bits, group)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_size", ["5GB", "100KB"])
def test_checkpoints_that_transformers_saves(
    tmp_path: Path, dtype: str, tied: bool, shard_size: str
) -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=32, vocab_size=261, tie_word_embeddings=tied,
        max_position_embeddings=512, rope_theta=1e6, eos_token_id=2,
    )  # fmt: skip
    source = Qwen3ForCausalLM(config).to(getattr(torch, dtype))
    source.save_pretrained(tmp_path / "in", max_shard_size=shard_size)
    sharded = (tmp_path / "in" / "model.safetensors.index.json").exists()
    assert sharded == (shard_size == "100KB")
    convert(tmp_path / "in", tmp_path / "out.qedge", tokenizer=BLOB)
    weights = {name: w.float().numpy() for name, w in source.state_dict().items()}
    check_model(tmp_path / "out.qedge", weights, 4, 32)
    with open_model(tmp_path / "out.qedge") as model:
        assert model.config == replace(TINY, tied=tied)
        assert model.generation.stop_ids == (2,)


def test_the_same_input_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{threads}.qedge" for threads in (1, 3)]
    for threads, path in zip((1, 3), files, strict=True):
        convert(checkpoint, path, tokenizer=BLOB, threads=threads)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_measured_error_is_in_the_file(checkpoint: Path, tmp_path: Path) -> None:
    result = convert(checkpoint, tmp_path / "out.qedge", tokenizer=BLOB, name="Tiny\x1b[2J one")
    with open_model(tmp_path / "out.qedge") as model:
        assert model.name == "Tiny[2J one"
        assert model.quantization["error"] == result.error.as_dict()
        assert model.quantization["worst"]["tensor"] == result.worst_name  # type: ignore[index]
    assert 0.06 < result.error.relative < 0.09
    assert 20 < result.error.sqnr_db < 24


def test_the_name_of_a_cached_repository(tmp_path: Path) -> None:
    folder = tmp_path / "models--Qwen--Qwen3-0.6B" / "snapshots" / "c1899de289a04d12"
    write_checkpoint(folder)
    convert(folder, tmp_path / "out.qedge", tokenizer=BLOB)
    with open_model(tmp_path / "out.qedge") as model:
        assert (model.name, model.source) == ("Qwen3-0.6B", "Qwen/Qwen3-0.6B")


def test_formats_by_name(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.qedge"
    overrides = (
        ("model.embed_tokens.*", WeightFormat("q8", 64, False, ())),
        ("*.layers.0.mlp.?own_proj.*", WeightFormat("f16", 0, False, ())),
        ("*.layers.0.*", WeightFormat("q4", 128, True, UINT4)),
        ("*norm*", WeightFormat("q8", 32, False, ())),
    )
    convert(checkpoint, path, bits=4, overrides=overrides, tokenizer=BLOB)
    weights = random_weights(TINY)
    with open_model(path) as model:
        kinds = {name: (info.type, info.group) for name, info in model.tensors.items()}
        assert kinds["model.embed_tokens.weight"] == ("q8", 64)
        assert kinds["model.layers.0.mlp.down_proj.weight"] == ("f16", 0)
        assert kinds["model.layers.0.mlp.up_proj.weight"] == ("q4", 128)
        assert kinds["model.layers.1.mlp.up_proj.weight"] == ("q4", 32)
        assert kinds["model.norm.weight"] == ("f32", 0)
        for name in ("model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight"):
            expected = quantized(model.tensors[name].layout, weights[name])
            assert stored(model, name) == expected
        assert model.tensors["model.layers.0.mlp.up_proj.weight"].has_min


def test_sixteen_bits_keep_bf16_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    result = convert(checkpoint, tmp_path / "out.qedge", bits=16, tokenizer=BLOB)
    assert result.error.relative == 0
    with open_model(tmp_path / "out.qedge") as model:
        name = "model.layers.1.mlp.up_proj.weight"
        assert stored(model, name) == encode(random_weights(TINY)[name], "BF16")


def test_other_codebooks(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.qedge"
    form = WeightFormat("q4", 64, False, NF4)
    convert(checkpoint, path, overrides=[("*", form)], tokenizer=BLOB)
    with open_model(path) as model:
        assert model.tensors["model.layers.0.self_attn.q_proj.weight"].codebook == NF4


def test_the_tokenizer_is_packed(tmp_path: Path) -> None:
    from qwen_edge.text.tokenizer import Tokenizer

    # A vocabulary that holds the byte tokenizer's special ids.
    wide = replace(TINY, vocab_size=151_680, hidden_size=32, intermediate_size=32, layers=1)
    write_checkpoint(tmp_path / "in", wide)
    (tmp_path / "in" / "tokenizer.json").write_bytes(byte_tokenizer_json())
    path = tmp_path / "out.qedge"
    convert(tmp_path / "in", path)
    with open_model(path) as model:
        info = model.tensors["tokenizer"]
        tokenizer = Tokenizer.from_blob(model.address("tokenizer"), info.nbytes, model)
        assert tokenizer.decode(tokenizer.encode("Grüße, 世界")) == "Grüße, 世界"


def test_a_tokenizer_with_more_tokens_than_the_model(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(byte_tokenizer_json())
    with pytest.raises(DamagedModelError, match=r"its tokenizer has 151669 tokens and its embed"):
        convert(tmp_path, tmp_path / "out.qedge")
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(DamagedModelError):
        convert(tmp_path, tmp_path / "out.qedge")
    assert not (tmp_path / "out.qedge").exists()


def test_progress_ends_at_the_total(checkpoint: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    convert(checkpoint, tmp_path / "out.qedge", tokenizer=BLOB, progress=lambda *a: calls.append(a))
    size = (checkpoint / "model.safetensors").stat().st_size
    assert calls[0][0] == 0
    assert calls[-1] == (calls[-1][1], calls[-1][1], "")
    assert size - 8192 < calls[-1][1] < size
    assert [call[0] for call in calls] == sorted(call[0] for call in calls)
    assert calls[0][2] == "model.embed_tokens.weight"


def test_large_matrices_go_in_slices(tmp_path: Path) -> None:
    # 27 MB of embedding, in slices of 8 MB that need not divide it.
    wide = replace(TINY, vocab_size=45_001, hidden_size=160, layers=1)
    weights = write_checkpoint(tmp_path / "in", wide, dtype="F32")
    calls: list[str] = []
    convert(
        tmp_path / "in",
        tmp_path / "out.qedge",
        tokenizer=BLOB,
        progress=lambda done, total, name: calls.append(name),
    )
    assert calls.count("model.embed_tokens.weight") == 4
    check_model(tmp_path / "out.qedge", weights, 4, 32)


@pytest.mark.parametrize("options", [{"bits": 3}, {"bits": 5}, {"group": 48}, {"group": 0}])
def test_formats_that_are_not_offered(
    checkpoint: Path, tmp_path: Path, options: dict[str, int]
) -> None:
    with pytest.raises(UsageError, match="cannot be stored that way"):
        convert(checkpoint, tmp_path / "out.qedge", tokenizer=BLOB, **options)  # type: ignore[arg-type]


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    weights = random_weights(TINY)
    bad = weights["model.layers.1.mlp.up_proj.weight"].copy()
    bad[77, 5] = np.inf
    write_checkpoint(tmp_path, weights=weights | {"model.layers.1.mlp.up_proj.weight": bad})
    with pytest.raises(
        DamagedModelError,
        match=r"in the tensor model\.layers\.1\.mlp\.up_proj\.weight, rows 0 and on, the weight in "
        r"row 77, column 5 is not a finite number\.",
    ):
        convert(tmp_path, tmp_path / "out.qedge", tokenizer=BLOB)
    assert not (tmp_path / "out.qedge").exists()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_disk_that_fills_up_on_the_way(checkpoint: Path, small_disk: Path) -> None:
    output = small_disk / "model.qedge"
    output.write_bytes(b"old")

    def fill(done: int, total: int, name: str) -> None:
        if name == "model.layers.1.input_layernorm.weight":
            with (small_disk / "filler").open("wb") as file:
                while True:
                    try:
                        os.write(file.fileno(), bytes(1 << 16))
                    except OSError:
                        return

    with pytest.raises(QwenEdgeError, match="of disk space and only 0 B are free") as caught:
        convert(checkpoint, output, tokenizer=BLOB, progress=fill)
    assert caught.value.exit_code == 1
    assert output.read_bytes() == b"old"
    assert left_in(small_disk) == ["filler", "model.qedge"]
    with pytest.raises(QwenEdgeError, match=r"needs 1.* KiB of disk space and only .* free"):
        convert(checkpoint, output, tokenizer=BLOB)


def test_a_file_size_limit_on_the_way(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.qedge"
    output.write_bytes(b"old")
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from qwen_edge.errors import QwenEdgeError\n"
        "from qwen_edge.model.convert import convert\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: convert(Path(sys.argv[1]), Path(sys.argv[2]), tokenizer=b'x')\n"
        "except QwenEdgeError as error: sys.exit(f'{error.exit_code} {error}')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, checkpoint, output], capture_output=True, text=True
    )
    assert run.stderr.startswith(f"1 {output} needs "), run.stderr
    assert "more than a file may have there." in run.stderr
    assert output.read_bytes() == b"old"
    assert left_in(tmp_path) == ["model.qedge"]


def test_folders_that_cannot_be_written(
    checkpoint: Path, read_only_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(QwenEdgeError, match=r"cannot be written: (Read-only|Permission)") as caught:
        convert(checkpoint, read_only_folder / "model.qedge", tokenizer=BLOB)
    assert caught.value.exit_code == 1
    with pytest.raises(ModelNotFoundError):
        convert(tmp_path / "none", tmp_path / "model.qedge", tokenizer=BLOB)
    with pytest.raises(QwenEdgeError, match="is a folder"):
        convert(checkpoint, tmp_path, tokenizer=BLOB)


SLOW_CONVERT = """
import sys, time
from pathlib import Path
from qwen_edge.model.convert import convert

def progress(done, total, name):
    if name == "model.layers.1.input_layernorm.weight":
        print("halfway", flush=True)
        time.sleep(60)

convert(Path(sys.argv[1]), Path(sys.argv[2]), tokenizer=b"x", progress=progress)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_conversion_that_is_killed(
    checkpoint: Path, tmp_path: Path, how: signal.Signals, old: bytes | None
) -> None:
    output = tmp_path / "model.qedge"
    if old:
        output.write_bytes(old)
    command = [sys.executable, "-c", SLOW_CONVERT, str(checkpoint), str(output)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "halfway\n"
        process.send_signal(how)
        process.communicate(timeout=30)
    assert (output.read_bytes() if output.exists() else None) == old
    leftovers = [name for name in left_in(tmp_path) if name != "model.qedge"]
    # Ctrl-C cleans up; nothing can after SIGKILL but the next run.
    assert len(leftovers) == (1 if how == signal.SIGKILL else 0)
    convert(checkpoint, output, tokenizer=BLOB)
    assert left_in(tmp_path) == ["model.qedge"]
    open_model(output).close()


def test_little_memory_and_no_heavy_imports(tmp_path: Path) -> None:
    """A 64 MB checkpoint, mostly one matrix, may not show in the peak."""
    wide = replace(TINY, vocab_size=100_000, hidden_size=320, layers=1)
    pool = random_weights(TINY)["model.embed_tokens.weight"]
    shapes = tensor_shapes(wide).items()
    weights = {name: np.resize(pool, shape) for name, shape in shapes}
    write_checkpoint(tmp_path / "in", wide, weights=weights)
    script = """
import json, sys
from pathlib import Path
from qwen_edge.model.convert import convert

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0]) << 10

before = peak()
convert(Path(sys.argv[1]), Path(sys.argv[2]), tokenizer=b"x")
heavy = [name for name in ("torch", "numpy", "safetensors", "jinja2") if name in sys.modules]
print(json.dumps({"grown": peak() - before, "heavy": heavy}))
"""
    command = [sys.executable, "-c", script, tmp_path / "in", tmp_path / "out.qedge"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(run.stdout)
    assert figures["heavy"] == []
    assert figures["grown"] < 30e6


def test_the_config_survives(checkpoint: Path, model_file: Path) -> None:
    with open_model(model_file) as model:
        assert asdict(model.config) == asdict(TINY)
