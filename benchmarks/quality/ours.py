"""The weights of a model as ``qwen-edge convert`` rounds them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.subjects import Subject
from qwen_edge.model.convert import convert
from qwen_edge.model.packed import open_model
from qwen_edge.quant.packing import dequantize

CASES: dict[str, dict[str, Any]] = {
    "qwen-edge nearest, int4": {"method": "nearest"},
    "qwen-edge nearest, iq4_nl": {"method": "nearest", "codebook": "iq4_nl"},
    "qwen-edge aware, int4": {"method": "aware"},
    "qwen-edge aware, iq4_nl": {"method": "aware", "codebook": "iq4_nl"},
    "qwen-edge gptq, int4": {"method": "gptq"},
    "qwen-edge gptq, uint4, groups of 64": {"method": "gptq", "codebook": "uint4", "group": 64},
    "qwen-edge gptq, iq4_nl (default)": {"method": "gptq", "codebook": "iq4_nl"},
}


def rounded(subject: Subject, case: str, calibration: str) -> tuple[dict[str, torch.Tensor], float]:
    """The weights, and bits for each weight of a matrix."""
    weights, bits, count = {}, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.qedge"
        convert(subject.folder, path, calibration=calibration, **CASES[case])
        with open_model(path) as model:
            for name, info in model.tensors.items():
                if name == "tokenizer" or info.rows == 1:
                    continue
                values = torch.empty(info.rows, info.cols)
                dequantize(info.layout, model.address(name), values.data_ptr())
                weights[name] = values
                bits += 8 * info.nbytes
                count += values.numel()
    return weights, bits / count
