"""What config.json and generation_config.json of a checkpoint say of the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.checkpoint_files import damaged, parse_object, unsupported
from qwen_edge.model.config import (
    ARCHITECTURE,
    GenerationDefaults,
    ModelConfig,
    config_from,
    generation_from,
)
from qwen_edge.model.container import ContainerError, show

CONFIG = "config.json"
CLASS_NAME = "Qwen3ForCausalLM"
# By quant_method in config.json: the module that reads the format. Its function quantized_tensors
# takes the settings, the shapes of the model's tensors and the stored tensors, and returns the
# matrices that it recognizes.
QUANTIZED: Mapping[str, str] = {
    "awq": "qwen_edge.model.awq",
    "bitsandbytes": "qwen_edge.model.bitsandbytes",
    "fp8": "qwen_edge.model.fp8",
    "gptq": "qwen_edge.model.gptq",
}
# Qwen's own defaults, for checkpoints without generation_config.json.
_DEFAULT_GENERATION = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}


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
    table = parse_object(path / CONFIG, data)
    config = model_config(path, table)
    settings = table.get("quantization_config") or {}
    if settings:
        quantization_method(path, settings)
    return Preview(config, bool(settings))


def model_config(folder: Path, table: Mapping[str, Any]) -> ModelConfig:
    """The model that a checkpoint's config.json describes.

    Raises:
        DamagedModelError: it is malformed, or not a dense Qwen3 model.
    """
    _check_kind(folder, table)
    try:
        return config_from(_model_table(table))
    except ContainerError as error:
        raise damaged(folder / CONFIG, str(error)) from None


def generation_defaults(
    folder: Path, config: Mapping[str, Any], table: Mapping[str, Any], vocab_size: int
) -> GenerationDefaults:
    """How a checkpoint's makers would have answers sampled.

    Args:
        folder: of the checkpoint, for errors.
        config: its config.json.
        table: its generation_config.json, empty if it has none.
        vocab_size: rows of the embedding.

    Raises:
        DamagedModelError: that is malformed.
    """
    try:
        return generation_from(_generation_table(config, table), vocab_size)
    except ContainerError as error:
        raise damaged(folder / CONFIG, str(error)) from None


def quantization_method(folder: Path, settings: object) -> str:
    """The method of a quantized checkpoint.

    Raises:
        DamagedModelError: it is none of ``QUANTIZED``.
    """
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if isinstance(method, str) and method in QUANTIZED:
        return method
    raise DamagedModelError(
        "The checkpoint {path} is quantized by the unsupported method {method}.",
        "Use the model's original checkpoint.",
        path=folder,
        method=show(method),
    )


def _check_kind(folder: Path, table: Mapping[str, Any]) -> None:
    kind, classes = table.get("model_type"), table.get("architectures") or [CLASS_NAME]
    if kind != ARCHITECTURE or classes != [CLASS_NAME]:
        found = classes[0] if isinstance(classes, list) and classes != [CLASS_NAME] else kind
        raise DamagedModelError(
            "The checkpoint {path} is of the architecture {found}, which is not supported.",
            "Dense Qwen3 models (Qwen3ForCausalLM) are supported.",
            path=folder,
            found=show(found),
        )
    rope = _rope(table)
    layer_types = table.get("layer_types") or []
    if not isinstance(layer_types, list):
        raise damaged(folder / CONFIG, f"layer_types is {show(layer_types)}")
    features = {
        "rope scaling": _rope_type(rope) not in (None, "default") or bool(_scaled(rope)),
        "attention biases": bool(table.get("attention_bias")),
        "sliding-window attention": bool(table.get("use_sliding_window"))
        or any(kind != "full_attention" for kind in layer_types),
        "an activation other than SiLU": table.get("hidden_act", "silu") != "silu",
    }
    for feature, used in features.items():
        if used:
            raise unsupported(folder, feature)


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


def _model_table(table: Mapping[str, Any]) -> dict[str, Any]:
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
