"""Writing .qedge files."""

from __future__ import annotations

import ctypes
import itertools
import json
from pathlib import Path

import pytest
from safetensors import safe_open

from qwen_edge.errors import DamagedModelError
from qwen_edge.model.config import GenerationDefaults, tensor_shapes
from qwen_edge.model.packed import open_model
from qwen_edge.model.packed_writer import Description, PackedWriter
from qwen_edge.quant.layout import NF4, UINT4, Layout, level_format
from tests.model.files import TINY, read_header

DESCRIPTION = Description(
    name="mixed", config=TINY, generation=GenerationDefaults(0.5, 3, 0.5, (1, 2)),
    chat_template="{{ messages }} 中\n", source="made up",
)  # fmt: skip
FORMATS = (
    ("q4", 32, True, UINT4), ("q4", 64, False, NF4), ("q8", 128), ("f16",), ("bf16",), ("f32",),
)  # fmt: skip


def mixed_layouts() -> dict[str, Layout]:
    layouts = {}
    for i, (name, shape) in enumerate(tensor_shapes(TINY).items()):
        if len(shape) == 1:
            layouts[name] = Layout("f32", 1, shape[0])
        else:
            kind, *rest = FORMATS[i % len(FORMATS)]
            layouts[name] = Layout(kind, shape[0], shape[1], *rest)
    return {"tokenizer": Layout("u8", 1, 13), **layouts}


def content(name: str, layout: Layout) -> bytes:
    return (name.encode() * layout.nbytes)[: layout.nbytes]


def test_every_type_comes_back_in_any_order_of_writing(tmp_path: Path) -> None:
    layouts = mixed_layouts()
    path = tmp_path / "mixed.qedge"
    with PackedWriter(path, DESCRIPTION, layouts) as writer:
        for name in reversed(layouts):
            data = content(name, layouts[name])
            middle = len(data) // 3
            writer.write(name, data[:middle])
            writer.write(name, memoryview(bytearray(data))[middle:])
        writer.finish({"bits": 4, "note": "ü"})
        size = writer.size
    with open_model(path) as model:
        assert model.size == size
        assert (model.name, model.source) == ("mixed", "made up")
        assert model.config == TINY
        assert model.generation == DESCRIPTION.generation
        assert model.chat_template == DESCRIPTION.chat_template
        assert dict(model.quantization) == {"bits": 4, "note": "ü"}
        for name, layout in layouts.items():
            assert model.tensors[name].layout == layout
            data = ctypes.string_at(model.address(name), layout.nbytes)
            assert data == content(name, layout)
    with safe_open(path, "pt") as library:
        assert library.get_slice("tokenizer").get_shape() == [13]
        dense = {name for name, layout in layouts.items() if layout.type in ("f16", "bf16", "f32")}
        for name in dense:
            tensor = library.get_tensor(name)
            layout = layouts[name]
            assert tensor.numel() == layout.rows * layout.cols
            assert str(tensor.dtype) == {
                "f16": "torch.float16", "bf16": "torch.bfloat16", "f32": "torch.float32",
            }[layout.type]  # fmt: skip


def test_the_container_has_no_holes(tmp_path: Path) -> None:
    layouts = mixed_layouts()
    path = tmp_path / "mixed.qedge"
    with PackedWriter(path, DESCRIPTION, layouts) as writer:
        for name, layout in layouts.items():
            writer.write(name, content(name, layout))
        writer.finish({})
    header, data = read_header(path)
    assert (path.stat().st_size - len(data)) % 64 == 0
    assert header["__metadata__"].keys() == {"format", "qedge"}
    table = json.loads(header.pop("__metadata__")["qedge"])
    assert table["format_version"] == 1
    assert table["program"].startswith("qwen-edge ")
    spans = sorted(entry["data_offsets"] for entry in header.values())
    assert spans[0][0] == 0
    assert spans[-1][1] == len(data)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if name.startswith("padding."):
            assert data[begin:end] == bytes(end - begin)
        else:
            assert begin % 64 == 0


def versions(path: Path, layouts: dict[str, Layout]) -> int:
    """Writes a file of these tensors and returns the version that its header names."""
    with PackedWriter(path, DESCRIPTION, layouts) as writer:
        for name, layout in layouts.items():
            writer.write(name, content(name, layout))
        writer.finish({})
    version: int = json.loads(read_header(path)[0]["__metadata__"]["qedge"])["format_version"]
    return version


def test_only_files_that_need_it_are_of_the_newest_version(tmp_path: Path) -> None:
    layouts, path = mixed_layouts(), tmp_path / "new.qedge"
    query = "model.layers.1.self_attn.q_proj.weight"
    assert versions(path, layouts) == 1
    zeros = Layout("q4", 96, 96, 32, True, UINT4, has_zero=True)
    assert versions(path, layouts | {query: zeros}) == 2
    with open_model(path) as model:
        assert model.tensors[query].layout == zeros
        assert not model.tensors[query.replace("q_proj", "k_proj")].has_zero
    levels = level_format(tuple(i / 8 for i in range(-8, 8)), 64).layout(96, 96)
    assert versions(path, layouts | {query: levels}) == 2
    with open_model(path) as model:
        assert model.tensors[query].layout == levels
    for bytes_ in (Layout("q8", 96, 96, 32, True), Layout("q8", 96, 96, 64, True, (), True)):
        assert versions(path, layouts | {query: bytes_}) == 3
        with open_model(path) as model:
            assert model.tensors[query].layout == bytes_
    orders = {
        "model.layers.1.self_attn.qkv.order": Layout("u8", 1, 4 * 96),
        "model.layers.0.mlp.down.order": Layout("u8", 1, 4 * 160),
    }
    assert versions(path, layouts | orders) == 2
    with open_model(path) as model:
        for name, layout in orders.items():
            assert model.tensors[name].layout == layout
            data = ctypes.string_at(model.address(name), layout.nbytes)
            assert data == content(name, layout)


@pytest.mark.parametrize(
    ("name", "layout", "problem"),
    [
        ("model.layers.0.self_attn.o.order", Layout("u8", 1, 4 * 95), "is u8 1x380, not 384"),
        ("model.layers.0.mlp.down.order", Layout("f32", 1, 160), "is f32 1x160, not 640"),
        ("model.layers.2.mlp.down.order", Layout("u8", 1, 640), "does not belong to the model"),
        ("model.layers.0.mlp.up.order", Layout("u8", 1, 384), "does not belong to the model"),
    ],
)
def test_orders_that_fit_no_matrix(tmp_path: Path, name: str, layout: Layout, problem: str) -> None:
    with pytest.raises(DamagedModelError, match=problem):
        versions(tmp_path / "wrong.qedge", mixed_layouts() | {name: layout})
    assert not list(tmp_path.iterdir())


def test_mistakes_of_the_caller_leave_no_file(tmp_path: Path) -> None:
    layouts = mixed_layouts()
    path = tmp_path / "model.qedge"
    with PackedWriter(path, DESCRIPTION, layouts) as writer:
        writer.write("tokenizer", bytes(12))
        with pytest.raises(ValueError, match="tokenizer takes 13 bytes"):
            writer.write("tokenizer", bytes(2))
        with pytest.raises(ValueError, match="tokenizer has 12 of 13 bytes"):
            writer.finish({})
        with pytest.raises(KeyError):
            writer.write("other", b"")
        for name, layout in layouts.items():
            writer.write(name, bytes(1 if name == "tokenizer" else layout.nbytes))
        with pytest.raises(ValueError, match="too long"):
            writer.finish({"note": "x" * 10_000})
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_make_a_model_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.qedge"
    path.write_bytes(b"old")
    with PackedWriter(path, DESCRIPTION, {"tokenizer": Layout("u8", 1, 1)}) as writer:
        writer.write("tokenizer", b"x")
        with pytest.raises(DamagedModelError, match=r"has no tensor model\.embed_tokens\.weight"):
            writer.finish({})
    assert [file.name for file in tmp_path.iterdir()] == ["model.qedge"]
    assert path.read_bytes() == b"old"
