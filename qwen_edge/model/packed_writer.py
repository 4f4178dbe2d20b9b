"""Writes ``.qedge`` files tensor by tensor; packed.py describes the format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
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
from qwen_edge.model.tensor_file import Place, TensorFile
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


class PackedWriter(TensorFile):
    """Writes one model file as ``TensorFile`` does; end with ``finish``.

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
        # The header comes first in the file and is known last: the measured error is part of it.
        header = _compose(description, {}, self._tensors)
        self._data = -(-(8 + len(header.text) + _QUANTIZATION_RESERVE) // ALIGNMENT) * ALIGNMENT
        if self._data > HEADER_LIMIT:
            raise ValueError("the header is too large")
        places = {
            name: Place(self._data + header.offsets[name], layout.nbytes)
            for name, layout in self._tensors.items()
        }
        padding = [(bytes(size), self._data + offset) for offset, size in header.padding]
        super().__init__(path, self._data + header.data_bytes, places, padding)

    def finish(self, quantization: Mapping[str, object]) -> None:
        """Writes the header, syncs, opens the file as a reader would, and gives it its name.

        Args:
            quantization: how and how well, as JSON takes it; at most 4,000 characters.

        Raises:
            ValueError: a tensor is incomplete, or the header has grown too large.
            DamagedModelError: what was written does not make a model.
            QwenEdgeError: the disk fails.
        """
        text = _compose(self._description, quantization, self._tensors).text
        space = self._data - 8
        if len(text) > space:
            raise ValueError("the quantization's description is too long")
        head = space.to_bytes(8, "little") + text.ljust(space)
        self.commit(lambda path: open_model(path).close(), head)
