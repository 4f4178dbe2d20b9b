"""What the header of a ``.qedge`` file says, checked in full; packed.py describes the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from qwen_edge.model.config import (
    GenerationDefaults,
    ModelConfig,
    config_from,
    generation_from,
    integer,
    order_shapes,
    tensor_shapes,
)
from qwen_edge.model.container import Container, ContainerError, Entry, show
from qwen_edge.quant.layout import Layout

FORMAT = "qedge"
FORMAT_VERSION = 3
"""The newest: it has 8-bit weights with minimums. Files without these are of version 2, and those
that have neither zero points nor column orders nor levels of version 1."""
ALIGNMENT = 64
HEADER_LIMIT = 16 << 20
TOKENIZER = "tokenizer"
PADDING = "padding."
DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "u8": "U8", "q8": "U8", "q4": "U8"}
_LONGEST_TEXT = 1000


@dataclass(frozen=True)
class TensorInfo:
    """A tensor and where it lies; the fields of its layout are its own, too.

    Attributes:
        name: Hugging Face's, or ``tokenizer``.
        layout: how its weights are stored.
        offset: of its first byte in the file, a multiple of 64.
        nbytes: its size.
    """

    name: str
    layout: Layout
    offset: int
    nbytes: int

    @property
    def type(self) -> str:
        return self.layout.type

    @property
    def rows(self) -> int:
        return self.layout.rows

    @property
    def cols(self) -> int:
        return self.layout.cols

    @property
    def group(self) -> int:
        return self.layout.group

    @property
    def has_min(self) -> bool:
        return self.layout.has_min

    @property
    def has_zero(self) -> bool:
        return self.layout.has_zero

    @property
    def codebook(self) -> tuple[int, ...]:
        return self.layout.codebook


class Contents(NamedTuple):
    """What the header says."""

    name: str
    config: ModelConfig
    generation: GenerationDefaults
    chat_template: str
    quantization: Mapping[str, object]
    source: str
    tensors: Mapping[str, TensorInfo]


def read_contents(table: Mapping[str, Any], container: Container) -> Contents:
    """Checks the metadata against itself, the architecture and the container's tensors.

    Raises:
        ContainerError: something is missing, out of range or contradicts something else.
    """
    sections = {key: table.get(key) for key in ("config", "generation", "quantization", "tensors")}
    for key, section in sections.items():
        if not isinstance(section, dict):
            raise ContainerError(f"its metadata lacks the table {key}")
    config = config_from(sections["config"] or {})
    template = _text(table, "chat_template", HEADER_LIMIT)
    return Contents(
        name=_line(table, "name"),
        config=config,
        generation=generation_from(sections["generation"] or {}, config.vocab_size),
        chat_template=template,
        quantization=_notes(sections["quantization"] or {}),
        source=_line(table, "source"),
        tensors=_tensors(config, sections["tensors"] or {}, container.entries),
    )


def _text(table: Mapping[str, Any], key: str, longest: int) -> str:
    value = table.get(key)
    if not isinstance(value, str) or len(value) > longest:
        raise ContainerError(f"its {key} is not a text of at most {longest} characters")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ContainerError(f"its {key} is not valid Unicode") from None
    return value


def _line(table: Mapping[str, Any], key: str) -> str:
    # It is printed: control characters could drive the terminal.
    value = _text(table, key, _LONGEST_TEXT)
    if not value.isprintable():
        raise ContainerError(f"its {key} has unprintable characters")
    return value


def _notes(table: Mapping[str, Any]) -> Mapping[str, object]:
    # Likewise printed; nesting is bounded by what the JSON parser accepts.
    pending: list[Any] = [table]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += (*value, *value.values())
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str) and not value.isprintable():
            raise ContainerError("its quantization has unprintable characters")
    return MappingProxyType(table)


def _tensors(
    config: ModelConfig, described: Mapping[str, Any], entries: Mapping[str, Entry]
) -> Mapping[str, TensorInfo]:
    expected, orders = tensor_shapes(config), order_shapes(config)
    for name, entry in entries.items():
        if name.startswith(PADDING):
            if entry.dtype != "U8" or entry.end - entry.begin >= ALIGNMENT:
                raise ContainerError(f"its tensor {show(name)} is not padding")
        elif name not in described:
            raise ContainerError(f"its tensor {show(name)} is not described")
        elif name not in expected and name not in orders and name != TOKENIZER:
            raise ContainerError(f"its tensor {show(name)} does not belong to the model")
    tensors: dict[str, TensorInfo] = {}
    for name in (*expected, TOKENIZER, *(name for name in orders if name in entries)):
        if name not in entries or name not in described:
            raise ContainerError(f"it has no tensor {name}")
        tensors[name] = _tensor(name, described[name], entries[name])
        _check_role(tensors[name], expected.get(name), orders.get(name))
    if described.keys() != tensors.keys():
        extra = next(name for name in described if name not in tensors)
        raise ContainerError(f"it describes a tensor {show(extra)} that it does not have")
    return MappingProxyType(tensors)


def _tensor(name: str, value: Any, entry: Entry) -> TensorInfo:
    if not isinstance(value, dict):
        raise ContainerError(f"its tensor {name} is not described by a table")
    kind, codebook = value.get("type"), value.get("codebook", [])
    has_min, has_zero = value.get("min", False), value.get("zero", False)
    levels = value.get("levels", [])
    if (
        not isinstance(kind, str)
        or not isinstance(has_min, bool)
        or not isinstance(has_zero, bool)
        or not _is_list(codebook, int)
        or not _is_list(levels, float, int)
    ):
        raise ContainerError(
            f"its tensor {name} has a malformed type, min, zero, levels or codebook"
        )
    try:
        layout = Layout(
            type=kind,
            rows=integer(value, "rows", 1, 1 << 31),
            cols=integer(value, "cols", 1, 1 << 31),
            group=integer({"group": value.get("group", 0)}, "group", 0, 128),
            has_min=has_min,
            codebook=tuple(codebook),
            has_zero=has_zero,
            levels=tuple(map(float, levels)),
            unit=integer({"unit": value.get("unit", 0)}, "unit", 0, 127),
        )
    except (ValueError, ContainerError) as error:
        raise ContainerError(f"its tensor {name} is malformed: {error}") from None
    if layout.packed:
        shapes: tuple[tuple[int, ...], ...] = ((layout.tiles, layout.groups, layout.block_bytes),)
    elif layout.rows == 1:
        shapes = ((layout.cols,), (1, layout.cols))
    else:
        shapes = ((layout.rows, layout.cols),)
    if entry.dtype != DTYPES[kind] or entry.shape not in shapes:
        raise ContainerError(f"its tensor {name} is not stored as it is described")
    # The entry's bytes follow from its shape and dtype, and lie inside the file: parse saw to it.
    if entry.begin % ALIGNMENT:
        raise ContainerError(f"its tensor {name} does not begin at a multiple of {ALIGNMENT}")
    return TensorInfo(name, layout, entry.begin, entry.end - entry.begin)


def _is_list(value: Any, *types: type) -> bool:
    return isinstance(value, list) and set(types).issuperset(map(type, value))


def _check_role(info: TensorInfo, shape: tuple[int, ...] | None, order: int | None) -> None:
    if order is not None:
        shape = (4 * order,)
        good = info.type == "u8" and (info.rows, info.cols) == (1, 4 * order)
    elif shape is None:
        good = info.type == "u8" and info.rows == 1
    elif len(shape) == 1:
        good = info.type == "f32" and (info.rows, info.cols) == (1, shape[0])
    else:
        good = info.type != "u8" and (info.rows, info.cols) == shape
    if not good:
        wanted = "x".join(map(str, shape)) if shape else "bytes"
        raise ContainerError(
            f"its tensor {info.name} is {info.type} {info.rows}x{info.cols}, not {wanted}"
        )
