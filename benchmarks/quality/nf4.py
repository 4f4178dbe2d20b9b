"""The weights of a model as bitsandbytes rounds them to NF4, in blocks of 64."""

from __future__ import annotations

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

from benchmarks.quality.subjects import Subject

# Whether the scales are quantized, too, and whether the embedding is.
CASES: dict[str, tuple[bool, bool]] = {
    "bitsandbytes NF4": (False, True),
    "bitsandbytes NF4, double": (True, True),
    "bitsandbytes NF4, embedding fp16 (as transformers does)": (False, False),
}
BLOCK = 64


def rounded(subject: Subject, case: str) -> tuple[dict[str, torch.Tensor], float]:
    """The weights, and bits for each weight of a matrix."""
    double, embedding = CASES[case]
    weights, bits, count = {}, 0.0, 0
    for name, values in subject.weights().items():
        if values.ndim < 2:
            continue
        count += values.numel()
        if "embed" in name and not embedding:
            weights[name] = values.half().float()
            bits += 16 * values.numel()
            continue
        codes, state = quantize_4bit(
            values, blocksize=BLOCK, compress_statistics=double, quant_type="nf4"
        )
        weights[name] = dequantize_4bit(codes, state).float()
        # fp32 scales, or 8-bit ones with an fp32 scale for 256 of them.
        bits += (4 + (8 + 32 / 256 if double else 32) / BLOCK) * values.numel()
    return weights, bits / count
