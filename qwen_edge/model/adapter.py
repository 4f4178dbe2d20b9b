"""LoRA adapters as PEFT saves them: adapter_config.json and adapter_model.safetensors.

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
from typing import Any, NamedTuple, NoReturn

from qwen_edge.errors import DamagedModelError, ModelNotFoundError, UsageError
from qwen_edge.model.closing import Closing
from qwen_edge.model.config import ModelConfig, tensor_shapes
from qwen_edge.model.container import ContainerError, parse, parse_json, show
from qwen_edge.model.file_map import MappedFile
from qwen_edge.model.safetensors_reader import FLOAT_TYPES, StoredTensor
from qwen_edge.native.library import check, load
from qwen_edge.quant.packing import TYPE_CODES

WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"
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
_SETTINGS_LIMIT = 4 << 20
_PREFIX = "base_model.model."
# PEFT leaves the adapter's name out of its files; other programs write it.
_NAME = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
_MODULE = re.compile(r"model\.layers\.(0|[1-9]\d{0,3})\.(.+)")
# Patterns for ranks and scales are regular expressions. These are the ones that people write, and
# none of them takes for ever.
_PATTERN = re.compile(r"\^?(?:[A-Za-z0-9_.-]|\\\.|\\d\+?|\.\*|[(|)])*\$?")
_MOST_REPEATS = 3
_PATTERN_LENGTH = 200


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


def damaged(path: Path, problem: str) -> DamagedModelError:
    """The error that an adapter cannot be used."""
    return DamagedModelError(
        "The adapter {path} cannot be used: {problem}.",
        "Get the adapter again, and make sure that it was made for this model.",
        path=path,
        problem=problem,
    )


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
    settings = _Settings(folder / SETTINGS)
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


class _Settings:
    """adapter_config.json, read and checked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with MappedFile(path) as file:
                if file.size > _SETTINGS_LIMIT:
                    raise ContainerError("it is too large")
                table = parse_json(file.read(0, file.size), "its text")
            if not isinstance(table, dict):
                raise ContainerError("it is not a JSON object")
            self._check_kind(table)
            self._rank = _rank(table.get("r"))
            self._alpha = _alpha(table.get("lora_alpha"))
            self._ranks = _patterns(table, "rank_pattern", _rank)
            self._alphas = _patterns(table, "alpha_pattern", _alpha)
            self._rooted = _switch(table, "use_rslora")
        except OSError as error:
            raise damaged(path, f"it cannot be read ({error.strerror})") from None
        except ContainerError as error:
            raise damaged(path, str(error)) from None

    def _check_kind(self, table: Mapping[str, Any]) -> None:
        kind = table.get("peft_type")
        if kind != "LORA":
            raise ContainerError(f"peft_type is {show(kind)}, not LORA")
        targets = table.get("target_modules")
        named = set(targets) if isinstance(targets, list) and _texts(targets) else set()
        unsupported = {
            "DoRA (use_dora)": _switch(table, "use_dora"),
            "fan_in_fan_out": _switch(table, "fan_in_fan_out"),
            "biases (bias)": table.get("bias", "none") != "none",
            "lora_bias": _switch(table, "lora_bias"),
            "modules_to_save": bool(table.get("modules_to_save")),
            "trainable_token_indices": bool(table.get("trainable_token_indices")),
            "target_parameters": bool(table.get("target_parameters")),
            "layer_replication": bool(table.get("layer_replication")),
            "adapted embeddings (embed_tokens, lm_head)": bool(
                {name.rpartition(".")[2] for name in named} & {"embed_tokens", "lm_head"}
            ),
        }
        for feature, used in unsupported.items():
            if used:
                raise UsageError(
                    "The adapter {path} uses {feature}, which is not supported.",
                    "Merge it with PEFT (merge_and_unload), and convert the result.",
                    path=self._path,
                    feature=feature,
                )

    def expected(self, module: str) -> tuple[int, float]:
        """A module's rank, and the scale of its change."""
        rank = next((value for key, value in self._ranks if key.match(module)), self._rank)
        alpha = next((value for key, value in self._alphas if key.match(module)), self._alpha)
        return rank, alpha / (math.sqrt(rank) if self._rooted else rank)


def _rank(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 1 << 16:
        raise ContainerError(f"a rank is {show(value)}")
    return value


def _alpha(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e6:
        raise ContainerError(f"a lora_alpha is {show(value)}")
    return float(value)


def _switch(table: Mapping[str, Any], key: str) -> bool:
    value = table.get(key) or False
    if not isinstance(value, bool):
        raise ContainerError(f"{key} is {show(value)}, not true or false")
    return value


def _texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _patterns(table: Mapping[str, Any], key: str, read: Any) -> list[tuple[re.Pattern[str], Any]]:
    patterns = table.get(key) or {}
    if not isinstance(patterns, dict):
        raise ContainerError(f"{key} is {show(patterns)}, not a table")
    found = []
    for text, value in patterns.items():
        repeats = text.count("*") + text.count("+")
        if len(text) > _PATTERN_LENGTH or repeats > _MOST_REPEATS or not _PATTERN.fullmatch(text):
            raise ContainerError(f"{key} has the pattern {show(text)}, which is not supported")
        try:
            # As PEFT matches them.
            pattern = re.compile(rf"(?:.*\.)?(?:{text})$")
        except re.error:
            raise ContainerError(f"{key} has the malformed pattern {show(text)}") from None
        found.append((pattern, read(value)))
    return found


def _modules(
    path: Path, file: MappedFile, settings: _Settings, config: ModelConfig
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
    settings: _Settings,
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
