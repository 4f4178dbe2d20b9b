"""GGUF files as sources of conversions: one file, or the parts that gguf-split made of it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwen_edge.errors import DamagedModelError, ModelNotFoundError
from qwen_edge.model.config import ARCHITECTURE, EMBEDDING, HEAD, ModelConfig, tensor_shapes
from qwen_edge.model.container import ContainerError, TruncatedError, show
from qwen_edge.model.file_map import DONT_NEED, MappedFile
from qwen_edge.model.gguf_header import GgufEntry, GgufHeader, UnreadTypeError, parse_gguf
from qwen_edge.model.gguf_metadata import (
    ARCHITECTURE_KEY,
    SPLIT_COUNT,
    SPLIT_NUMBER,
    read_config,
    read_generation,
    read_template,
    read_vocabulary,
)
from qwen_edge.model.gguf_names import gguf_name
from qwen_edge.model.source import CodeRows, FloatRows, Source, SourceTensor
from qwen_edge.quant.gguf_blocks import to_codes, to_floats
from qwen_edge.quant.layout import WeightFormat
from qwen_edge.text.vocabulary import Vocabulary, tokenizer_json

SUFFIX = ".gguf"
_DENSE = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
# Matrices that a quantized file left as floats were worth more bits to its makers.
_REST = WeightFormat("q8", 32, False, ())
_PART = re.compile(r"(.*)-00001-of-(\d{5})\.gguf")
_MOST_PARTS = 1000


class GgufTensor(SourceTensor):
    """A tensor of a GGUF file.

    Args:
        name: Hugging Face's.
        entry: where it lies, and in which type.
        file: the mapping that holds it.
        rest: what it goes to if it is dense and nothing else is asked for.
    """

    def __init__(
        self, name: str, entry: GgufEntry, file: MappedFile, rest: WeightFormat | None
    ) -> None:
        self.name, self.shape, self.nbytes = name, entry.shape, entry.nbytes
        self._block, self._begin, self._file = entry.block, entry.begin, file
        self._rest = rest

    @property
    def held(self) -> WeightFormat | None:
        return self._block.held

    @property
    def nearest(self) -> WeightFormat | None:
        return self._block.nearest or self._rest

    def floats(self, begin: int, rows: int) -> FloatRows:
        address = self._address(begin)
        if self._block.name in _DENSE:
            return FloatRows(address, _DENSE[self._block.name])
        values = (ctypes.c_float * (rows * self.cols))()
        to_floats(self._block, address, rows, self.cols, values)
        return FloatRows(values, "f32")

    def codes(self, begin: int, rows: int) -> CodeRows:
        if self.held is None:
            return super().codes(begin, rows)
        groups = rows * (self.cols // self.held.group)
        codes = (ctypes.c_uint8 * (rows * self.cols))()
        scales = (ctypes.c_uint16 * groups)()
        minimums = (ctypes.c_uint16 * groups)() if self.held.has_min else None
        to_codes(self._block, self._address(begin), rows, self.cols, codes, scales, minimums)
        return CodeRows(codes, scales, minimums)

    def release(self, begin: int, rows: int) -> None:
        row_bytes = self.nbytes // self.rows
        self._file.advise(DONT_NEED, self._begin + begin * row_bytes, rows * row_bytes)

    def _address(self, begin: int) -> int:
        return self._file.address + self._begin + begin * (self.nbytes // self.rows)


@dataclass(frozen=True)
class GgufSource(Source):
    """An open GGUF file; see ``Source``."""

    vocabulary: Vocabulary
    files: tuple[MappedFile, ...]

    def tokenizer_json(self) -> bytes:
        """The tokenizer as Hugging Face's ``tokenizer.json`` has it."""
        return tokenizer_json(self.vocabulary)

    def close(self) -> None:
        """Unmaps the file; a second call does nothing."""
        for file in self.files:
            file.close()


def open_gguf(path: Path) -> GgufSource:
    """Opens a GGUF file and checks that it is a dense Qwen3 model, complete.

    The other parts of a split file are found beside the first one, by their names.

    Raises:
        ModelNotFoundError: there is no such file.
        DamagedModelError: it is malformed, incomplete or of an unsupported kind.
    """
    files: list[MappedFile] = []
    try:
        header = _open(path, files)
        others = _other_parts(path, header)
        _check_architecture(path, header)
        parts = {path: header}
        for other in others:
            parts[other] = _open(other, files)
        return _read(path, parts, files)
    except ContainerError as error:
        _close(files)
        raise _damaged(path, str(error)) from None
    except BaseException:
        _close(files)
        raise


def _close(files: list[MappedFile]) -> None:
    for file in files:
        file.close()


def _damaged(path: Path, problem: str) -> DamagedModelError:
    return DamagedModelError(
        "The GGUF file {path} cannot be used: {problem}.",
        "Download the file again, or take another one of the same model.",
        path=path,
        problem=problem,
    )


def _open(path: Path, files: list[MappedFile]) -> GgufHeader:
    """Maps a file, adds it to ``files``, and parses its header."""
    try:
        files.append(MappedFile(path))
    except OSError as error:
        if not files:
            raise ModelNotFoundError(
                "There is no GGUF file {path} that can be read: {reason}.",
                "Check the path and its permissions.",
                path=path,
                reason=error.strerror,
            ) from None
        raise DamagedModelError(
            "The part {part} of the GGUF file {path} cannot be read: {reason}.",
            "Put all parts of a split file into one folder.",
            part=path.name,
            path=files[0].path,
            reason=error.strerror,
        ) from None
    try:
        return parse_gguf(files[-1])
    except UnreadTypeError as error:
        raise DamagedModelError(
            "The GGUF file {path} cannot be used: {problem}.",
            "Take a file in Q4_0, Q4_K_M, Q5_K_M, Q6_K, Q8_0, IQ4_NL or BF16.",
            path=path,
            problem=error,
        ) from None
    except TruncatedError as error:
        raise _damaged(path, f"it is truncated, {error}") from None


def _check_architecture(path: Path, header: GgufHeader) -> None:
    found = header.metadata.get(ARCHITECTURE_KEY)
    if found != ARCHITECTURE:
        raise DamagedModelError(
            "The GGUF file {path} is of the architecture {found}, which is not supported.",
            "Dense Qwen3 models are supported.",
            path=path,
            found=show(found),
        )


def _other_parts(path: Path, header: GgufHeader) -> list[Path]:
    """The other parts of a split file; none of one that is whole."""
    count, number = header.metadata.get(SPLIT_COUNT, 1), header.metadata.get(SPLIT_NUMBER, 0)
    if type(count) is not int or count > _MOST_PARTS:
        raise ContainerError(f"its {SPLIT_COUNT} is {show(count)}")
    if count <= 1:
        return []
    match = _PART.fullmatch(path.name)
    if number != 0 or match is None or int(match[2]) != count:
        raise DamagedModelError(
            "The GGUF file {path} is a part of a split file, and not the first by its name.",
            "Give the part that ends in -00001-of-{count:05}.gguf, named as it was downloaded.",
            path=path,
            count=count,
        )
    names = (f"{match[1]}-{part:05}-of-{count:05}.gguf" for part in range(2, count + 1))
    return [path.with_name(name) for name in names]


def _read(path: Path, parts: Mapping[Path, GgufHeader], files: list[MappedFile]) -> GgufSource:
    metadata = parts[path].metadata
    entries: dict[str, tuple[GgufEntry, MappedFile]] = {}
    for header, file in zip(parts.values(), files, strict=True):
        for name, entry in header.tensors.items():
            if name in entries:
                raise ContainerError(f"it has the tensor {show(name)} twice")
            entries[name] = (entry, file)
    embedding = entries.get(gguf_name(EMBEDDING))
    if embedding is None:
        raise ContainerError(f"it has no tensor {gguf_name(EMBEDDING)}")
    vocabulary = read_vocabulary(metadata)
    rows = embedding[0].shape[0]
    config = read_config(metadata, rows, tied=gguf_name(HEAD) not in entries)
    return GgufSource(
        path=path,
        config=config,
        generation=read_generation(metadata, vocabulary, config.vocab_size),
        chat_template=read_template(metadata),
        tensors=_tensors(config, entries),
        vocabulary=vocabulary,
        files=tuple(files),
    )


def _tensors(
    config: ModelConfig, entries: Mapping[str, tuple[GgufEntry, MappedFile]]
) -> dict[str, SourceTensor]:
    shapes = {gguf_name(name): (name, shape) for name, shape in tensor_shapes(config).items()}
    for name in entries:
        # A bias or an adapter that is left out would make another model.
        if name not in shapes:
            raise ContainerError(f"its tensor {show(name)} does not belong to a dense Qwen3 model")
    quantized = any(entry.block.width > 1 for entry, _ in entries.values())
    tensors: dict[str, SourceTensor] = {}
    for theirs, (name, shape) in shapes.items():
        if theirs not in entries:
            raise ContainerError(f"it has no tensor {theirs}")
        entry, file = entries[theirs]
        if entry.shape != shape:
            raise ContainerError(f"its tensor {theirs} is {entry.shape}, its keys say {shape}")
        matrix = len(shape) > 1
        if not matrix and entry.block.name not in _DENSE:
            raise ContainerError(f"its norm {theirs} is in {entry.block.name}")
        tensors[name] = GgufTensor(name, entry, file, _REST if quantized and matrix else None)
    return tensors
