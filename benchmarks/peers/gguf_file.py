"""Writes the weights of a .qedge file as GGUF, so that llama.cpp computes with the same numbers.

    python -m benchmarks.peers.gguf_file MODEL.qedge TOKENIZER.json OUT.gguf [--type q4_0|f16]

``q4_0``: INT4 with groups of 32 and the codebook -8 to 7 is ggml's Q4_0 with the bytes in another
order: codes and scales are taken over as they are, the head's too. ``f16``: the weights rounded to
fp16, to be quantized by llama.cpp itself. Needs numpy and gguf.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from qwen_edge.model.packed import PackedModel, TensorInfo, open_model
from qwen_edge.quant.layout import INT4
from qwen_edge.quant.packing import unpack_codes

GROUP = 32
# Hugging Face's name of a layer's tensor: ggml's.
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def ggml_name(name: str) -> str:
    """``model.layers.3.mlp.up_proj.weight`` is ``blk.3.ffn_up.weight``."""
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    layer, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{LAYER_NAMES[part]}.weight"


def codes_and_scales(model: PackedModel, info: TensorInfo) -> tuple[np.ndarray, np.ndarray]:
    """Codes [rows, cols] from 0 to 15 and fp16 scales [rows, groups] of an INT4 tensor.

    Raises:
        ValueError: the tensor is not INT4 with groups of 32, without minimums.
    """
    if info.type != "q4" or info.group != GROUP or info.has_min or tuple(info.codebook) != INT4:
        raise ValueError(f"{info.name} is not symmetric INT4 with groups of {GROUP}")
    codes = np.empty((info.rows, info.cols), np.uint8)
    scales = np.empty((info.rows, info.cols // GROUP), np.float16)
    unpack_codes(info.layout, model.address(info.name), codes.ctypes.data, scales.ctypes.data, None)
    return codes, scales


def q4_0_blocks(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Q4_0 bytes [rows, groups * 18]: a scale, then 16 bytes, byte j codes j and j + 16."""
    groups = codes.reshape(*scales.shape, GROUP)
    nibbles = groups[..., :16] | groups[..., 16:] << 4
    blocks = np.concatenate([scales[..., None].view(np.uint8), nibbles], axis=-1)
    return np.ascontiguousarray(blocks.reshape(scales.shape[0], -1))


def weights_f16(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The weights [rows, cols], rounded to fp16."""
    signed = codes.reshape(*scales.shape, GROUP).astype(np.float32) - 8
    return (signed * scales[..., None].astype(np.float32)).astype(np.float16).reshape(codes.shape)


def vector(model: PackedModel, info: TensorInfo) -> np.ndarray:
    """A norm's fp32 weights [n]."""
    import ctypes

    raw = ctypes.string_at(model.address(info.name), info.nbytes)
    return np.frombuffer(raw, np.float32).copy()


def add_tokenizer(writer: gguf.GGUFWriter, definition: dict[str, Any], vocab_size: int) -> None:
    """Adds a Hugging Face byte-level BPE tokenizer of Qwen's kind, padded to the model's rows."""
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    kinds = [int(gguf.TokenType.UNUSED)] * vocab_size
    for token, index in definition["model"]["vocab"].items():
        tokens[index], kinds[index] = token, int(gguf.TokenType.NORMAL)
    for added in definition["added_tokens"]:
        special = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], int(special)
    merges = [m if isinstance(m, str) else " ".join(m) for m in definition["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)


def add_shape(writer: gguf.GGUFWriter, model: PackedModel, file_type: gguf.LlamaFileType) -> None:
    """Adds the model's numbers under llama.cpp's names."""
    c = model.config
    writer.add_name(model.name)
    writer.add_file_type(file_type)
    writer.add_block_count(c.layers)
    writer.add_context_length(c.max_positions)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)


def write_gguf(model: PackedModel, tokenizer: dict[str, Any], output: Path, kind: str) -> None:
    """Writes the file; ``kind`` is ``q4_0`` or ``f16``.

    Raises:
        ValueError: a weight matrix is not symmetric INT4 with groups of 32.
    """
    writer = gguf.GGUFWriter(output, "qwen3")
    exact = kind == "q4_0"
    add_shape(
        writer,
        model,
        gguf.LlamaFileType.MOSTLY_Q4_0 if exact else gguf.LlamaFileType.MOSTLY_F16,
    )
    add_tokenizer(writer, tokenizer, model.config.vocab_size)
    for name, info in model.tensors.items():
        if name == "tokenizer":
            continue
        if info.type == "f32":
            writer.add_tensor(ggml_name(name), vector(model, info))
            continue
        codes, scales = codes_and_scales(model, info)
        if exact:
            blocks = q4_0_blocks(codes, scales)
            kind_code = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(ggml_name(name), blocks, raw_dtype=kind_code)
        else:
            writer.add_tensor(ggml_name(name), weights_f16(codes, scales))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path, help="Qwen3's tokenizer.json")
    parser.add_argument("output", type=Path)
    parser.add_argument("--type", choices=["q4_0", "f16"], default="q4_0")
    arguments = parser.parse_args()
    definition = json.loads(arguments.tokenizer.read_bytes())
    with open_model(arguments.model) as model:
        write_gguf(model, definition, arguments.output, arguments.type)


if __name__ == "__main__":
    main()
