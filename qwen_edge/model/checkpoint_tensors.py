"""A model's tensors among those a checkpoint stores, quantized ones by their format's reader."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.checkpoint_config import QUANTIZED, quantization_method
from qwen_edge.model.checkpoint_files import read_json, unsupported
from qwen_edge.model.config import EMBEDDING, HEAD, ModelConfig, tensor_shapes
from qwen_edge.model.container import show
from qwen_edge.model.safetensors_reader import FLOAT_TYPES, FloatTensor, StoredTensor
from qwen_edge.model.source import QuantizedTensor, SourceTensor, UnsupportedError, UnusableError
from qwen_edge.quant.layout import WeightFormat

# Where older repositories keep those settings, without their method's name.
_OLDER_SETTINGS = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
# Matrices that a quantized checkpoint left as floats were worth more bits to its makers.
_REST = WeightFormat("q8", 32, False, ())


def model_tensors(
    folder: Path,
    config: ModelConfig,
    table: Mapping[str, Any],
    stored: Mapping[str, StoredTensor],
) -> dict[str, SourceTensor]:
    """Every tensor of the model by its name.

    Args:
        folder: of the checkpoint.
        config: the model's.
        table: the checkpoint's config.json.
        stored: what its safetensors files hold.

    Raises:
        DamagedModelError: it does not make the model, or is quantized in a way that is not read.
    """
    settings = table.get("quantization_config") or _older_settings(folder, stored)
    try:
        if not settings:
            return _select(config, {}, stored, None)
        module = import_module(QUANTIZED[quantization_method(folder, settings)])
        found = module.quantized_tensors(settings, tensor_shapes(config), stored)
        return _select(config, found, stored, _REST)
    except UnsupportedError as error:
        raise unsupported(folder, error) from None
    except UnusableError as error:
        raise DamagedModelError(
            "The checkpoint {path} cannot be used: {problem}.",
            "Download the checkpoint again.",
            path=folder,
            problem=error,
        ) from None


def _older_settings(folder: Path, stored: Mapping[str, StoredTensor]) -> Mapping[str, Any] | None:
    if not any(name.endswith(".qweight") for name in stored):
        return None
    for file, method in _OLDER_SETTINGS.items():
        settings = read_json(folder / file)
        if settings is not None:
            return {"quant_method": method, **settings}
    return None


def _select(
    config: ModelConfig,
    quantized: Mapping[str, QuantizedTensor],
    stored: Mapping[str, StoredTensor],
    nearest: WeightFormat | None,
) -> dict[str, SourceTensor]:
    shapes = tensor_shapes(config)
    used = {part for tensor in quantized.values() for part in tensor.parts}
    for name in stored:
        # A bias or an adapter that is left out would make another model.
        known = name in shapes or name in used or name == HEAD
        if not known and not name.endswith("rotary_emb.inv_freq"):
            raise UnusableError(f"its tensor {show(name)} does not belong to a dense Qwen3 model")
    tensors: dict[str, SourceTensor] = {}
    for name, shape in shapes.items():
        tensor: SourceTensor | None = quantized.get(name)
        if tensor is None:
            tensor = _floats(name, stored, nearest if len(shape) > 1 else None)
        if tensor.shape != shape:
            raise UnusableError(
                f"its tensor {name} is {tensor.shape}, its config.json says {shape}"
            )
        tensors[name] = tensor
    if config.tied and HEAD in stored and stored[HEAD].shape != shapes[EMBEDDING]:
        raise UnusableError(f"its tied tensor {HEAD} has another shape than the embedding")
    return tensors


def _floats(
    name: str, stored: Mapping[str, StoredTensor], nearest: WeightFormat | None
) -> SourceTensor:
    tensor = stored.get(name)
    if tensor is None:
        raise UnusableError(f"it has no tensor {name}")
    if tensor.dtype not in FLOAT_TYPES:
        raise UnusableError(f"its tensor {name} is {tensor.dtype}, not F32, F16 or BF16")
    return FloatTensor(tensor, nearest)
