"""What transformers makes of a checkpoint's folder in memory.

Weights that stay what they are in the file are mapped; where any of a file's tensors is, all pages
that were read stay resident with it. Whatever changes its type is a copy, and the file is read
beside it. The rest is as benchmarks/predicted_peak.py measured it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_edge.model.config import tensor_shapes
from qwen_edge.session.engine_choice import QUANTIZED, EngineChoice

if TYPE_CHECKING:
    from qwen_edge.model.checkpoint_folder import CheckpointFolder

# bitsandbytes quantizes by way of arrays several times as large as the result. What they leave of
# the heap cannot always be given back: from nothing to so many bytes a weight.
_TEMPORARY_BYTES = {"nf4": 2.4, "fp4": 2.4, "int8": 1.6}
_FLOAT_BYTES = {"f32": 4, "f16": 2, "bf16": 2}


@dataclass(frozen=True)
class FolderMemory:
    """Bytes of a folder's weights.

    Attributes:
        weights: as the model holds them.
        resident: they, and what stays resident beside them.
        loading: likewise at the worst moment of loading.
        mapped: the part of the resident ones that the weights in use are mapped from.
        temporary: the part of the others that a lucky run does without.
    """

    weights: int
    resident: int
    loading: int
    mapped: int
    temporary: int = 0


def folder_memory(folder: CheckpointFolder, choice: EngineChoice) -> FolderMemory:
    """Of a folder in the hands of the transformers engine."""
    matrices = rows = rest = 0
    for name, shape in tensor_shapes(folder.config).items():
        if name.startswith("model.layers.") and len(shape) > 1:
            matrices += math.prod(shape)
            rows += shape[0]
        else:
            rest += math.prod(shape)
    floats, temporary = _FLOAT_BYTES[choice.floats], 0.0
    if folder.quantized is not None:
        held = folder.matrix_bytes
    elif choice.weights == "int8":
        held = matrices + 4 * rows
    elif choice.weights in QUANTIZED:
        # A scale for each 64 weights, of fp32, or of 8 bits with one of fp32 for 256 of them.
        held = matrices // 2 + int(matrices / 64 * (1 + 4 / 256 if choice.double_quant else 4))
    else:
        held = matrices * floats
    if folder.quantized is None:
        temporary = matrices * _TEMPORARY_BYTES.get(choice.weights, 0.0)
    rest *= floats
    keeps_file = choice.floats == folder.floats
    if keeps_file and choice.weights not in QUANTIZED:
        return FolderMemory(folder.size, folder.size, folder.size, folder.size)
    # Already quantized matrices are copied, too, to the order in which a processor takes them.
    copied = held + int(temporary) + (0 if keeps_file else rest)
    return FolderMemory(
        weights=held + rest,
        resident=copied + (folder.size if keeps_file else 0),
        loading=copied + folder.size,
        mapped=rest if keeps_file else 0,
        temporary=int(temporary),
    )
