"""The weights of a model as llama.cpp's own quantization rounds them, read back by gguf.

The importance matrix holds what llama.cpp's tool collects, the mean square of each input, measured
here on the calibration text with transformers and handed to ``llama_model_quantize``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize

from benchmarks.quality.subjects import LENGTH, Subject
from qwen_edge.model.convert import convert
from qwen_edge.model.export_gguf import export_gguf
from qwen_edge.model.gguf_names import gguf_name
from qwen_edge.model.packed import open_model
from qwen_edge.quant.layout import WeightFormat

CASES: dict[str, tuple[str, bool, bool]] = {
    "llama.cpp Q4_0": ("Q4_0", False, False),
    "llama.cpp Q4_0, pure, importance": ("Q4_0", True, True),
    "llama.cpp Q4_0, importance": ("Q4_0", False, True),
    "llama.cpp IQ4_NL, pure, importance": ("IQ4_NL", True, True),
    "llama.cpp IQ4_NL, importance": ("IQ4_NL", False, True),
    "llama.cpp Q4_K_M, importance": ("Q4_K_M", False, True),
}
"""File type, whether every tensor has it, whether with the importance matrix."""


def importance(subject: Subject, calibration: str) -> dict[str, np.ndarray]:
    """The mean square of each matrix's inputs, by ggml's names."""
    ids = subject.tokenizer().encode(calibration, add_special_tokens=False).ids
    sums: dict[str, torch.Tensor] = {}
    model = subject.model()

    def watch(name: str) -> None:
        def hook(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].flatten(0, -2)
            sums[name] = sums.get(name, torch.zeros(rows.shape[1])) + rows.square().sum(0)

        model.get_submodule(name).register_forward_pre_hook(hook)

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            watch(name)
    with torch.inference_mode():
        for begin in range(0, len(ids), LENGTH):
            model(torch.tensor([ids[begin : begin + LENGTH]]))
    tied = model.config.tie_word_embeddings
    return {
        gguf_name(
            "model.embed_tokens.weight" if tied and name == "lm_head" else f"{name}.weight"
        ): (squares / len(ids)).numpy()
        for name, squares in sums.items()
    }


def write_floats(subject: Subject, path: Path) -> None:
    """The checkpoint as GGUF in fp32."""
    packed = path.with_suffix(".qedge")
    convert(subject.folder, packed, overrides=[("*", WeightFormat("f32", 0, False, ()))])
    with open_model(packed) as model:
        export_gguf(model, path)


def read_weights(path: Path, names: Mapping[str, str]) -> tuple[dict[str, torch.Tensor], float]:
    """The matrices of a GGUF by their Hugging Face names, and bits for each weight."""
    weights, size, count = {}, 0, 0
    for tensor in gguf.GGUFReader(path).tensors:
        if len(tensor.shape) < 2 or min(tensor.shape) == 1:
            continue
        values = dequantize(tensor.data, tensor.tensor_type)
        weights[names[tensor.name]] = torch.from_numpy(values.astype(np.float32))
        size += int(tensor.n_bytes)
        count += values.size
    return weights, 8 * size / count


class Llama:
    """llama.cpp's quantization of one subject; ``python`` has llama-cpp-python and numpy."""

    def __init__(self, subject: Subject, python: Path, calibration: str) -> None:
        self._python = python
        self._names = {gguf_name(name): name for name in subject.weights()}
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name)
        write_floats(subject, self._path / "f32.gguf")
        np.savez(self._path / "importance.npz", **importance(subject, calibration))

    def rounded(self, case: str) -> tuple[dict[str, torch.Tensor], float]:
        """The weights, and bits for each weight of a matrix."""
        kind, pure, guided = CASES[case]
        output = self._path / "rounded.gguf"
        script = Path(__file__).with_name("llama_quantize.py")
        command = [str(self._python), str(script), str(self._path / "f32.gguf"), str(output), kind]
        command += ["--pure"] if pure else []
        command += ["--importance", str(self._path / "importance.npz")] if guided else []
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            sys.exit(run.stderr[-4000:])
        return read_weights(output, self._names)
