"""The reference model: it is made of the file's own tensors, in any namespace of operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qwen_edge.model.convert import convert
from qwen_edge.model.packed import PackedModel, open_model
from qwen_edge.model.qwen3 import Qwen3, run_layers
from qwen_edge.model.qwen3_loading import load_qwen3
from tests.engine.oracle import SHAPES, oracle_logits, oracle_of, random_model, relative_error
from tests.model.files import BLOB
from tests.model.operator_cases import KV_TYPES, empty_cache


@pytest.fixture(scope="module", params=["one-layer", "untied"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models")
    random_model(SHAPES[request.param]).save_pretrained(folder / "hf")
    convert(folder / "hf", folder / "model.qedge", tokenizer=BLOB)
    with open_model(folder / "model.qedge") as model:
        yield model


def logits(network: Qwen3, model: PackedModel, ids: list[int], **options: Any) -> torch.Tensor:
    config = model.config
    caches = [
        empty_cache("f32", 1, config.kv_heads, 4, config.head_dim) for _ in range(config.layers)
    ]
    positions = torch.arange(len(ids))
    with torch.inference_mode():
        return network(
            torch.tensor(ids), (torch.zeros_like(positions), positions), caches, positions,
            **options,
        )  # fmt: skip


def test_it_is_transformers_model(ops: Any, model: PackedModel) -> None:
    ids = [int(i) for i in np.random.default_rng(2).integers(0, model.config.vocab_size, 50)]
    network = load_qwen3(model, ops, KV_TYPES["f32"], fp32=True)
    truth = oracle_logits(oracle_of(model), ids)
    assert relative_error(logits(network, model, ids).numpy(), truth) <= 1e-4


def test_layers_are_run_by_what_is_given(ops: Any, model: PackedModel) -> None:
    network = load_qwen3(model, ops, KV_TYPES["f32"], fp32=True)
    ran: list[Any] = []

    def run(layers: Any, *args: Any) -> torch.Tensor:
        ran.extend(layers)
        return run_layers(layers, *args)

    ids = [3, 1, 4]
    assert torch.equal(logits(network, model, ids, run=run), logits(network, model, ids))
    assert ran == list(network.layers)


def test_its_weights_are_where_the_file_is_mapped(ops: Any, model: PackedModel) -> None:
    tensors = load_qwen3(model, ops, KV_TYPES["int8"]).state_dict()
    places = {model.address(name): info for name, info in model.tensors.items()}
    copied = [name for name, tensor in tensors.items() if tensor.data_ptr() not in places]
    # What keys have too much is given to the queries.
    assert all(name.endswith(("q_norm.weight", "k_norm.weight")) for name in copied)
    for tensor in tensors.values():
        if tensor.data_ptr() in places:
            assert tensor.nbytes == places[tensor.data_ptr()].nbytes
    named = {"tokenizer", *(f"padding.{i}" for i in range(len(model.tensors)))}
    mapped = {places[t.data_ptr()].name for t in tensors.values() if t.data_ptr() in places}
    norms = {name for name in model.tensors if name.endswith(("q_norm.weight", "k_norm.weight"))}
    assert mapped == set(model.tensors) - norms - named


def test_nothing_is_asked_to_be_trained(ops: Any, model: PackedModel) -> None:
    network = load_qwen3(model, ops, KV_TYPES["int8"])
    assert not list(network.parameters())
    assert not network.training
    assert not any(buffer.requires_grad for buffer in network.buffers())
