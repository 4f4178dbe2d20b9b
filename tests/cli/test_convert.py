from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwen_edge.cli import convert_options
from qwen_edge.cli.convert_options import Making, run_conversion
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.packed import ModelConfig, open_model
from qwen_edge.model.replacing_file import ReplacingFile
from qwen_edge.model.synthetic import byte_tokenizer_json
from qwen_edge.session.profile import MIB, read_profile
from tests.cli.program import environment
from tests.cli.running import TINY, run


def write_checkpoint(folder: Path, config: ModelConfig) -> Path:
    """A Hugging Face checkpoint of random bf16 weights, written as its documentation has it."""
    folder.mkdir(parents=True)
    fields = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "attention_bias": False,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "eos_token_id": 151645,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "tokenizer.json").write_bytes(byte_tokenizer_json())
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    random = np.random.default_rng(1)
    header: dict[str, object] = {}
    parts, offset = [], 0
    for name, shape in tensor_shapes(config).items():
        values = random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [offset, offset + len(data)],
        }
        parts.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for part in parts:
            file.write(part)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "Tiny-Qwen", TINY)


@pytest.mark.parametrize(("bits", "group", "worst"), [(4, 32, 0.12), (8, 64, 0.01)])
def test_convert_writes_a_model(
    tmp_path: Path, checkpoint: Path, bits: int, group: int, worst: float
) -> None:
    target = tmp_path / "made.qedge"
    result = run(
        "convert", checkpoint, "-o", target, "--bits", bits, "--group", group, home=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{target}\n"
    with open_model(target) as model:
        assert model.config == TINY
        assert model.name == "Tiny-Qwen"
        assert model.quantization["bits"] == bits
        assert model.tensors["model.layers.0.mlp.up_proj.weight"].group == group
    assert "weights are off by" in result.stderr
    share = float(result.stderr.split("off by ")[1].split("%")[0]) / 100
    assert 0 < share < worst
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".qedge"] in ([], ["qe"])


def test_without_output_it_joins_the_models_of_the_device(tmp_path: Path, checkpoint: Path) -> None:
    result = run("convert", checkpoint, "--name", "mine", home=tmp_path)
    assert result.returncode == 0, result.stderr
    path = tmp_path / "qe" / "models" / "mine-int4.qedge"
    assert result.stdout == f"{path}\n"
    assert path.is_file()
    info = run("models", "info", "mine", "--json", home=tmp_path)
    assert json.loads(info.stdout)["name"] == "mine"


def test_what_killed_conversions_left_leaves_the_models_of_the_device(
    tmp_path: Path, checkpoint: Path
) -> None:
    store = tmp_path / "qe" / "models"
    store.mkdir(parents=True)
    dead, elsewhere = (folder / ".dead.qedge.00000000.partial" for folder in (store, tmp_path))
    for path in (dead, elsewhere):
        path.write_bytes(b"x" * 100)
    with ReplacingFile(store / "other.qedge", 100) as file:
        living = file.path
        options = ("--method", "nearest")
        result = run("convert", checkpoint, "--name", "mine", *options, home=tmp_path)
        assert result.returncode == 0, result.stderr
        assert living.exists()
        result = run("convert", checkpoint, "-o", tmp_path / "a.qedge", *options, home=tmp_path)
        assert result.returncode == 0, result.stderr
    assert not dead.exists()
    # Another folder may have such files of other programs.
    assert elsewhere.exists()


@pytest.mark.parametrize(
    ("extra", "code", "complaint"),
    [
        (("--bits", "3"), 2, "3"),
        (("--group", "48"), 2, "48"),
        (("--threads", "-1"), 2, "threads"),
        (("--bits", "four"), 2, "--bits"),
        (("--name", "../x"), 2, "../x"),
    ],
)
def test_wrong_options(
    tmp_path: Path, checkpoint: Path, extra: tuple[str, ...], code: int, complaint: str
) -> None:
    result = run("convert", checkpoint, *extra, home=tmp_path)
    assert result.returncode == code, result.stderr
    assert complaint in result.stderr
    assert not list(tmp_path.rglob("*.qedge"))


def test_missing_and_damaged_checkpoints(tmp_path: Path, checkpoint: Path) -> None:
    target = tmp_path / "x.qedge"
    assert run("convert", tmp_path / "none", "-o", target, home=tmp_path).returncode == 3
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("convert", empty, "-o", target, home=tmp_path).returncode in (3, 5)
    cut = tmp_path / "cut"
    cut.mkdir()
    for file in checkpoint.iterdir():
        data = file.read_bytes()
        short = data[: len(data) // 2] if file.suffix == ".safetensors" else data
        (cut / file.name).write_bytes(short)
    result = run("convert", cut, "-o", target, home=tmp_path)
    assert result.returncode == 5
    assert "hint:" in result.stderr
    assert not target.exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_broken_off_it_leaves_the_old_file_and_no_litter(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    from dataclasses import replace

    large = write_checkpoint(tmp_path / "large", replace(TINY, hidden_size=256, layers=1))
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "model.qedge"
    target.write_bytes(b"old")
    process = subprocess.Popen(
        [sys.executable, "-m", "qwen_edge", "convert", large, "-o", target, "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path / "qe"),
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob(".*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, "the conversion ended before it could be interrupted"
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert output == ""
    assert "Traceback" not in errors
    assert target.read_bytes() == b"old"
    assert [path.name for path in folder.iterdir()] == ["model.qedge"]


@pytest.mark.parametrize("method", [None, "gptq"])
def test_too_little_memory_for_the_usual_method(
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: str | None,
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    profile = replace(read_profile(), available_ram=MIB)
    monkeypatch.setattr(convert_options, "read_profile", lambda: profile)
    making = Making(None, 32, method, "iq4_nl", None, None, 1)
    made = run_conversion(checkpoint, tmp_path / "made.qedge", "made", making)
    warning = "There is too little memory for the method gptq: nearest was used"
    # What is asked for by name is done.
    assert made.method == (method or "nearest")
    assert (warning in capsys.readouterr().err) == (method is None)
