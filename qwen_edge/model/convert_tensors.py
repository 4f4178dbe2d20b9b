"""A source's tensors into a model file, slice by slice: codes taken over, or floats quantized."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.calibrated import Stored
from qwen_edge.model.conversion import Progress
from qwen_edge.model.layout_choice import is_held
from qwen_edge.model.packed_writer import PackedWriter
from qwen_edge.model.source import Source, SourceTensor
from qwen_edge.quant.error import QuantizationError
from qwen_edge.quant.layout import TILE_ROWS, Layout
from qwen_edge.quant.methods import Guide
from qwen_edge.quant.packing import measure_error, pack_codes
from qwen_edge.quant.round_to_nearest import quantize

# Source bytes in memory at a time: enough work for all threads, little against the model.
_SLICE_BYTES = 8 << 20


class TensorConverter:
    """Converts tensors one by one, and keeps count."""

    def __init__(
        self,
        source: Source,
        layouts: Mapping[str, Layout],
        writer: PackedWriter,
        threads: int,
        progress: Progress | None,
    ) -> None:
        self._source, self._layouts, self._writer = source, layouts, writer
        self._threads, self._progress = threads, progress
        self._total = sum(tensor.nbytes for tensor in source.tensors.values())
        self._done = 0.0
        self.errors: dict[str, QuantizationError] = {}

    def convert(self, name: str, guide: Guide | None = None, keep: bool = False) -> Stored | None:
        """Quantizes and writes a tensor; with ``keep`` its bytes come back."""
        tensor, layout = self._source.tensors[name], self._layouts[name]
        step = max(_SLICE_BYTES // tensor.row_bytes // TILE_ROWS, 1) * TILE_ROWS
        error, kept = QuantizationError(), bytearray()
        for begin in range(0, layout.rows, step):
            if self._progress:
                self._progress(int(self._done), self._total, name)
            part = layout.with_rows(min(step, layout.rows - begin))
            packed, slice_error = _convert_slice(
                self._source.path, tensor, begin, part, guide or Guide(), self._threads
            )
            error += slice_error
            self._writer.write(name, packed)
            if keep:
                kept += packed
            tensor.release(begin, part.rows)
            self._done += part.rows * (tensor.nbytes / layout.rows)
        if len(tensor.shape) > 1:
            self.errors[name] = error
        return Stored(layout, kept) if keep else None

    def finish(self) -> None:
        if self._progress:
            self._progress(self._total, self._total, "")


def _convert_slice(
    path: Path, tensor: SourceTensor, begin: int, part: Layout, guide: Guide, threads: int
) -> tuple[bytearray, QuantizationError]:
    packed = bytearray(part.nbytes)
    target = (ctypes.c_ubyte * part.nbytes).from_buffer(packed)
    try:
        if is_held(tensor, part):
            rows = tensor.codes(begin, part.rows)
            pack_codes(part, rows.codes, rows.scales, rows.minimums, target)
            floats = tensor.floats(begin, part.rows)
            error = measure_error(part, target, floats.data, floats.type, threads)
        else:
            floats = tensor.floats(begin, part.rows)
            error = quantize(
                part,
                floats.data,
                floats.type,
                target,
                importance=guide.importance,
                panels=guide.panels,
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
