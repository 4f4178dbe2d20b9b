"""Checkpoint folder to ``.qedge``, tensor by tensor and slice by slice: little memory, no torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from qwen_edge.errors import DamagedModelError, UsageError
from qwen_edge.model.checkpoint import SOURCE_TYPES, Checkpoint, open_checkpoint
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.packed_header import TOKENIZER
from qwen_edge.model.packed_writer import Description, PackedWriter
from qwen_edge.model.safetensors_reader import SourceTensor
from qwen_edge.quant.error import QuantizationError
from qwen_edge.quant.layout import TILE_ROWS, Layout, WeightFormat, weight_format
from qwen_edge.quant.round_to_nearest import METHOD, quantize

Progress = Callable[[int, int, str], None]
"""Called with source bytes done, source bytes in all, and the tensor's name."""

# Source bytes in memory at a time: enough work for all threads, little against the model.
_SLICE_BYTES = 8 << 20


@dataclass(frozen=True)
class Conversion:
    """What a conversion made.

    Attributes:
        path: the model file.
        size: its bytes.
        error: of all matrices together.
        worst_name: the matrix with the largest relative error.
        worst_error: its error.
    """

    path: Path
    size: int
    error: QuantizationError
    worst_name: str
    worst_error: QuantizationError


def convert(
    directory: Path,
    output: Path,
    *,
    bits: int = 4,
    group: int = 32,
    overrides: Sequence[tuple[str, WeightFormat]] = (),
    threads: int = 0,
    progress: Progress | None = None,
    name: str | None = None,
    tokenizer: bytes | None = None,
) -> Conversion:
    """Converts a Hugging Face checkpoint of a dense Qwen3 model.

    Args:
        directory: with config.json, tokenizer.json and safetensors weights.
        output: the file to make; replaced only when the new one is complete.
        bits: of the weight matrices: 4, 8, or 16 for bf16.
        group: columns that share a scale: 32, 64 or 128.
        overrides: pairs of a pattern for tensor names (``*`` and ``?``) and the format for the
            matrices that match it; the first match counts.
        threads: 0 for all cores.
        progress: called before each slice, and at the end with an empty name.
        name: what the model is called, by default the folder's name.
        tokenizer: a packed tokenizer to use in place of the checkpoint's.

    Raises:
        UsageError: ``bits`` or ``group`` is not offered.
        ModelNotFoundError: there is no checkpoint.
        DamagedModelError: the checkpoint is malformed or unsupported.
        QwenEdgeError: the output cannot be written.
    """
    try:
        default = weight_format(bits, group)
        default.layout(1, 1)
    except ValueError as error:
        raise UsageError("The weights cannot be stored that way: {reason}.", reason=error) from None
    with open_checkpoint(directory) as checkpoint:
        blob = _pack_tokenizer(checkpoint) if tokenizer is None else tokenizer
        layouts = {
            tensor: _layout(tensor, shape, default, overrides)
            for tensor, shape in tensor_shapes(checkpoint.config).items()
        }
        source = _source(directory)
        description = Description(
            name=_printable(name or source.rpartition("/")[2]),
            config=checkpoint.config,
            generation=checkpoint.generation,
            chat_template=checkpoint.chat_template,
            source=source,
        )
        tensors = {**layouts, TOKENIZER: Layout("u8", 1, len(blob))}
        with PackedWriter(output, description, tensors) as writer:
            writer.write(TOKENIZER, blob)
            errors = _write_weights(checkpoint, layouts, writer, threads, progress)
            result = _summary(output, writer.size, errors)
            writer.finish(_notes(default, bits, result))
    return result


def _pack_tokenizer(checkpoint: Checkpoint) -> bytes:
    # Slow to import, and only conversions need it.
    from qwen_edge.text.pack_tokenizer import pack_tokenizer
    from qwen_edge.text.tokenizer import Tokenizer

    blob = pack_tokenizer(checkpoint.tokenizer_json())
    buffer = ctypes.create_string_buffer(blob, len(blob))
    size = Tokenizer.from_blob(ctypes.addressof(buffer), len(blob), buffer).vocab_size
    if size > checkpoint.config.vocab_size:
        raise DamagedModelError(
            "The checkpoint {path} cannot be used: its tokenizer has {tokens} tokens and its "
            "embedding {rows} rows.",
            "Download the checkpoint again.",
            path=checkpoint.path,
            tokens=size,
            rows=checkpoint.config.vocab_size,
        )
    return blob


def _source(directory: Path) -> str:
    """The folder's name, or the repository's if it lies in the cache of huggingface_hub."""
    path = directory.resolve()
    repository = path.parent.parent.name
    if path.parent.name == "snapshots" and repository.startswith("models--"):
        return _printable(repository.removeprefix("models--").replace("--", "/"))
    return _printable(path.name)


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:200]


def _layout(
    name: str,
    shape: tuple[int, ...],
    default: WeightFormat,
    overrides: Sequence[tuple[str, WeightFormat]],
) -> Layout:
    if len(shape) == 1:
        # Norms: a few bytes that every kernel reads as they are.
        return Layout("f32", 1, shape[0])
    chosen = next((form for pattern, form in overrides if fnmatchcase(name, pattern)), default)
    return chosen.layout(shape[0], shape[1])


def _write_weights(
    checkpoint: Checkpoint,
    layouts: Mapping[str, Layout],
    writer: PackedWriter,
    threads: int,
    progress: Progress | None,
) -> dict[str, QuantizationError]:
    """Quantizes and writes every tensor; returns the errors of those that are not vectors."""
    total = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    done = 0
    errors: dict[str, QuantizationError] = {}
    for name, layout in layouts.items():
        tensor = checkpoint.tensors[name]
        row_bytes = tensor.nbytes // layout.rows
        step = max(_SLICE_BYTES // row_bytes // TILE_ROWS, 1) * TILE_ROWS
        error = QuantizationError()
        for begin in range(0, layout.rows, step):
            if progress:
                progress(done, total, name)
            part = layout.with_rows(min(step, layout.rows - begin))
            packed, slice_error = _quantize_slice(checkpoint.path, tensor, begin, part, threads)
            error += slice_error
            writer.write(name, packed)
            tensor.release(begin * row_bytes, (begin + part.rows) * row_bytes)
            done += part.rows * row_bytes
        if len(tensor.shape) > 1:
            errors[name] = error
    if progress:
        progress(done, total, "")
    return errors


def _quantize_slice(
    path: Path, tensor: SourceTensor, begin: int, part: Layout, threads: int
) -> tuple[bytearray, QuantizationError]:
    packed = bytearray(part.nbytes)
    address = tensor.address + begin * (tensor.nbytes // tensor.shape[0] if begin else 0)
    try:
        error = quantize(
            part,
            address,
            SOURCE_TYPES[tensor.dtype],
            (ctypes.c_ubyte * part.nbytes).from_buffer(packed),
            threads=threads,
        )
    except DamagedModelError as problem:
        raise DamagedModelError(
            "The checkpoint {path} cannot be used: in the tensor {name}, rows {begin} and on, "
            "{reason}.",
            "Download the checkpoint again.",
            path=path,
            name=tensor.name,
            begin=begin,
            reason=problem.values.get("reason", problem),
        ) from None
    return packed, error


def _summary(output: Path, size: int, errors: Mapping[str, QuantizationError]) -> Conversion:
    worst = max(errors, key=lambda name: errors[name].relative)
    total = sum(errors.values(), QuantizationError())
    return Conversion(output, size, total, worst, errors[worst])


def _notes(form: WeightFormat, bits: int, result: Conversion) -> dict[str, object]:
    return {
        "bits": bits,
        "group": form.group,
        "method": METHOD if bits < 16 else "rounded",
        "error": result.error.as_dict(),
        "worst": {"tensor": result.worst_name, **result.worst_error.as_dict()},
    }
