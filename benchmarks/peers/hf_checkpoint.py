"""Writes the weights of a .qedge file as a Hugging Face checkpoint in bf16, for transformers.

    python -m benchmarks.peers.hf_checkpoint MODEL.qedge TOKENIZER.json FOLDER

Needs torch and safetensors.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from qwen_edge.model.packed import ModelConfig, PackedModel, TensorInfo, open_model
from qwen_edge.quant.packing import dequantize


def hf_config(c: ModelConfig) -> dict[str, object]:
    """The config.json that transformers reads."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_positions,
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tied,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "eos_token_id": 151645,
    }


def weights(model: PackedModel, info: TensorInfo) -> torch.Tensor:
    """A tensor in bf16."""
    values = torch.empty((info.rows, info.cols), dtype=torch.float32)
    dequantize(info.layout, model.address(info.name), values.data_ptr())
    return values.squeeze(0).to(torch.bfloat16) if info.rows == 1 else values.to(torch.bfloat16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path, help="Qwen3's tokenizer.json")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with open_model(arguments.model) as model:
        tensors = {n: weights(model, t) for n, t in model.tensors.items() if n != "tokenizer"}
        config = hf_config(model.config)
    save_file(tensors, arguments.folder / "model.safetensors", metadata={"format": "pt"})
    (arguments.folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    shutil.copy(arguments.tokenizer, arguments.folder / "tokenizer.json")
    kind = {"tokenizer_class": "Qwen2TokenizerFast", "eos_token": "<|im_end|>"}
    (arguments.folder / "tokenizer_config.json").write_text(json.dumps(kind), encoding="utf-8")


if __name__ == "__main__":
    main()
