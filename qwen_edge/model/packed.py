"""The ``.qedge`` model file: one safetensors container with everything that a model needs.

``__metadata__`` holds ``format`` = ``qedge`` and ``qedge``, a JSON text: format_version,
architecture, name, config, generation, chat_template, source, quantization, program and, by tensor,
type, rows, cols, group, min, codebook and since version 2, where there are any, zero, levels and
unit. Packed tensors are U8 [tiles, groups, block bytes] as native/format.h has it, dense ones F32,
F16 or BF16 [rows, cols] or [n], the tokenizer is the U8 tensor ``tokenizer``. Every tensor begins
at a multiple of 64 bytes; U8 tensors ``padding.N`` fill the gaps.

Since version 2, a layer may have U8 tensors ``self_attn.qkv.order``, ``self_attn.o.order``,
``mlp.gate_up.order`` and ``mlp.down.order`` of little-endian int32, one for each column of the
matrices that they are named after: column c is to be multiplied by the activation order[c]. GPTQ
groups columns by their importance; this way those of a group lie together. A file is of the oldest
version that has what it uses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_edge.errors import DamagedModelError, ModelNotFoundError
from qwen_edge.model.closing import Closing
from qwen_edge.model.config import ARCHITECTURE, GenerationDefaults, ModelConfig, integer
from qwen_edge.model.container import (
    ContainerError,
    NotAContainerError,
    TruncatedError,
    parse,
    parse_json,
    show,
)
from qwen_edge.model.file_map import DONT_NEED, WILL_NEED, MappedFile
from qwen_edge.model.packed_header import (
    ALIGNMENT,
    FORMAT,
    FORMAT_VERSION,
    HEADER_LIMIT,
    Contents,
    TensorInfo,
    read_contents,
)
from qwen_edge.native.checksum import checksum, checksum_at

__all__ = ["GenerationDefaults", "ModelConfig", "PackedModel", "TensorInfo", "open_model"]


class PackedModel(Closing):
    """An open model file, mapped read-only; use it as a context manager.

    Attributes:
        path: the file.
        size: its bytes.
        name: what the model is called.
        config: the model's numbers.
        generation: how its makers sample it.
        chat_template: Jinja source.
        quantization: how and how well it was quantized, for people.
        source: where the weights came from, for people.
        tensors: by name.
    """

    def __init__(self, file: MappedFile, contents: Contents) -> None:
        self._file = file
        self.path = file.path
        self.size = file.size
        self.name = contents.name or file.path.stem
        self.config = contents.config
        self.generation = contents.generation
        self.chat_template = contents.chat_template
        self.quantization = contents.quantization
        self.source = contents.source
        self.tensors = contents.tensors

    def address(self, name: str) -> int:
        """Address of a tensor's first byte, valid until ``close``.

        Raises:
            KeyError: there is no such tensor.
            ValueError: the model is closed.
        """
        return self._file.address + self.tensors[name].offset

    def fingerprint(self) -> int:
        """64 bits that tell this model from others, and from its own past, within a millisecond.

        Hashing all the weights would take longer than many an answer. The header describes every
        tensor and holds the measured error of the quantization, which other weights hardly share
        to its last digit; a line from the middle of every tensor tells even those apart that were
        trained further in a few layers only; size and time of the last change betray a file that
        was rewritten in place.
        """
        changed = os.stat(self.path).st_mtime_ns
        header_end = 8 + int.from_bytes(self._file.read(0, 8), "little")
        result = checksum(f"{self.size} {changed}".encode())
        result = checksum_at(self._file.address, header_end, result)
        for tensor in self.tensors.values():
            middle = tensor.offset + tensor.nbytes // 2 // ALIGNMENT * ALIGNMENT
            size = min(ALIGNMENT, tensor.offset + tensor.nbytes - middle)
            result = checksum_at(self._file.address + middle, size, result)
        return result

    def prefetch(self) -> None:
        """Asks the system to read the file ahead, without waiting for it."""
        self._file.advise(WILL_NEED)

    def release(self, offset: int, nbytes: int) -> None:
        """Gives pages of the file back: read once, they would count as the process's own."""
        self._file.advise(DONT_NEED, offset, nbytes)

    def close(self) -> None:
        """Unmaps the file; a second call does nothing."""
        self._file.close()


def open_model(path: Path) -> PackedModel:
    """Opens a model file and checks everything but the weights' values; reads only the header.

    Raises:
        ModelNotFoundError: there is no such file, or it may not be read.
        DamagedModelError: it is not a sound model file of a supported kind.
        MemoryLimitError: there is no address space to map it.
    """
    file = _map(path)
    try:
        return PackedModel(file, _read(file))
    except BaseException:
        file.close()
        raise


def _map(path: Path) -> MappedFile:
    try:
        return MappedFile(path)
    except FileNotFoundError:
        raise ModelNotFoundError(
            "There is no model file {path}.",
            "`qwen-edge models` lists what is installed, `qwen-edge pull` gets more.",
            path=path,
        ) from None
    except IsADirectoryError:
        raise DamagedModelError(
            "{path} is a folder, not a .qedge model file.",
            "Convert a Hugging Face checkpoint or a GGUF file with `qwen-edge convert`.",
            path=path,
        ) from None
    except OSError as error:
        raise ModelNotFoundError(
            "The model file {path} cannot be read: {reason}.",
            "Check the path and its permissions.",
            path=path,
            reason=error.strerror,
        ) from None


def _read(file: MappedFile) -> Contents:
    again = "Copy, download or convert it again."
    try:
        container = parse(file, HEADER_LIMIT)
        if container.metadata.get("format") != FORMAT or FORMAT not in container.metadata:
            raise NotAContainerError("it is a safetensors file of another kind")
        table = parse_json(container.metadata[FORMAT].encode("utf-8", "replace"), "its metadata")
        if not isinstance(table, dict):
            raise ContainerError("its metadata is not a JSON object")
        _check_kind(file.path, table)
        return read_contents(table, container)
    except NotAContainerError as error:
        raise DamagedModelError(
            "{path} is not a .qedge model file: {problem}.",
            "Convert a Hugging Face checkpoint or a GGUF file with `qwen-edge convert`.",
            path=file.path,
            problem=error,
        ) from None
    except TruncatedError as error:
        raise DamagedModelError(
            "The model file {path} is truncated: {problem}.", again, path=file.path, problem=error
        ) from None
    except ContainerError as error:
        raise DamagedModelError(
            "The model file {path} is damaged: {problem}.", again, path=file.path, problem=error
        ) from None


def _check_kind(path: Path, table: Mapping[str, Any]) -> None:
    version = integer(table, "format_version", 1, 1 << 31)
    if version > FORMAT_VERSION:
        raise DamagedModelError(
            "The model file {path} has format version {found}, this program reads up to {known}.",
            "Update qwen-edge, or convert the model with this version.",
            path=path,
            found=version,
            known=FORMAT_VERSION,
        )
    if table.get("architecture") != ARCHITECTURE:
        raise DamagedModelError(
            "The model file {path} holds the architecture {found}, which is not supported.",
            "Dense Qwen3 models are supported.",
            path=path,
            found=show(table.get("architecture")),
        )
