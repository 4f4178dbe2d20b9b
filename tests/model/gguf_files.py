"""Small GGUF files, written by the gguf package."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf.quants import dequantize, quantize

from qwen_edge.model.config import ModelConfig
from qwen_edge.model.synthetic import byte_tokenizer_json
from tests.model.files import TINY, random_weights

Type = gguf.GGMLQuantizationType
# Rows of 256 weights at least: some types have blocks of that size.
CONFIG = replace(
    TINY, hidden_size=256, intermediate_size=512, head_dim=64, heads=4, kv_heads=2, vocab_size=300
)
FIRST_ADDED = 256
# Types that the package quantizes to; for the others, blocks are drawn.
QUANTIZED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16", "F32")
# Where a block's fp16 scales lie.
SCALES = {
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    "IQ4_NL": (0,), "IQ4_XS": (0,), "MXFP4": (),
}  # fmt: skip
HF_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
Floats = npt.NDArray[np.float32]


def ggml_names(config: ModelConfig) -> dict[str, str]:
    """Names in the file by Hugging Face's."""
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    for i in range(config.layers):
        for theirs, ours in HF_NAMES.items():
            names[f"model.layers.{i}.{ours}.weight"] = f"blk.{i}.{theirs}.weight"
    return names


def blocks(values: Floats, kind: str, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A matrix in a type: quantized by the package, or blocks with scales of a likely size."""
    if kind in QUANTIZED:
        data: npt.NDArray[np.uint8] = quantize(values, Type[kind])
        return data
    random = np.random.default_rng(seed)
    count, size = gguf.GGML_QUANT_SIZES[Type[kind]]
    drawn = random.integers(0, 256, (values.size // count, size), np.uint8)
    for place in SCALES[kind]:
        scales = random.uniform(1e-4, 1e-3, len(drawn)).astype(np.float16)
        drawn[:, place : place + 2] = scales[:, None].view(np.uint8)
    if kind == "MXFP4":
        drawn[:, 0] = random.integers(112, 122, len(drawn))
    return drawn.reshape(len(values), -1)


def tokenizer_lists(config: ModelConfig) -> tuple[list[str], list[int], list[str]]:
    """Tokens, kinds and merges: bytes, one merge and Qwen's added tokens, padded."""
    definition = json.loads(byte_tokenizer_json())
    tokens = [f"[PAD{i}]" for i in range(config.vocab_size)]
    kinds = [int(gguf.TokenType.UNUSED)] * config.vocab_size
    added = [token["content"] for token in definition["added_tokens"]]
    for token, index in definition["model"]["vocab"].items():
        if token not in added:
            tokens[index], kinds[index] = token, int(gguf.TokenType.NORMAL)
    for i, token in enumerate(definition["added_tokens"]):
        # As llama.cpp's converter has it: what looks like a control token is one.
        control = token["special"] or token["content"].startswith("<|")
        kind = gguf.TokenType.CONTROL if control else gguf.TokenType.USER_DEFINED
        tokens[FIRST_ADDED + i], kinds[FIRST_ADDED + i] = token["content"], int(kind)
    last = FIRST_ADDED + len(added)
    tokens[last], kinds[last] = "ab", int(gguf.TokenType.NORMAL)
    return tokens, kinds, ["a b"]


def add_keys(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """The keys of a Qwen3 model, as llama.cpp's converter writes them."""
    writer.add_name("A tiny model")
    writer.add_block_count(config.layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    tokens, kinds, merges = tokenizer_lists(config)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ messages }}")


def write_gguf(
    path: Path,
    kinds: str | Mapping[str, str] = "Q4_0",
    config: ModelConfig = CONFIG,
    *,
    architecture: str = "qwen3",
    change: Callable[[gguf.GGUFWriter], object] | None = None,
    **options: Any,
) -> dict[str, Floats]:
    """Writes a file with matrices in one type, or by Hugging Face's name; norms are F32.

    ``change`` may add keys or replace them; ``options`` go to the writer.

    Returns:
        The weights that the file stands for, by Hugging Face's name.
    """
    writer = gguf.GGUFWriter(path, architecture, **options)
    add_keys(writer, config)
    if change:
        change(writer)
    weights = {}
    for seed, (name, values) in enumerate(random_weights(config).items()):
        kind = "F32"
        if values.ndim > 1:
            kind = kinds if isinstance(kinds, str) else kinds.get(name, "F16")
        data = blocks(values, kind, seed)
        writer.add_tensor(ggml_names(config)[name], data, raw_dtype=Type[kind])
        weights[name] = dequantize(data, Type[kind]).reshape(values.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights
