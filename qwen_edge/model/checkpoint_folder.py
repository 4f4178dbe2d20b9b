"""A Hugging Face folder that is run as it is: what is known of it once every tensor was checked.

transformers fills in what a checkpoint lacks with random numbers and believes most of what its
files say. So it gets nothing here that the readers of ``convert`` have not looked through: the
shapes and types of all tensors, the numbers of config.json, and of the quantization's settings
those alone that are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.checkpoint import open_checkpoint
from qwen_edge.model.checkpoint_config import CONFIG
from qwen_edge.model.checkpoint_files import damaged, read_json, unsupported
from qwen_edge.model.config import EMBEDDING, GenerationDefaults, ModelConfig
from qwen_edge.model.container import show
from qwen_edge.model.convert import origin_of, pack_source_tokenizer
from qwen_edge.model.safetensors_reader import FLOAT_TYPES
from qwen_edge.model.source import QuantizedTensor

_METHOD = "bitsandbytes"
_FLOATS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
# What from_pretrained would load weights from in place of the ones that were checked.
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Quantization:
    """How bitsandbytes quantizes a model.

    Attributes:
        kind: ``nf4``, ``fp4`` or ``int8``.
        double: whether the scales are quantized in turn.
        compute: the floats that 4-bit matrices are multiplied in: ``f32``, ``f16`` or ``bf16``.
        skipped: names of modules that are left as floats.
    """

    kind: str
    double: bool
    compute: str
    skipped: tuple[str, ...] | None


@dataclass(frozen=True)
class CheckpointFolder:
    """A checked folder; nothing of it stays open.

    Attributes:
        path: the folder.
        size: bytes of its tensors.
        name: what the model is called.
        config: the model's numbers.
        generation: how its makers sample it.
        chat_template: Jinja source.
        source: where the weights came from, for people.
        floats: type of what is stored as floats: ``f32``, ``f16`` or ``bf16``.
        quantized: None if all is.
        matrix_bytes: of the matrices but the embedding and the head, as they are stored.
        tokenizer: packed.
    """

    path: Path
    size: int
    name: str
    config: ModelConfig
    generation: GenerationDefaults
    chat_template: str
    source: str
    floats: str
    quantized: Quantization | None
    matrix_bytes: int
    tokenizer: bytes

    def close(self) -> None:
        """Does nothing: a folder is not kept open."""


def open_folder(path: Path) -> CheckpointFolder:
    """Checks a folder and takes from it what has to be known ahead.

    Raises:
        ModelNotFoundError: there is no such folder, or nothing in it.
        DamagedModelError: it is malformed, incomplete or of an unsupported kind.
    """
    with open_checkpoint(path) as checkpoint:
        if (path / _ADAPTER).exists():
            raise unsupported(path, "a LoRA adapter in the same folder")
        stored, tensors = checkpoint.reader.tensors, checkpoint.tensors
        quantized = any(isinstance(tensor, QuantizedTensor) for tensor in tensors.values())
        settings = (read_json(path / CONFIG) or {}).get("quantization_config") or {}
        origin = origin_of(path)
        return CheckpointFolder(
            path=path,
            size=sum(tensor.nbytes for tensor in tensors.values()),
            name=origin.rpartition("/")[2],
            config=checkpoint.config,
            generation=checkpoint.generation,
            chat_template=checkpoint.chat_template,
            source=origin,
            floats=FLOAT_TYPES[stored[EMBEDDING].dtype],
            quantized=_quantization(path, settings, stored=quantized) if settings else None,
            matrix_bytes=sum(
                tensor.nbytes
                for name, tensor in tensors.items()
                if name.startswith("model.layers.") and len(tensor.shape) > 1
            ),
            tokenizer=pack_source_tokenizer(checkpoint),
        )


def _quantization(path: Path, settings: Mapping[str, Any], *, stored: bool) -> Quantization:
    method = settings.get("quant_method")
    if method != _METHOD:
        raise DamagedModelError(
            "The checkpoint {path} is quantized by {method}, and the engine transformers takes "
            "bitsandbytes only.",
            "The native engine takes it: `qwen-edge convert {path}`.",
            path=path,
            method=show(method),
        )
    four, eight = settings.get("load_in_4bit") is True, settings.get("load_in_8bit") is True
    kind = settings.get("bnb_4bit_quant_type", "fp4") if four else "int8"
    compute = str(settings.get("bnb_4bit_compute_dtype") or "float32").removeprefix("torch.")
    skipped = settings.get("llm_int8_skip_modules")
    problem = ""
    if four == eight or kind not in ("nf4", "fp4", "int8"):
        problem = "its quantization_config names neither 4 nor 8 bits"
    elif compute not in _FLOATS:
        problem = f"bnb_4bit_compute_dtype is {show(compute)}"
    elif skipped is not None and not (
        isinstance(skipped, list) and all(isinstance(name, str) for name in skipped)
    ):
        problem = f"llm_int8_skip_modules is {show(skipped)}"
    elif not stored:
        problem = "it has a quantization_config, and no tensor is quantized"
    if problem:
        raise damaged(path / CONFIG, problem)
    double = settings.get("bnb_4bit_use_double_quant") is True
    return Quantization(
        str(kind), double, _FLOATS[compute], None if skipped is None else tuple(skipped)
    )
