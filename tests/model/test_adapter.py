"""Reading LoRA adapters: what fits, and what must be refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_edge.errors import DamagedModelError, ModelNotFoundError, QwenEdgeError, UsageError
from qwen_edge.model.adapter import open_adapter
from tests.model.adapters import peft_tensors, random_pairs, write_adapter
from tests.model.files import TINY, read_header

Q0 = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_what_is_read(tmp_path: Path, dtype: str) -> None:
    pairs = random_pairs(TINY, 8)
    folder = write_adapter(tmp_path / "mine", pairs, 8, dtype=dtype, lora_alpha=32)
    for path in (folder, folder / "adapter_model.safetensors"):
        with open_adapter(path, TINY) as adapter:
            assert (adapter.name, adapter.rank) == ("mine", 8)
            assert [module.weight.removesuffix(".weight") for module in adapter.modules] == [*pairs]
            assert {module.scale for module in adapter.modules} == {4.0}
            adapter.check_finite()


def test_scales(tmp_path: Path) -> None:
    """alpha over the rank or its root, and patterns as PEFT matches them: the first one counts."""
    names = [
        f"model.layers.{i}.{part}" for i in (0, 1) for part in ("mlp.up_proj", "self_attn.q_proj")
    ]
    pairs = {
        name: random_pairs(TINY, rank)[name] for name, rank in zip(names, (4, 9, 4, 3), strict=True)
    }
    patterns: dict[str, Any] = {
        "rank_pattern": {r"layers\.0\.self_attn.q_proj": 9, "q_proj": 3},
        "alpha_pattern": {"^model.layers.1.mlp.*": 2, "(up_proj|down_proj)": 8},
    }
    expected = {names[0]: (8, 4), names[1]: (16, 9), names[2]: (2, 4), names[3]: (16, 3)}
    for rooted in (False, True):
        folder = write_adapter(
            tmp_path / str(rooted), pairs, 4, lora_alpha=16, use_rslora=rooted, **patterns
        )
        with open_adapter(folder, TINY) as adapter:
            found = {module.weight.removesuffix(".weight"): module for module in adapter.modules}
        for name, (alpha, rank) in expected.items():
            assert found[name].rank == rank
            assert found[name].scale == pytest.approx(alpha / (math.sqrt(rank) if rooted else rank))


def test_the_adapters_name_in_the_tensors(tmp_path: Path) -> None:
    named = {
        name.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default."): values
        for name, values in peft_tensors(random_pairs(TINY, 2)).items()
    }
    folder = write_adapter(tmp_path / "mine", {}, 2, tensors=named)
    with open_adapter(folder, TINY) as adapter:
        assert len(adapter.modules) == 14


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"use_dora": True}, UsageError, "DoRA"),
        ({"fan_in_fan_out": True}, UsageError, "fan_in_fan_out"),
        ({"bias": "all"}, UsageError, "bias"),
        ({"lora_bias": True}, UsageError, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, UsageError, "modules_to_save"),
        ({"target_modules": ["q_proj", "model.embed_tokens"]}, UsageError, "embeddings"),
        ({"trainable_token_indices": [1]}, UsageError, "trainable_token_indices"),
        ({"peft_type": "IA3"}, DamagedModelError, "IA3"),
        ({"peft_type": "absent"}, DamagedModelError, "peft_type"),
        ({"r": 0}, DamagedModelError, "rank"),
        ({"r": True}, DamagedModelError, "rank"),
        ({"r": 5}, DamagedModelError, "rank"),
        ({"lora_alpha": "8"}, DamagedModelError, "lora_alpha"),
        ({"lora_alpha": 1e300}, DamagedModelError, "lora_alpha"),
        ({"use_rslora": 1}, DamagedModelError, "use_rslora"),
        ({"rank_pattern": ["q_proj"]}, DamagedModelError, "rank_pattern"),
        ({"rank_pattern": {"q_proj": 0}}, DamagedModelError, "rank"),
        ({"rank_pattern": {"(q_proj": 4}}, DamagedModelError, "pattern"),
        ({"alpha_pattern": {"(a+)+$": 4}}, DamagedModelError, "pattern"),
        ({"alpha_pattern": {".*.*.*.*b": 4}}, DamagedModelError, "pattern"),
        ({"alpha_pattern": {"a" * 300: 4}}, DamagedModelError, "pattern"),
    ],
)
def test_settings_that_are_refused(
    tmp_path: Path, changes: dict[str, Any], kind: type[QwenEdgeError], said: str
) -> None:
    folder = write_adapter(tmp_path / "mine", random_pairs(TINY, 4), 4, **changes)
    with pytest.raises(kind, match=said):
        open_adapter(folder, TINY)


def _without(name: str) -> dict[str, Any]:
    tensors = peft_tensors(random_pairs(TINY, 4))
    del tensors[f"base_model.model.{name}"]
    return tensors


def _with(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return peft_tensors(random_pairs(TINY, 4)) | {name: np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "no tensors"),
        (_without(f"{Q0}.lora_B.weight"), "only one"),
        (_with("base_model.model.lm_head.lora_A.weight", (4, 96)), "lm_head"),
        (_with("base_model.model.model.embed_tokens.lora_embedding_A", (4, 96)), "embed"),
        (_with(f"base_model.model.{Q0}.lora_magnitude_vector", (96,)), "magnitude"),
        (_with(f"base_model.model.{Q0}.base_layer.weight", (96, 96)), "base_layer"),
        (_with("base_model.model.model.layers.2.mlp.up_proj.lora_A.weight", (4, 96)), "layer"),
        (_with("base_model.model.model.layers.00.mlp.up_proj.lora_A.weight", (4, 96)), "seven"),
        (_with("base_model.model.model.layers.0.mlp.router.lora_A.weight", (4, 96)), "seven"),
        (_with(f"{Q0}.lora_A.weight", (4, 96)), "twice"),
        (_with(f"base_model.model.{Q0}.lora_A.weight", (4, 95)), "95"),
        (_with(f"base_model.model.{Q0}.lora_A.weight", (5, 96)), "go together"),
        (_with(f"base_model.model.{Q0}.lora_A.weight", (4, 96, 1)), "go together"),
        (_with(f"base_model.model.{Q0}.lora_B.weight", (95, 4)), "95"),
        (_with("base_model.model." + "x" * 5000, (4, 96)), "xxx"),
    ],
)
def test_tensors_that_are_refused(tmp_path: Path, tensors: dict[str, Any], said: str) -> None:
    folder = write_adapter(tmp_path / "mine", {}, 4, tensors=tensors)
    with pytest.raises(DamagedModelError, match=said) as caught:
        open_adapter(folder, TINY)
    assert len(str(caught.value)) < 500


def test_types_that_are_refused(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "mine", random_pairs(TINY, 4), 4, dtype="F16")
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F16"', b'"I16"', 1))
    with pytest.raises(DamagedModelError, match="F32"):
        open_adapter(folder, TINY)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    pairs = random_pairs(TINY, 4)
    pairs[Q0][1][-1, -1] = value
    folder = write_adapter(tmp_path / "mine", pairs, 4)
    refused = pytest.raises(DamagedModelError, match=rf"{Q0}\.lora_B.* not finite")
    with open_adapter(folder, TINY) as adapter, refused:
        adapter.check_finite()


def test_ranks(tmp_path: Path) -> None:
    high = write_adapter(tmp_path / "high", random_pairs(TINY, 65), 65)
    with open_adapter(high, TINY) as adapter:
        assert adapter.rank == 65
    with pytest.raises(UsageError, match="rank 65") as caught:
        open_adapter(high, TINY, 64)
    assert "convert" in str(caught.value.hint)
    higher = write_adapter(tmp_path / "higher", random_pairs(TINY, 257), 257)
    with pytest.raises(UsageError, match="rank 257"):
        open_adapter(higher, TINY)


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "mine", random_pairs(TINY, 4), 4)
    settings, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    with pytest.raises(ModelNotFoundError, match="no adapter"):
        open_adapter(tmp_path / "none", TINY)
    content = weights.read_bytes()
    for damage in (b"", content[:7], content[:200], content[:-1], content + b"x", b"\x80\x02}"):
        weights.write_bytes(damage)
        with pytest.raises(DamagedModelError):
            open_adapter(folder, TINY)
    weights.unlink()
    (folder / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelNotFoundError, match=r"no adapter_model\.safetensors"):
        open_adapter(folder, TINY)
    weights.write_bytes(content)
    for text in ("", "[]", "{", '{"r": 1, "r": 2}', '{"r": NaN}'):
        settings.write_text(text)
        with pytest.raises(DamagedModelError):
            open_adapter(folder, TINY)
    settings.unlink()
    with pytest.raises(ModelNotFoundError, match=r"no adapter_config\.json"):
        open_adapter(folder, TINY)
    assert read_header(weights)[0]
