"""Overrides: what they say, and which matrices they fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qwen_edge.errors import UsageError
from qwen_edge.model.convert import open_source
from qwen_edge.model.layout_choice import choose_layouts, parse_override
from qwen_edge.quant.layout import INT4, IQ4_NL, NF4, WeightFormat, weight_format
from tests.model.files import TINY, random_weights, write_checkpoint


def test_formats_of_overrides() -> None:
    assert parse_override("lm_head=8") == ("lm_head", weight_format(8, 32))
    assert parse_override("*=16") == ("*", weight_format(16))
    assert parse_override("a=4", 64) == ("a", WeightFormat("q4", 64, False, INT4))
    assert parse_override("a=nf4", 64) == ("a", WeightFormat("q4", 64, False, NF4))
    assert parse_override("a=uint4") == ("a", weight_format(4, 32, "uint4"))
    assert weight_format(4, 32, "uint4").has_min


@pytest.mark.parametrize("text", ["", "8", "lm_head", "=8", "a=", "a=5", "a=q4", "a=-8", "a=8=8"])
def test_what_is_no_override(text: str) -> None:
    with pytest.raises(UsageError, match="not understood"):
        parse_override(text)


@pytest.mark.parametrize(
    ("pattern", "tied", "fits"),
    [
        ("lm_head", True, {"model.embed_tokens.weight"}),
        ("embed_tokens", True, {"model.embed_tokens.weight"}),
        ("lm_head", False, {"lm_head.weight"}),
        ("embed_tokens", False, {"model.embed_tokens.weight"}),
        ("down_proj", True, {f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)}),
        ("layers.1.*_proj", True, {
            f"model.layers.1.{part}_proj.weight"
            for part in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o",
                         "mlp.gate", "mlp.up", "mlp.down")
        }),
        ("model.layers.0.mlp.up_proj.weight", True, {"model.layers.0.mlp.up_proj.weight"}),
    ],
)  # fmt: skip
def test_which_matrices_a_pattern_fits(
    pattern: str, tied: bool, fits: set[str], tmp_path: Path
) -> None:
    config = replace(TINY, tied=tied)
    write_checkpoint(tmp_path, config, weights=random_weights(config))
    with open_source(tmp_path) as source:
        overrides = [(pattern, weight_format(8)), ("*", weight_format(16))]
        layouts = choose_layouts(source, 4, 32, "iq4_nl", overrides)
        assert {name for name, layout in layouts.items() if layout.type == "q8"} == fits
        usual = choose_layouts(source, 4, 32, "iq4_nl", overrides[:1])
    others = {layout.codebook for name, layout in usual.items() if layout.type == "q4"}
    assert others == {IQ4_NL}


def test_patterns_and_codebooks_that_fit_nothing(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TINY, weights=random_weights(TINY))
    with open_source(tmp_path) as source:
        for pattern in ("head", "layers.2.*", "proj"):
            with pytest.raises(UsageError, match=f"override {pattern} fits no weights"):
                choose_layouts(source, 4, 32, "int4", [(pattern, weight_format(8))])
        with pytest.raises(UsageError, match="codebook 'int5' is not one of"):
            choose_layouts(source, 4, 32, "int5")
