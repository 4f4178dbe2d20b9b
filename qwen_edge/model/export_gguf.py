"""Model file to GGUF: every weight as it is where a type of ggml's holds it."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from qwen_edge.errors import UsageError
from qwen_edge.model.config import ARCHITECTURE, tensor_shapes
from qwen_edge.model.conversion import Conversion, Progress, summarize
from qwen_edge.model.gguf_metadata import (
    ADD_BOS,
    ARCHITECTURE_KEY,
    KINDS,
    MERGES,
    MODEL,
    NUMBERS,
    PRE,
    SAMPLING,
    STOP_KEYS,
    TEMPLATE,
    TOKENS,
)
from qwen_edge.model.gguf_names import gguf_name
from qwen_edge.model.gguf_writer import GgufWriter, TensorPlan, Value
from qwen_edge.model.packed import PackedModel, TensorInfo
from qwen_edge.model.packed_header import TOKENIZER
from qwen_edge.model.packed_rows import PackedRows, column_order, slices
from qwen_edge.quant.error import QuantizationError
from qwen_edge.quant.gguf_blocks import BY_NAME, BlockType, from_codes, to_floats
from qwen_edge.quant.layout import FP4, INT4, IQ4_NL, UINT4, Layout, WeightFormat
from qwen_edge.quant.packing import Array, measure_error
from qwen_edge.quant.round_to_nearest import quantize
from qwen_edge.text.unpack_tokenizer import unpack_tokenizer
from qwen_edge.text.vocabulary import padded

_DENSE = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
_Q8 = WeightFormat("q8", 32, False, ())
# llama.cpp's numbers of what most of a file is; people see them.
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "IQ4_NL": 25, "BF16": 32,
               "MXFP4": 38}  # fmt: skip
_QUANTIZATION_VERSION = 2
_END_OF_TEXT = "<|endoftext|>"


class _Plan(NamedTuple):
    """How a tensor goes over: into which type, and whether with its own codes."""

    block: BlockType
    codes: bool = False


def export_gguf(
    model: PackedModel,
    output: Path,
    *,
    floats: str | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> Conversion:
    """Writes a model as one GGUF file that llama.cpp runs, tokenizer and template included.

    INT4 becomes Q4_0, INT4 with minimums Q4_1, IQ4_NL and FP4 with powers of two as scales IQ4_NL
    and MXFP4, INT8 and all other codebooks Q8_0: all of these exactly. Zero points become minimums
    of Q4_1, rounded to fp16. What else there is, columns in another order say, goes to the nearest
    Q8_0, or to F16 where rows are not made of whole groups of 32.

    Args:
        model: an open one.
        output: the file to make; replaced only when the new one is complete.
        floats: ``f32``, ``f16`` or ``bf16`` for all matrices in that type, None for the above.
        threads: 0 for all cores.
        progress: called before each slice, and at the end with an empty name.

    Raises:
        UsageError: ``floats`` is not offered.
        DamagedModelError: the model's tokenizer is damaged, or a weight is not finite.
        QwenEdgeError: the output cannot be written.
    """
    weights = {name: model.tensors[name] for name in tensor_shapes(model.config)}
    if floats not in (None, *_DENSE):
        raise UsageError("The weights cannot be written as {type}.", type=floats)
    plans = {name: _plan(model, info, floats) for name, info in weights.items()}
    tensors = {
        gguf_name(name): TensorPlan(plans[name].block, _shape(info))
        for name, info in weights.items()
    }
    total = sum(plan.nbytes for plan in tensors.values())
    done = 0
    errors: dict[str, QuantizationError] = {}
    with GgufWriter(output, _metadata(model, plans), tensors) as writer:
        for name, info in weights.items():
            error = QuantizationError()
            for rows in slices(model, info):
                if progress:
                    progress(done, total, name)
                blocks, slice_error = _blocks(rows, plans[name], threads)
                error += slice_error
                writer.write(gguf_name(name), blocks)
                done += memoryview(blocks).nbytes
            if info.rows > 1:
                errors[name] = error
        if progress:
            progress(done, total, "")
        writer.finish()
        exact = sum(error.squared_error == 0 for error in errors.values())
        return summarize(output, writer.size, errors, exact)


def _shape(info: TensorInfo) -> tuple[int, ...]:
    return (info.cols,) if info.rows == 1 else (info.rows, info.cols)


def _plan(model: PackedModel, info: TensorInfo, floats: str | None) -> _Plan:
    layout = info.layout
    if floats is not None and layout.rows > 1:
        return _Plan(BY_NAME[_DENSE[floats]])
    if layout.type in _DENSE:
        return _Plan(BY_NAME[_DENSE[layout.type]])
    if layout.cols % 32:
        return _Plan(BY_NAME["F16"])
    form = WeightFormat(layout.type, layout.group, layout.has_min, layout.codebook, layout.has_zero)
    known = layout == form.layout(layout.rows, layout.cols)
    if not known or column_order(model, info.name) is not None:
        return _Plan(BY_NAME["Q8_0"])
    codebook = layout.codebook
    if layout.has_min:
        return _Plan(BY_NAME["Q4_1"], True) if codebook == UINT4 else _Plan(BY_NAME["Q8_0"])
    if codebook in (INT4, IQ4_NL):
        return _Plan(BY_NAME["Q4_0" if codebook == INT4 else "IQ4_NL"], True)
    if codebook == FP4 and _fits_mxfp4(model, info):
        return _Plan(BY_NAME["MXFP4"], True)
    return _Plan(BY_NAME["Q8_0"], True)


def _fits_mxfp4(model: PackedModel, info: TensorInfo) -> bool:
    try:
        for rows in slices(model, info):
            _blocks(rows, _Plan(BY_NAME["MXFP4"], True), 0)
    except UsageError:
        return False
    return True


def _blocks(
    rows: PackedRows, plan: _Plan, threads: int
) -> tuple[bytes | bytearray, QuantizationError]:
    """The bytes of some rows in the planned type, and what they are off by."""
    layout, block = rows.layout, plan.block
    output = bytearray(block.tensor_bytes(layout.rows, layout.cols))
    target = (ctypes.c_ubyte * len(output)).from_buffer(output)
    if block.name in _DENSE.values():
        dense = Layout(block.name.lower(), layout.rows, layout.cols)
        return output, quantize(dense, rows.floats(threads), "f32", target)
    if not plan.codes:
        nearest = _Q8.layout(layout.rows, layout.cols)
        packed = (ctypes.c_ubyte * nearest.nbytes)()
        error = quantize(nearest, rows.floats(threads), "f32", packed, threads=threads)
        _put_together(PackedRows(nearest, ctypes.addressof(packed)), block, target, threads)
        return output, error
    _put_together(rows, block, target, threads)
    values = (ctypes.c_float * (layout.rows * layout.cols))()
    to_floats(block, target, layout.rows, layout.cols, values, threads)
    return output, measure_error(layout, rows.address, values, "f32", threads)


def _put_together(rows: PackedRows, block: BlockType, target: Array, threads: int) -> None:
    """Makes blocks of the rows' own codes."""
    layout = rows.layout
    codes, scales, minimums = rows.codes()
    if block.name == "Q8_0" and layout.codebook:
        values = bytes(value & 255 for value in layout.codebook)
        codes = bytes(codes).translate(values.ljust(256, b"\0"))
    from_codes(
        block, codes, scales, minimums, layout.rows, layout.cols, layout.group, target, threads,
        zeros=layout.has_zero,
    )  # fmt: skip


def _metadata(model: PackedModel, plans: Mapping[str, _Plan]) -> dict[str, Value]:
    config, generation = model.config, model.generation
    blob = model.tensors[TOKENIZER]
    packed = ctypes.string_at(model.address(TOKENIZER), blob.nbytes)
    vocabulary = padded(unpack_tokenizer(packed), config.vocab_size)
    metadata: dict[str, Value] = {
        ARCHITECTURE_KEY: ARCHITECTURE,
        "general.type": "model",
        "general.name": model.name,
        "general.file_type": _file_type(model, plans),
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    metadata |= {key: getattr(generation, name) for name, key in SAMPLING.items()}
    metadata |= {f"{ARCHITECTURE}.{key}": getattr(config, name) for name, key in NUMBERS.items()}
    metadata[f"{ARCHITECTURE}.attention.value_length"] = config.head_dim
    metadata |= {
        MODEL: "gpt2",
        PRE: "qwen2",
        TOKENS: vocabulary.tokens,
        KINDS: array("i", vocabulary.kinds),
        MERGES: vocabulary.merges,
        ADD_BOS: False,
        TEMPLATE: model.chat_template,
    }
    metadata |= dict(zip(STOP_KEYS, generation.stop_ids, strict=False))
    if _END_OF_TEXT in vocabulary.tokens:
        place = vocabulary.tokens.index(_END_OF_TEXT)
        metadata["tokenizer.ggml.bos_token_id"] = place
        metadata["tokenizer.ggml.padding_token_id"] = place
    return metadata


def _file_type(model: PackedModel, plans: Mapping[str, _Plan]) -> int:
    weights: dict[str, int] = {}
    for name, plan in plans.items():
        info = model.tensors[name]
        weights[plan.block.name] = weights.get(plan.block.name, 0) + info.rows * info.cols
    return _FILE_TYPES[max(weights, key=lambda kind: weights[kind])]
