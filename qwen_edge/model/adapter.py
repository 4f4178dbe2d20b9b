"""LoRA adapters as PEFT saves them: a folder with adapter_model.safetensors and its settings.

The format, tensor names and patterns included, is PEFT's:
https://huggingface.co/docs/peft/developer_guides/checkpoint. Like everything from outside, an
adapter is hostile until checked.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from qwen_edge.errors import ModelNotFoundError, UsageError
from qwen_edge.model.adapter_settings import SETTINGS, AdapterSettings, damaged
from qwen_edge.model.closing import Closing
from qwen_edge.model.config import ModelConfig, tensor_shapes
from qwen_edge.model.container import ContainerError, parse, show
from qwen_edge.model.file_map import MappedFile
from qwen_edge.model.safetensors_reader import FLOAT_TYPES, StoredTensor
from qwen_edge.native.library import check, load
from qwen_edge.quant.native_layout import TYPE_CODES

WEIGHTS = "adapter_model.safetensors"
PROJECTIONS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""What an adapter may change, in the native library's order."""
MERGED_RANK = 256
"""The highest rank that is merged."""
_PREFIX = "base_model.model."
# PEFT leaves the adapter's name out of its files; other programs write it.
_NAME = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
_MODULE = re.compile(r"model\.layers\.(0|[1-9]\d{0,3})\.(.+)")


class Module(NamedTuple):
    """The change of one projection: the weights plus scale * B A.

    Attributes:
        layer: counted from 0.
        projection: one of ``PROJECTIONS``.
        a: [rank, in].
        b: [out, rank].
        scale: alpha over the rank, or over its root.
    """

    layer: int
    projection: str
    a: StoredTensor
    b: StoredTensor
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def weight(self) -> str:
        """Name of the tensor that it changes."""
        return f"model.layers.{self.layer}.{self.projection}.weight"


@dataclass(frozen=True)
class Adapter(Closing):
    """An open adapter; use it as a context manager.

    Attributes:
        path: its weights.
        name: for people.
        modules: what it changes, in the order of use.
    """

    path: Path
    name: str
    modules: tuple[Module, ...]
    _file: MappedFile

    @property
    def rank(self) -> int:
        """The highest rank of its modules."""
        return max(module.rank for module in self.modules)

    def check_finite(self) -> None:
        """Reads all of it.

        Raises:
            DamagedModelError: a weight is infinite or not a number.
        """
        library = load()
        for module in self.modules:
            for part in (module.a, module.b):
                finite = ctypes.c_int32()
                check(
                    library.qe_all_finite(
                        ctypes.c_void_p(part.address),
                        TYPE_CODES[FLOAT_TYPES[part.dtype]],
                        ctypes.c_int64(math.prod(part.shape)),
                        ctypes.byref(finite),
                    )
                )
                part.release(0, part.nbytes)
                if not finite.value:
                    raise damaged(self.path, f"a weight of its tensor {part.name} is not finite")

    def close(self) -> None:
        """Unmaps the weights; a second call does nothing."""
        self._file.close()


def open_adapter(path: Path, config: ModelConfig, most_rank: int = MERGED_RANK) -> Adapter:
    """Opens an adapter and checks that it fits a model.

    Args:
        path: PEFT's folder, or the safetensors file in it.
        config: the model's.
        most_rank: the highest rank that will do.

    Raises:
        ModelNotFoundError: there is none.
        DamagedModelError: it is malformed or for another model.
        UsageError: it is of a kind or a rank that is not supported.
    """
    folder, weights = _find(path)
    settings = AdapterSettings(folder / SETTINGS)
    try:
        file = MappedFile(weights)
    except OSError as error:
        raise damaged(weights, f"it cannot be read ({error.strerror})") from None
    try:
        modules = _modules(weights, file, settings, config)
        adapter = Adapter(weights, folder.resolve().name, modules, file)
        if adapter.rank > most_rank:
            raise UsageError(
                "The adapter {path} has rank {rank}; {most} is the most here.",
                "Merge it into the model with `qwen-edge convert DIR --lora ADAPTER`."
                if adapter.rank <= MERGED_RANK
                else "Use an adapter of a lower rank.",
                path=path,
                rank=adapter.rank,
                most=most_rank,
            )
        return adapter
    except BaseException:
        file.close()
        raise


def _find(path: Path) -> tuple[Path, Path]:
    """The folder of the settings, and the file of the weights."""
    if path.is_dir():
        folder, weights = path, path / WEIGHTS
    else:
        folder, weights = path.parent, path
    if weights.is_file() and (folder / SETTINGS).is_file():
        return folder, weights
    if not path.exists():
        raise ModelNotFoundError(
            "There is no adapter {path}.",
            "Give the folder that PEFT saved, or the adapter_model.safetensors in it.",
            path=path,
        )
    raise ModelNotFoundError(
        "{path} has no {name}.",
        "An adapter is a folder with adapter_config.json and adapter_model.safetensors; pickled "
        "ones (.bin) are not read.",
        path=folder,
        name=SETTINGS if weights.is_file() else WEIGHTS,
    )


def _modules(
    path: Path, file: MappedFile, settings: AdapterSettings, config: ModelConfig
) -> tuple[Module, ...]:
    try:
        entries = parse(file).entries
        stored = {
            name: StoredTensor(
                name, each.dtype, each.shape, file, each.begin, each.end - each.begin
            )
            for name, each in entries.items()
        }
        pairs = _pairs(stored)
        shapes = tensor_shapes(config)
        modules = [_module(name, pair, settings, shapes) for name, pair in pairs.items()]
    except ContainerError as error:
        raise damaged(path, str(error)) from None
    if not modules:
        raise damaged(path, "it has no tensors")
    modules.sort(key=lambda each: (each.layer, PROJECTIONS.index(each.projection)))
    return tuple(modules)


def _pairs(stored: Mapping[str, StoredTensor]) -> dict[str, dict[str, StoredTensor]]:
    """A and B of each module by its name in the model."""
    pairs: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in stored.items():
        match = _NAME.fullmatch(name.removeprefix(_PREFIX))
        if not match:
            raise ContainerError(f"its tensor {show(name)} is not one of a plain LoRA")
        pair = pairs.setdefault(match[1], {})
        if match[2] in pair:
            raise ContainerError(f"its tensor {show(name)} is there twice")
        pair[match[2]] = tensor
    return pairs


def _module(
    name: str,
    pair: Mapping[str, StoredTensor],
    settings: AdapterSettings,
    shapes: Mapping[str, tuple[int, ...]],
) -> Module:
    def refuse(problem: str) -> NoReturn:
        raise ContainerError(f"its module {show(name)} {problem}")

    match = _MODULE.fullmatch(name)
    if not match or match[2] not in PROJECTIONS:
        refuse("is none of the seven projections of a Qwen3 layer")
    shape = shapes.get(f"{name}.weight")
    if shape is None:
        refuse("belongs to a layer that the model does not have")
    if pair.keys() != {"A", "B"}:
        refuse("has only one of lora_A and lora_B")
    a, b = pair["A"], pair["B"]
    if a.dtype not in FLOAT_TYPES or b.dtype not in FLOAT_TYPES:
        refuse("is not F32, F16 or BF16")
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or not a.shape[0]:
        refuse(f"has the shapes {a.shape} and {b.shape}, which do not go together")
    if (b.shape[0], a.shape[1]) != shape:
        refuse(f"changes a matrix of {b.shape[0]} x {a.shape[1]}, the model's is {shape}")
    rank, scale = settings.expected(name)
    if a.shape[0] != rank:
        refuse(f"has rank {a.shape[0]}, {SETTINGS} says {rank}")
    return Module(int(match[1]), match[2], a, b, scale)
