"""``convert --to`` and GGUF files on the command line."""

from __future__ import annotations

from pathlib import Path

from qwen_edge.model.packed import open_model
from qwen_edge.session.models import demo_path
from tests.cli.running import run


def test_gguf_and_back(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "d.gguf"
    result = run("convert", "demo", "--to", "gguf", "-o", file, home=home)
    assert (result.returncode, result.stdout) == (0, f"{file}\n"), result.stderr
    assert "every weight is what it was" in result.stderr
    refused = run("run", "--model", file, "Hello", home=home)
    assert refused.returncode == 3
    assert "is a GGUF file" in refused.stderr
    assert f"`qwen-edge convert {file} -o d.qedge`" in refused.stderr
    assert f"请先转换：`qwen-edge convert {file} -o d.qedge`" in (
        run("chat", "-m", file, home=home, LC_ALL="zh_CN.UTF-8").stderr
    )
    # Without -o it becomes one of the models of this device, found by the file's name.
    result = run("convert", file, home=home)
    assert result.returncode == 0, result.stderr
    assert "36 of 36 matrices are taken over code for code" in result.stderr
    assert Path(result.stdout.strip()).name == "d.qedge"
    prompt = ("--no-think", "-t", "0", "What is 17 + 25?")
    answers = [run("run", "--model", name, *prompt, home=home).stdout for name in ("d", "demo")]
    assert answers[0] == answers[1] != ""
    with open_model(Path(result.stdout.strip())) as model, open_model(demo_path()) as demo:
        assert (model.name, model.source, model.config) == ("d", "d.gguf", demo.config)


def test_safetensors(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    result = run("convert", "demo", "--to", "safetensors", "-o", folder, home=home)
    assert (result.returncode, result.stdout) == (0, f"{folder}\n"), result.stderr
    assert "the weights are off by 0.17%" in result.stderr
    again = run("convert", "demo", "--to", "safetensors", "-o", folder, home=home)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    exact = run(
        "convert", "demo", "--to", "safetensors", "--dtype", "f32", "-o", tmp_path / "x", home=home
    )
    assert "every weight is what it was" in exact.stderr


def test_what_does_not_go_together_is_refused(home: Path, tmp_path: Path) -> None:
    for arguments, problem in (
        (("demo", "--to", "onnx"), "gguf or safetensors, not onnx"),
        (("demo", "--to", "gguf", "--bits", "4"), "neither --bits nor --name"),
        (("demo", "--to", "gguf", "--dtype", "f8"), "bf16, f16 or f32, not f8"),
        ((tmp_path, "--dtype", "f16"), "--dtype goes with --to"),
        ((demo_path(),), "is a model file already"),
    ):
        result = run("convert", *arguments, home=home)
        assert result.returncode == 2
        assert problem in result.stderr
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    result = run("convert", tmp_path / "x.gguf", home=home)
    assert result.returncode == 5
    assert "only 4 bytes" in result.stderr
    assert run("convert", "nothing", home=home).returncode == 3
    assert run("convert", "nothing", "--to", "gguf", home=home).returncode == 3
