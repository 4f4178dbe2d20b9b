"""Model file to a Hugging Face checkpoint folder, as transformers and its tokenizers load it."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_edge.errors import UsageError
from qwen_edge.model.checkpoint import open_checkpoint
from qwen_edge.model.checkpoint_config import CLASS_NAME
from qwen_edge.model.checkpoint_weights import SINGLE
from qwen_edge.model.config import ARCHITECTURE, tensor_shapes
from qwen_edge.model.conversion import Conversion, Progress, summarize
from qwen_edge.model.packed import PackedModel
from qwen_edge.model.packed_header import DTYPES, TOKENIZER
from qwen_edge.model.packed_rows import PackedRows, slices
from qwen_edge.model.replacing_file import ReplacingFile
from qwen_edge.model.replacing_folder import ReplacingFolder
from qwen_edge.model.tensor_file import Place, TensorFile
from qwen_edge.quant.error import QuantizationError
from qwen_edge.quant.layout import DENSE_BYTES, Layout
from qwen_edge.quant.round_to_nearest import quantize
from qwen_edge.text.unpack_tokenizer import unpack_tokenizer
from qwen_edge.text.vocabulary import Kind, Vocabulary, is_special, tokenizer_json

TORCH_TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_PADDING = "<|endoftext|>"


def export_checkpoint(
    model: PackedModel,
    output: Path,
    *,
    floats: str = "bf16",
    threads: int = 0,
    progress: Progress | None = None,
) -> Conversion:
    """Writes a model as a checkpoint folder with all weights as floats.

    Args:
        model: an open one.
        output: the folder to make; it appears when it is complete.
        floats: ``bf16``, ``f16`` or ``f32``, which alone is exact for every quantized weight.
        threads: 0 for all cores.
        progress: called before each slice, and at the end with an empty name.

    Raises:
        UsageError: ``floats`` is not offered, or there is something of the folder's name.
        DamagedModelError: the model's tokenizer is damaged, or a weight is not finite.
        QwenEdgeError: the output cannot be written.
    """
    if floats not in TORCH_TYPES:
        raise UsageError("The weights cannot be written as {type}.", type=floats)
    packed = ctypes.string_at(model.address(TOKENIZER), model.tensors[TOKENIZER].nbytes)
    vocabulary = unpack_tokenizer(packed)
    texts = {
        "config.json": _json(_config(model, floats)),
        "generation_config.json": _json(_generation(model)),
        "tokenizer.json": tokenizer_json(vocabulary),
        "tokenizer_config.json": _json(_tokenizer_config(model, vocabulary)),
        "chat_template.jinja": model.chat_template.encode(),
    }
    with ReplacingFolder(output) as folder:
        for name, data in texts.items():
            with ReplacingFile(folder.path / name, len(data)) as file:
                file.write(data, 0)
                file.commit(lambda path: None)
        errors = _write_weights(model, folder.path / SINGLE, floats, threads, progress)
        open_checkpoint(folder.path).close()
        size = sum(path.stat().st_size for path in folder.path.iterdir())
        folder.commit()
    exact = sum(error.squared_error == 0 for error in errors.values())
    return summarize(output, size, errors, exact)


def _write_weights(
    model: PackedModel, path: Path, floats: str, threads: int, progress: Progress | None
) -> dict[str, QuantizationError]:
    header, places, size = _header(model, floats)
    errors: dict[str, QuantizationError] = {}
    with TensorFile(path, size, places, [(header, 0)]) as file:
        for name, place in places.items():
            error, done = QuantizationError(), place.offset
            for rows in slices(model, model.tensors[name]):
                if progress:
                    progress(done, size, name)
                data, slice_error = _floats(rows, floats, threads)
                error += slice_error
                file.write(name, data)
                done += len(data)
            if len(tensor_shapes(model.config)[name]) > 1:
                errors[name] = error
        if progress:
            progress(size, size, "")
        file.commit(lambda path: None)
    return errors


def _header(model: PackedModel, floats: str) -> tuple[bytes, dict[str, Place], int]:
    """The file's beginning, the place of each tensor in it, and its size."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    spans: dict[str, Place] = {}
    end = 0
    for name, shape in tensor_shapes(model.config).items():
        nbytes = math.prod(shape) * DENSE_BYTES[floats]
        table[name] = {
            "dtype": DTYPES[floats],
            "shape": list(shape),
            "data_offsets": [end, end + nbytes],
        }
        spans[name] = Place(end, nbytes)
        end += nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    data = 8 + len(text)
    places = {name: Place(data + offset, nbytes) for name, (offset, nbytes) in spans.items()}
    return len(text).to_bytes(8, "little") + text, places, data + end


def _floats(rows: PackedRows, floats: str, threads: int) -> tuple[bytearray, QuantizationError]:
    layout = rows.layout
    dense = Layout(floats, layout.rows, layout.cols)
    output = bytearray(dense.nbytes)
    target = (ctypes.c_ubyte * len(output)).from_buffer(output)
    return output, quantize(dense, rows.floats(threads), "f32", target)


def _json(table: Mapping[str, Any]) -> bytes:
    return json.dumps(table, indent=2, ensure_ascii=False).encode() + b"\n"


def _config(model: PackedModel, floats: str) -> dict[str, Any]:
    config, stop = model.config, model.generation.stop_ids
    return {
        "architectures": [CLASS_NAME],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": stop[0] if stop else None,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "max_window_layers": config.layers,
        "model_type": ARCHITECTURE,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": config.tied,
        "torch_dtype": TORCH_TYPES[floats],
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": config.vocab_size,
    }


def _generation(model: PackedModel) -> dict[str, Any]:
    generation = model.generation
    table: dict[str, Any] = {"eos_token_id": list(generation.stop_ids)}
    if generation.temperature == 0:
        return table | {"do_sample": False}
    return table | {
        "do_sample": True,
        "temperature": generation.temperature,
        "top_k": generation.top_k,
        "top_p": generation.top_p,
    }


def _tokenizer_config(model: PackedModel, vocabulary: Vocabulary) -> dict[str, Any]:
    tokens, stop = vocabulary.tokens, model.generation.stop_ids
    added = {
        str(id): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": is_special(token, kind),
        }
        for id, (token, kind) in enumerate(zip(tokens, vocabulary.kinds, strict=True))
        if kind in (Kind.CONTROL, Kind.USER_DEFINED)
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": tokens[stop[0]] if stop and stop[0] < len(tokens) else None,
        "errors": "replace",
        "model_max_length": model.config.max_positions,
        "pad_token": _PADDING if _PADDING in tokens else None,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
