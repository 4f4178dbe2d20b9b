"""Writes ``.qedge`` files tensor by tensor; packed.py describes the format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from qwen_edge import __version__
from qwen_edge.model.config import ARCHITECTURE, GenerationDefaults, ModelConfig, order_shapes
from qwen_edge.model.packed import open_model
from qwen_edge.model.packed_header import (
    ALIGNMENT,
    DTYPES,
    FORMAT,
    HEADER_LIMIT,
    PADDING,
)
from qwen_edge.model.replacing_file import ReplacingFile
from qwen_edge.quant.layout import Layout

_QUANTIZATION_RESERVE = 4096


@dataclass(frozen=True)
class Description:
    """What a model file says beside its tensors; see ``PackedModel``."""

    name: str
    config: ModelConfig
    generation: GenerationDefaults
    chat_template: str
    source: str


class _Header(NamedTuple):
    text: bytes
    offsets: Mapping[str, int]  # of the named tensors, from the data's beginning
    padding: Sequence[tuple[int, int]]  # offset and size
    data_bytes: int


def _describe(layout: Layout) -> dict[str, Any]:
    table: dict[str, Any] = {"type": layout.type, "rows": layout.rows, "cols": layout.cols}
    if layout.packed:
        table["group"] = layout.group
    if layout.type == "q4":
        table |= {"min": layout.has_min, "codebook": list(layout.codebook)}
    elif layout.has_min:
        table["min"] = True
    if layout.has_zero:
        table["zero"] = True
    if layout.levels:
        table |= {"levels": list(layout.levels), "unit": layout.unit}
    return table


def _format_version(config: ModelConfig, tensors: Mapping[str, Layout]) -> int:
    """The oldest that has what the file uses, so that older programs read all they can."""
    layouts = tensors.values()
    if any(layout.type == "q8" and layout.has_min for layout in layouts):
        return 3
    newer = any(layout.has_zero or layout.levels for layout in layouts)
    return 2 if newer or not tensors.keys().isdisjoint(order_shapes(config)) else 1


def _shape(layout: Layout) -> list[int]:
    if layout.packed:
        return [layout.tiles, layout.groups, layout.block_bytes]
    return [layout.cols] if layout.rows == 1 else [layout.rows, layout.cols]


def _compose(
    description: Description, quantization: Mapping[str, object], tensors: Mapping[str, Layout]
) -> _Header:
    table = {
        "format_version": _format_version(description.config, tensors),
        "architecture": ARCHITECTURE,
        "name": description.name,
        "config": asdict(description.config),
        "generation": asdict(description.generation),
        "chat_template": description.chat_template,
        "source": description.source,
        "quantization": dict(quantization),
        "program": f"qwen-edge {__version__}",
        "tensors": {name: _describe(layout) for name, layout in tensors.items()},
    }
    compact = (",", ":")
    metadata = {"format": FORMAT, FORMAT: json.dumps(table, separators=compact)}
    header: dict[str, Any] = {"__metadata__": metadata}
    offsets: dict[str, int] = {}
    padding: list[tuple[int, int]] = []
    end = 0
    for name, layout in tensors.items():
        gap = -end % ALIGNMENT
        if gap:
            header[f"{PADDING}{len(padding)}"] = {
                "dtype": "U8", "shape": [gap], "data_offsets": [end, end + gap],
            }  # fmt: skip
            padding.append((end, gap))
            end += gap
        offsets[name] = end
        header[name] = {
            "dtype": DTYPES[layout.type],
            "shape": _shape(layout),
            "data_offsets": [end, end + layout.nbytes],
        }
        end += layout.nbytes
    return _Header(json.dumps(header, separators=compact).encode(), offsets, padding, end)


class PackedWriter:
    """Writes one model file; use it as a context manager and end with ``finish``.

    Leaving it without ``finish`` leaves nothing behind, and an existing file as it was.

    Args:
        path: the file to make, or to replace.
        description: what goes into the header.
        tensors: every tensor's layout, in the order in which they shall lie in the file.

    Raises:
        QwenEdgeError: the file cannot be written there, or there is not enough space.
    """

    def __init__(self, path: Path, description: Description, tensors: Mapping[str, Layout]) -> None:
        self._description = description
        self._tensors = dict(tensors)
        self._written = dict.fromkeys(self._tensors, 0)
        # The header comes first in the file and is known last: the measured error is part of it.
        header = _compose(description, {}, self._tensors)
        self._offsets = header.offsets
        self._data = -(-(8 + len(header.text) + _QUANTIZATION_RESERVE) // ALIGNMENT) * ALIGNMENT
        if self._data > HEADER_LIMIT:
            raise ValueError("the header is too large")
        self._file = ReplacingFile(path, self._data + header.data_bytes)
        try:
            for offset, size in header.padding:
                self._file.write(bytes(size), self._data + offset)
        except BaseException:
            self._file.__exit__(None, None, None)
            raise

    @property
    def size(self) -> int:
        """Bytes of the finished file."""
        return self._file.size

    def write(self, name: str, data: bytes | bytearray | memoryview) -> None:
        """Appends bytes to a tensor. Tensors may come in any order, and take turns.

        Raises:
            ValueError: that is more than the tensor's layout takes.
            QwenEdgeError: the disk is full, or fails.
        """
        done, size = self._written[name], memoryview(data).nbytes
        if done + size > self._tensors[name].nbytes:
            raise ValueError(f"{name} takes {self._tensors[name].nbytes} bytes")
        self._file.write(data, self._data + self._offsets[name] + done)
        self._written[name] = done + size

    def finish(self, quantization: Mapping[str, object]) -> None:
        """Writes the header, syncs, opens the file as a reader would, and gives it its name.

        Args:
            quantization: how and how well, as JSON takes it; at most 4,000 characters.

        Raises:
            ValueError: a tensor is incomplete, or the header has grown too large.
            DamagedModelError: what was written does not make a model.
            QwenEdgeError: the disk fails.
        """
        for name, layout in self._tensors.items():
            if self._written[name] != layout.nbytes:
                raise ValueError(f"{name} has {self._written[name]} of {layout.nbytes} bytes")
        text = _compose(self._description, quantization, self._tensors).text
        space = self._data - 8
        if len(text) > space:
            raise ValueError("the quantization's description is too long")
        self._file.write(space.to_bytes(8, "little") + text.ljust(space), 0)
        self._file.commit(lambda path: open_model(path).close())

    def __enter__(self) -> PackedWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)
