"""Source checkpoints in safetensors, one file or sharded, mapped and without the library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.checkpoint_files import damaged
from qwen_edge.model.checkpoint_weights import find_weights
from qwen_edge.model.closing import Closing
from qwen_edge.model.container import ContainerError, TruncatedError, parse, parse_json, show
from qwen_edge.model.file_map import DONT_NEED, MappedFile
from qwen_edge.model.source import FloatRows, SourceTensor
from qwen_edge.quant.layout import WeightFormat

_INDEX_LIMIT = 64 << 20


class StoredTensor(NamedTuple):
    """A tensor as it lies in a file.

    Attributes:
        name: as the file has it.
        dtype: as safetensors writes it, ``BF16`` say.
        shape: as the file has it.
        file: the mapping that holds it.
        offset: of its first byte in the file, any alignment.
        nbytes: its size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: MappedFile
    offset: int
    nbytes: int

    @property
    def address(self) -> int:
        """Address of its first byte, valid while the file is mapped."""
        return self.file.address + self.offset

    def release(self, begin: int, end: int) -> None:
        """Gives the pages of some bytes back: read once, they would count as the process's own."""
        self.file.advise(DONT_NEED, self.offset + begin, end - begin)


FLOAT_TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


class FloatTensor(SourceTensor):
    """A stored tensor of floats, read in place.

    Args:
        stored: of a type among ``FLOAT_TYPES``, of one or two dimensions.
        nearest: what it goes to where nothing else is asked for.
    """

    def __init__(self, stored: StoredTensor, nearest: WeightFormat | None = None) -> None:
        self.name, self.shape, self.nbytes = stored.name, stored.shape, stored.nbytes
        self._stored, self._nearest = stored, nearest

    @property
    def nearest(self) -> WeightFormat | None:
        return self._nearest

    def floats(self, begin: int, rows: int) -> FloatRows:
        address = self._stored.address + begin * (self.nbytes // self.rows)
        return FloatRows(address, FLOAT_TYPES[self._stored.dtype])

    def release(self, begin: int, rows: int) -> None:
        row_bytes = self.nbytes // self.rows
        self._stored.release(begin * row_bytes, (begin + rows) * row_bytes)


class SafetensorsReader(Closing):
    """The tensors of a checkpoint folder; use it as a context manager.

    Attributes:
        tensors: by name, all shards together.

    Raises:
        ModelNotFoundError: there are no safetensors weights in the folder.
        UsageError: there are several, and none has the usual name.
        DamagedModelError: a file is malformed, or a shard is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._files: list[MappedFile] = []
        self.tensors: Mapping[str, StoredTensor] = {}
        try:
            self.tensors = self._open(directory)
        except BaseException:
            self.close()
            raise

    def _open(self, directory: Path) -> dict[str, StoredTensor]:
        try:
            names = os.listdir(directory)
        except OSError as error:
            raise damaged(directory, f"it cannot be read ({error.strerror})") from None
        weights = find_weights(directory, names)
        if not weights.sharded:
            return self._read(directory / weights.name)
        index = directory / weights.name
        placed = _read_index(index)
        tensors: dict[str, StoredTensor] = {}
        for shard in sorted(set(placed.values())):
            for name, tensor in self._read(directory / shard, index).items():
                # A shard may hold more than the index lists; what counts is the index.
                if placed.get(name) == shard:
                    tensors[name] = tensor
        for name, shard in placed.items():
            if name not in tensors:
                raise damaged(directory / shard, f"it lacks the tensor {show(name)}")
        return tensors

    def _read(self, path: Path, index: Path | None = None) -> dict[str, StoredTensor]:
        try:
            file = MappedFile(path)
        except OSError as error:
            if index is not None:
                raise DamagedModelError(
                    "The shard {shard} that {index} names cannot be read: {reason}.",
                    "Download the checkpoint again.",
                    shard=path.name,
                    index=index,
                    reason=error.strerror,
                ) from None
            raise damaged(path, f"it cannot be read ({error.strerror})") from None
        self._files.append(file)
        try:
            entries = parse(file).entries
        except TruncatedError as error:
            raise damaged(path, f"it is truncated, {error}") from None
        except ContainerError as error:
            raise damaged(path, str(error)) from None
        return {
            name: StoredTensor(
                name, entry.dtype, entry.shape, file, entry.begin, entry.end - entry.begin
            )
            for name, entry in entries.items()
        }

    def close(self) -> None:
        """Unmaps the files; a second call does nothing."""
        for file in self._files:
            file.close()


def _read_index(path: Path) -> dict[str, str]:
    try:
        with MappedFile(path) as file:
            if file.size > _INDEX_LIMIT:
                raise ContainerError("it is too large")
            index = parse_json(file.read(0, file.size), "its text")
        placed = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(placed, dict) or not placed:
            raise ContainerError("it has no weight_map")
        for shard in placed.values():
            # A name with a folder in it could reach any file of the machine.
            plain = isinstance(shard, str) and shard.isprintable() and "/" not in shard
            if not plain or shard in ("", ".", ".."):
                raise ContainerError(f"it names the shard {show(shard)}")
    except OSError as error:
        raise damaged(path, f"it cannot be read ({error.strerror})") from None
    except ContainerError as error:
        raise damaged(path, str(error)) from None
    return placed
