"""Source checkpoints: what is taken, and what each kind of trouble is called."""

from __future__ import annotations

import ctypes
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_edge.errors import DamagedModelError, ModelNotFoundError, UsageError
from qwen_edge.model.chatml import CHATML
from qwen_edge.model.checkpoint import open_checkpoint
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.safetensors_reader import FLOAT_TYPES
from tests.model.files import (
    TINY,
    encode,
    random_weights,
    write_checkpoint,
    write_safetensors,
)

UNTIED = replace(TINY, tied=False)
V5_ROPE = {"rope_theta": 1e6, "rope_type": "default"}
INDEX = "model.safetensors.index.json"


def refused(folder: Path) -> str:
    with pytest.raises(DamagedModelError) as caught:
        open_checkpoint(folder)
    assert caught.value.hint
    sentence = str(caught.value)
    assert sentence.isprintable()
    return sentence


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("config", [TINY, UNTIED], ids=["tied", "untied"])
def test_the_bytes_of_every_tensor(tmp_path: Path, dtype: str, shards: int, config: Any) -> None:
    weights = write_checkpoint(tmp_path, config, dtype=dtype, shards=shards)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.config == config
        assert list(checkpoint.tensors) == list(tensor_shapes(config))
        for name, tensor in checkpoint.tensors.items():
            expected = encode(weights[name], dtype)
            for _ in range(2):
                floats = tensor.floats(0, tensor.rows)
                assert floats.type == FLOAT_TYPES[dtype]
                assert ctypes.string_at(floats.data, tensor.nbytes) == expected
                tensor.release(0, tensor.rows)
            last = tensor.floats(tensor.rows - 1, 1).data
            row_bytes = len(expected) // tensor.rows
            assert ctypes.string_at(last, row_bytes) == expected[-row_bytes:]


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_theta": "absent", "rope_scaling": "absent", "rope_parameters": V5_ROPE},
        {"rope_parameters": V5_ROPE, "layer_types": ["full_attention"] * 2},
        {"sliding_window": 4096},
        {"architectures": None},
        {"num_key_value_heads": 1, "attention_bias": "absent", "hidden_act": "absent"},
    ],
)
def test_ways_to_write_the_same_config(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_checkpoint(tmp_path, **changes)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.config == TINY


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "'LlamaForCausalLM'"),
        ({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}, "Qwen3MoeFor"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "Qwen3ForSequenceClass"),
        ({"model_type": "qwen2"}, "of the architecture 'qwen2', which is not supported"),
        ({"model_type": "absent"}, "of the architecture None"),
        ({"architectures": ["\x1b[2J"]}, "of the architecture"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "uses rope scaling"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "uses rope scaling"),
        ({"rope_scaling": {"factor": 4.0}}, "uses rope scaling"),
        ({"rope_parameters": V5_ROPE | {"rope_type": "dynamic"}}, "uses rope scaling"),
        ({"rope_parameters": V5_ROPE | {"partial_rotary_factor": 0.5}}, "uses rope scaling"),
        ({"rope_parameters": "yarn"}, "uses rope scaling"),
        ({"attention_bias": True}, "uses attention biases"),
        ({"use_sliding_window": True}, "uses sliding-window attention"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "uses sliding-window"),
        ({"layer_types": 3}, "config.json cannot be used: layer_types is 3"),
        ({"hidden_act": "gelu"}, "uses an activation other than SiLU"),
        ({"quantization_config": {"quant_method": "quip"}}, "by the unsupported method 'quip'"),
        ({"quantization_config": ["gptq"]}, "by the unsupported method None"),
        ({"hidden_size": "absent"}, "config.json cannot be used: hidden_size is None"),
        ({"hidden_size": 128}, "embed_tokens.weight is (261, 96), its config.json says (261, 128)"),
        ({"head_dim": 40}, "head_dim is 40, not a multiple of 32"),
        ({"num_hidden_layers": 3}, "has no tensor model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 1}, "'model.layers.1.input_layernorm.weight' does not belong"),
        ({"tie_word_embeddings": False}, "has no tensor lm_head.weight"),
        ({"tie_word_embeddings": "yes"}, "tied is 'yes'"),
        ({"eos_token_id": 261}, "stop_ids is not a list of token ids"),
        ({"rms_norm_eps": 1}, "rms_norm_eps is 1"),
        ({"rope_theta": -5}, "rope_theta is -5"),
    ],
)
def test_models_of_other_kinds(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    write_checkpoint(tmp_path, **changes)
    assert sentence in refused(tmp_path)


def test_folders_without_a_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="There is no checkpoint folder"):
        open_checkpoint(tmp_path / "none")
    with pytest.raises(ModelNotFoundError, match="There is no checkpoint folder"):
        open_checkpoint(checkpoint / "model.safetensors")
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        open_checkpoint(tmp_path)
    shutil.copy(checkpoint / "config.json", tmp_path)
    (tmp_path / "training_args.bin").touch()
    with pytest.raises(ModelNotFoundError, match="There are no safetensors weights"):
        open_checkpoint(tmp_path)
    with (
        open_checkpoint(checkpoint) as opened,
        pytest.raises(DamagedModelError, match=r"has no tokenizer\.json"),
    ):
        opened.tokenizer_json()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', "\udcff", '{"x": Infinity}'])
def test_a_config_that_is_not_json(tmp_path: Path, text: str) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "config.json cannot be used" in refused(tmp_path)


def test_tensors_that_do_not_belong_there(tmp_path: Path) -> None:
    weights = random_weights(TINY)
    bias = "model.layers.0.self_attn.q_proj.bias"
    write_checkpoint(tmp_path, weights=weights | {bias: weights["model.norm.weight"]})
    assert f"its tensor '{bias}' does not belong to a dense Qwen3 model" in refused(tmp_path)
    harmless = {
        "lm_head.weight": weights["model.embed_tokens.weight"],
        "model.layers.0.self_attn.rotary_emb.inv_freq": weights["model.norm.weight"],
    }
    write_checkpoint(tmp_path, weights=weights | harmless)
    with open_checkpoint(tmp_path) as opened:
        assert "lm_head.weight" not in opened.tensors


def test_tensors_of_other_types(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"BF16"', b'"I16" ', 1))
    assert "embed_tokens.weight is I16, not F32, F16 or BF16" in refused(tmp_path)


def test_damaged_weights(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 5, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert f"{path} cannot be used: it is truncated, " in refused(tmp_path)
    path.write_bytes(whole + b"x")
    assert "it has 1 bytes after its last tensor" in refused(tmp_path)
    path.write_bytes(b"PK\x03\x04" + whole)
    assert "it is a zip archive or a PyTorch checkpoint" in refused(tmp_path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "it is a Git LFS pointer, not the file itself" in refused(tmp_path)
    path.unlink()
    path.mkdir()
    assert "it cannot be read (Is a directory)" in refused(tmp_path)


def test_shards_that_are_missing_or_incomplete(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, shards=3)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    shard.unlink()
    sentence = refused(tmp_path)
    assert "The shard model-00002-of-00003.safetensors that " in sentence
    assert "names cannot be read: No such file or directory." in sentence
    write_safetensors(shard, {})
    assert "model-00002-of-00003.safetensors cannot be used: it lacks the tensor" in refused(
        tmp_path
    )


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "../model.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": ".."}}',
        '{"weight_map": {"a": ""}}',
        '{"weight_map": {"a": "x\\u0000"}}',
        '{"weight_map": {"a": "\\u001b[2J"}}',
        "{",
    ],
)
def test_a_malformed_index(tmp_path: Path, index: str) -> None:
    write_checkpoint(tmp_path, shards=3)
    (tmp_path / INDEX).write_text(index)
    assert f"{INDEX} cannot be used: " in refused(tmp_path)


@pytest.mark.parametrize("name", ["gptq_model-4bit-128g.safetensors", "Qwen3-0.6B.w4.safetensors"])
def test_weights_under_another_name(tmp_path: Path, name: str) -> None:
    weights = write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    # Neither are the model's.
    (tmp_path / "adapter_model.safetensors").write_bytes(b"adapter")
    (tmp_path / "training_args.bin").write_bytes(b"pickle")
    with open_checkpoint(tmp_path) as opened:
        assert opened.reader.tensors.keys() == weights.keys()


def test_shards_under_another_name(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path, shards=3)
    table = json.loads((tmp_path / INDEX).read_text())
    for path in tmp_path.glob("model-*.safetensors"):
        path.rename(tmp_path / path.name.replace("model-", "gptq_model-4bit-128g-"))
    placed = table["weight_map"]
    table["weight_map"] = {
        name: shard.replace("model-", "gptq_model-4bit-128g-") for name, shard in placed.items()
    }
    (tmp_path / INDEX).unlink()
    (tmp_path / f"gptq_model-4bit-128g{INDEX.removeprefix('model')}").write_text(json.dumps(table))
    with open_checkpoint(tmp_path) as opened:
        assert opened.reader.tensors.keys() == weights.keys()


def test_several_files_of_weights(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    for name in ("a.safetensors", "b.safetensors"):
        shutil.copy(tmp_path / "model.safetensors", tmp_path / name)
    # The usual name goes before all others.
    open_checkpoint(tmp_path).close()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        UsageError, match=r"several files of weights: a\.safetensors, b\.safetensors"
    ):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "weights.pt", "m.pkl"])
def test_pickled_weights_are_never_read(tmp_path: Path, name: str) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    ran = tmp_path / "ran"
    # What a pickle may do: open a file for writing.
    (tmp_path / name).write_bytes(b"cbuiltins\nopen\n(V" + str(ran).encode() + b"\nVw\ntR.")
    with pytest.raises(ModelNotFoundError, match=rf"are pickled \({name}\)"):
        open_checkpoint(tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, (0.6, 20, 0.95, (2,))),
        ({"temperature": 0.7, "top_k": 5, "top_p": 0.8}, (0.7, 5, 0.8, (2,))),
        ({"do_sample": False, "temperature": None}, (0, 20, 0.95, (2,))),
        ({"eos_token_id": [7, 3]}, (0.6, 20, 0.95, (7, 3))),
        ({"eos_token_id": 5, "temperature": 1}, (1, 20, 0.95, (5,))),
    ],
)
def test_generation_defaults(tmp_path: Path, table: dict[str, Any], expected: Any) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(table))
    with open_checkpoint(tmp_path) as opened:
        found = opened.generation
        assert (found.temperature, found.top_k, found.top_p, found.stop_ids) == expected


def test_generation_defaults_out_of_range(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"temperature": "hot"}')
    assert "temperature is 'hot'" in refused(tmp_path)


def test_where_the_chat_template_comes_from(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)

    def template() -> str:
        with open_checkpoint(tmp_path) as opened:
            return opened.chat_template

    assert template() == CHATML
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps({"chat_template": "from the settings"}))
    assert template() == "from the settings"
    named = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    settings.write_text(json.dumps({"chat_template": named}))
    assert template() == "b"
    settings.write_text(json.dumps({"chat_template": None}))
    assert template() == CHATML
    (tmp_path / "chat_template.jinja").write_text("from the file\n")
    assert template() == "from the file\n"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    assert "chat_template.jinja cannot be used: it is not UTF-8" in refused(tmp_path)


def test_the_built_in_template_says_what_the_model_was_trained_on() -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    messages = [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "  One? "},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTwo.\n"},
        {"role": "user", "content": "Three?"},
    ]
    start = (
        "<|im_start|>system\nBe brief.\n<|im_end|>\n<|im_start|>user\n  One? <|im_end|>\n"
        "<|im_start|>assistant\nTwo.\n<|im_end|>\n<|im_start|>user\nThree?<|im_end|>\n"
    )
    for options in ({}, {"trim_blocks": True, "lstrip_blocks": True}):
        template = ImmutableSandboxedEnvironment(**options).from_string(CHATML)
        assert template.render(messages=messages) == start
        answer = start + "<|im_start|>assistant\n"
        assert template.render(messages=messages, add_generation_prompt=True) == answer
        silent = template.render(
            messages=messages, add_generation_prompt=True, enable_thinking=False
        )
        assert silent == answer + "<think>\n\n</think>\n\n"
