"""Hugging Face checkpoint folders: config, generation defaults, template, tokenizer, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from qwen_edge.errors import DamagedModelError, ModelNotFoundError
from qwen_edge.model.chatml import CHATML
from qwen_edge.model.config import (
    ARCHITECTURE,
    EMBEDDING,
    HEAD,
    ModelConfig,
    config_from,
    generation_from,
    tensor_shapes,
)
from qwen_edge.model.container import ContainerError, parse_json, show
from qwen_edge.model.file_map import MappedFile
from qwen_edge.model.safetensors_reader import (
    FLOAT_TYPES,
    FloatTensor,
    SafetensorsReader,
    StoredTensor,
)
from qwen_edge.model.source import (
    QuantizedTensor,
    Source,
    SourceTensor,
    UnsupportedError,
    UnusableError,
)
from qwen_edge.quant.layout import WeightFormat

CLASS_NAME = "Qwen3ForCausalLM"
_TEXT_LIMIT = 256 << 20
# By quant_method in config.json: the module that reads the format. Its function quantized_tensors
# takes the settings, the shapes of the model's tensors and the stored tensors, and returns the
# matrices that it recognizes.
QUANTIZED: Mapping[str, str] = {
    "awq": "qwen_edge.model.awq",
    "bitsandbytes": "qwen_edge.model.bitsandbytes",
    "fp8": "qwen_edge.model.fp8",
    "gptq": "qwen_edge.model.gptq",
}
# Where older repositories keep those settings, without their method's name.
_OLDER_SETTINGS = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
QuantizedTensors = Mapping[str, QuantizedTensor]
# Matrices that a quantized checkpoint left as floats were worth more bits to its makers.
_REST = WeightFormat("q8", 32, False, ())
# Qwen's own defaults, for checkpoints without generation_config.json.
_DEFAULT_GENERATION = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}


@dataclass(frozen=True)
class Checkpoint(Source):
    """An open checkpoint folder; see ``Source``."""

    reader: SafetensorsReader

    def tokenizer_json(self) -> bytes:
        """Reads ``tokenizer.json``.

        Raises:
            DamagedModelError: it is missing or cannot be read.
        """
        data = _read_file(self.path / "tokenizer.json")
        if data is None:
            raise DamagedModelError(
                "The checkpoint {path} has no tokenizer.json.",
                "Download the whole checkpoint; vocab.json and merges.txt alone are not read.",
                path=self.path,
            )
        return data

    def close(self) -> None:
        """Unmaps the weights."""
        self.reader.close()


def open_checkpoint(directory: Path) -> Checkpoint:
    """Opens a checkpoint folder and checks that it is a dense Qwen3 model, complete.

    Raises:
        ModelNotFoundError: there is no such folder, or nothing in it.
        DamagedModelError: it is malformed, incomplete or of an unsupported kind.
    """
    if not directory.is_dir():
        raise ModelNotFoundError(
            "There is no checkpoint folder {path}.",
            "It is what `huggingface-cli download` makes: a folder with config.json.",
            path=directory,
        )
    table = _read_json(directory / "config.json")
    if table is None:
        raise ModelNotFoundError(
            "The folder {path} has no config.json.",
            "A checkpoint needs config.json, tokenizer.json and safetensors weights.",
            path=directory,
        )
    _check_kind(directory, table)
    try:
        config = config_from(_config_table(table))
        generation = generation_from(
            _generation_table(table, _read_json(directory / "generation_config.json") or {}),
            config.vocab_size,
        )
    except ContainerError as error:
        raise _damaged(directory / "config.json", str(error)) from None
    template = _chat_template(directory)
    reader = SafetensorsReader(directory)
    try:
        tensors = _tensors(directory, config, table, reader.tensors)
        return Checkpoint(directory, config, generation, template, tensors, reader)
    except BaseException:
        reader.close()
        raise


class Preview(NamedTuple):
    """What a checkpoint's config.json tells ahead: the model, and whether it is quantized."""

    config: ModelConfig
    quantized: bool


def preview(path: Path, data: bytes) -> Preview:
    """Reads the text of a config.json before the rest of the checkpoint is there.

    Args:
        path: what the checkpoint is called in errors.
        data: the text.

    Raises:
        DamagedModelError: no checkpoint with this config can be converted.
    """
    table = _parse(path / "config.json", data)
    _check_kind(path, table)
    settings = table.get("quantization_config") or {}
    if settings:
        _method(path, settings)
    try:
        return Preview(config_from(_config_table(table)), bool(settings))
    except ContainerError as error:
        raise _damaged(path / "config.json", str(error)) from None


def _damaged(path: Path, problem: str) -> DamagedModelError:
    return DamagedModelError(
        "The checkpoint file {path} cannot be used: {problem}.",
        "Download the checkpoint again.",
        path=path,
        problem=problem,
    )


def _read_file(path: Path) -> bytes | None:
    """A whole small file, or None if there is none."""
    try:
        with MappedFile(path) as file:
            if file.size > _TEXT_LIMIT:
                raise _damaged(path, "it is too large")
            return file.read(0, file.size)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from None


def _read_json(path: Path) -> Mapping[str, Any] | None:
    data = _read_file(path)
    return None if data is None else _parse(path, data)


def _parse(path: Path, data: bytes) -> Mapping[str, Any]:
    try:
        table = parse_json(data, "its text")
    except ContainerError as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(table, dict):
        raise _damaged(path, "it is not a JSON object")
    return table


def _check_kind(directory: Path, table: Mapping[str, Any]) -> None:
    kind, classes = table.get("model_type"), table.get("architectures") or [CLASS_NAME]
    if kind != ARCHITECTURE or classes != [CLASS_NAME]:
        found = classes[0] if isinstance(classes, list) and classes != [CLASS_NAME] else kind
        raise DamagedModelError(
            "The checkpoint {path} is of the architecture {found}, which is not supported.",
            "Dense Qwen3 models (Qwen3ForCausalLM) are supported.",
            path=directory,
            found=show(found),
        )
    rope = _rope(table)
    layer_types = table.get("layer_types") or []
    if not isinstance(layer_types, list):
        raise _damaged(directory / "config.json", f"layer_types is {show(layer_types)}")
    unsupported = {
        "rope scaling": _rope_type(rope) not in (None, "default") or bool(_scaled(rope)),
        "attention biases": bool(table.get("attention_bias")),
        "sliding-window attention": bool(table.get("use_sliding_window"))
        or any(kind != "full_attention" for kind in layer_types),
        "an activation other than SiLU": table.get("hidden_act", "silu") != "silu",
    }
    for feature, used in unsupported.items():
        if used:
            raise DamagedModelError(
                "The checkpoint {path} uses {feature}, which is not supported.",
                "Use the model's original checkpoint.",
                path=directory,
                feature=feature,
            )


def _rope(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of the rotary embedding: rope_scaling, or since transformers 5 rope_parameters."""
    for key in ("rope_parameters", "rope_scaling"):
        if table.get(key):
            return table[key] if isinstance(table[key], dict) else {"type": table[key]}
    return {}


def _rope_type(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type"))


def _scaled(rope: Mapping[str, Any]) -> set[str]:
    return rope.keys() - {"rope_type", "type", "rope_theta"} if rope else set()


def _config_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Translates config.json to the names of ``ModelConfig``."""
    heads = table.get("num_attention_heads")
    # What Qwen3Config takes where the file says nothing.
    defaults = {"head_dim": 128, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
    return {
        "hidden_size": table.get("hidden_size"),
        "intermediate_size": table.get("intermediate_size"),
        "layers": table.get("num_hidden_layers"),
        "heads": heads,
        "kv_heads": table.get("num_key_value_heads") or heads,
        "head_dim": table.get("head_dim") or defaults["head_dim"],
        "vocab_size": table.get("vocab_size"),
        "max_positions": table.get("max_position_embeddings"),
        "rms_norm_eps": table.get("rms_norm_eps", defaults["rms_norm_eps"]),
        "rope_theta": table.get("rope_theta")
        or _rope(table).get("rope_theta")
        or defaults["rope_theta"],
        "tied": table.get("tie_word_embeddings", False),
    }


def _generation_table(config: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Translates generation_config.json to the names of ``GenerationDefaults``."""
    merged = {**_DEFAULT_GENERATION, **{k: v for k, v in table.items() if v is not None}}
    stop = merged.get("eos_token_id", config.get("eos_token_id"))
    return {
        "temperature": merged["temperature"] if merged["do_sample"] else 0,
        "top_k": merged["top_k"],
        "top_p": merged["top_p"],
        "stop_ids": [] if stop is None else stop if isinstance(stop, list) else [stop],
    }


def _chat_template(directory: Path) -> str:
    path = directory / "chat_template.jinja"
    data = _read_file(path)
    if data is not None:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise _damaged(path, "it is not UTF-8") from None
    settings = _read_json(directory / "tokenizer_config.json") or {}
    template = settings.get("chat_template")
    if isinstance(template, Sequence) and not isinstance(template, str):
        named = [item for item in template if isinstance(item, dict)]
        template = next((i.get("template") for i in named if i.get("name") == "default"), None)
    return template if isinstance(template, str) else CHATML


def _tensors(
    directory: Path,
    config: ModelConfig,
    table: Mapping[str, Any],
    stored: Mapping[str, StoredTensor],
) -> dict[str, SourceTensor]:
    """Every tensor of the model, quantized ones by the reader of their format."""
    settings = table.get("quantization_config") or _older_settings(directory, stored)
    try:
        if not settings:
            return _select(config, {}, stored, None)
        module = import_module(QUANTIZED[_method(directory, settings)])
        found = module.quantized_tensors(settings, tensor_shapes(config), stored)
        return _select(config, found, stored, _REST)
    except UnsupportedError as error:
        raise DamagedModelError(
            "The checkpoint {path} uses {feature}, which is not supported.",
            "Use the model's original checkpoint.",
            path=directory,
            feature=error,
        ) from None
    except UnusableError as error:
        raise DamagedModelError(
            "The checkpoint {path} cannot be used: {problem}.",
            "Download the checkpoint again.",
            path=directory,
            problem=error,
        ) from None


def _older_settings(
    directory: Path, stored: Mapping[str, StoredTensor]
) -> Mapping[str, Any] | None:
    if not any(name.endswith(".qweight") for name in stored):
        return None
    for file, method in _OLDER_SETTINGS.items():
        settings = _read_json(directory / file)
        if settings is not None:
            return {"quant_method": method, **settings}
    return None


def _method(directory: Path, settings: object) -> str:
    """The method of a quantized checkpoint, one that can be read."""
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if isinstance(method, str) and method in QUANTIZED:
        return method
    raise DamagedModelError(
        "The checkpoint {path} is quantized by the unsupported method {method}.",
        "Use the model's original checkpoint.",
        path=directory,
        method=show(method),
    )


def _select(
    config: ModelConfig,
    quantized: QuantizedTensors,
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
