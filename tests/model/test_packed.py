"""Reading .qedge files: what a sound one says, and what every kind of damage is called."""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from qwen_edge.errors import DamagedModelError, ModelNotFoundError
from qwen_edge.model.config import tensor_shapes
from qwen_edge.model.packed import open_model
from tests.model.files import BLOB, TINY, read_header, with_header

Q = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.norm.weight"
Change = Callable[[Any, Any], object]


def test_what_a_model_says(model_file: Path) -> None:
    with open_model(model_file) as model:
        assert model.path == model_file
        assert model.size == model_file.stat().st_size
        assert model.config == TINY
        assert (model.name, model.source) == ("tiny", "tiny")
        assert model.generation.stop_ids == (2,)
        assert (model.generation.temperature, model.generation.top_k) == (0.6, 20)
        assert "<|im_start|>" in model.chat_template
        assert model.quantization["bits"] == 4
        assert 0.05 < model.quantization["error"]["relative"] < 0.1  # type: ignore[index]
        assert set(model.tensors) == {*tensor_shapes(TINY), "tokenizer"}
        query = model.tensors[Q]
        assert (query.type, query.rows, query.cols, query.group) == ("q4", 96, 96, 32)
        assert query.codebook == tuple(range(-8, 8))
        assert query.nbytes == query.layout.nbytes == 6 * 3 * 288
        norm = model.tensors[NORM]
        assert (norm.type, norm.rows, norm.cols, norm.nbytes) == ("f32", 1, 96, 384)
        blob = model.tensors["tokenizer"]
        assert (blob.type, blob.nbytes) == ("u8", len(BLOB))
        assert ctypes.string_at(model.address("tokenizer"), blob.nbytes) == BLOB
        model.prefetch()
        for info in model.tensors.values():
            assert info.offset % 64 == 0
            assert model.address(info.name) % 64 == 0
            assert info.offset + info.nbytes <= model.size


def test_a_closed_model_has_no_addresses(model_file: Path) -> None:
    model = open_model(model_file)
    model.close()
    model.close()
    with pytest.raises(ValueError, match="not mapped"):
        model.address(NORM)
    with pytest.raises(ValueError, match="not mapped"):
        model.prefetch()


def test_the_safetensors_library_reads_the_same_bytes(model_file: Path) -> None:
    with open_model(model_file) as model, safe_open(model_file, "np") as library:
        assert library.metadata()["format"] == "qedge"
        named = {name for name in library.keys() if not name.startswith("padding.")}  # noqa: SIM118
        assert named == set(model.tensors)
        assert any(name.startswith("padding.") for name in library.keys())  # noqa: SIM118
        for info in model.tensors.values():
            array = library.get_tensor(info.name)
            ours = ctypes.string_at(model.address(info.name), info.nbytes)
            assert array.tobytes() == ours
            if info.layout.packed:
                layout = info.layout
                assert array.shape == (layout.tiles, layout.groups, layout.block_bytes)
                assert array.dtype == np.uint8


def test_opening_is_quick(model_file: Path) -> None:
    open_model(model_file).close()
    begin = time.process_time()
    for _ in range(10):
        open_model(model_file).close()
    # 25 tensors; 311 take 13 times as long.
    assert (time.process_time() - begin) / 10 < 0.004


def refused(path: Path) -> str:
    """Opens it, expects a DamagedModelError, and returns its sentence."""
    with pytest.raises(DamagedModelError) as caught:
        open_model(path)
    error = caught.value
    assert error.exit_code == 5
    sentence = str(error)
    assert sentence.isprintable()
    assert sentence.endswith(".")
    assert len(sentence) < 500
    assert error.hint
    return sentence


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.qedge", tmp_path / "no" / "folder", tmp_path / "nul\0byte"):
        with pytest.raises(ModelNotFoundError, match="There is no model file"):
            open_model(path)


def test_a_folder_a_pipe_and_an_empty_file(tmp_path: Path) -> None:
    assert "is a folder, not a .qedge model file" in refused(tmp_path)
    empty = tmp_path / "empty"
    empty.touch()
    assert "is truncated: it is empty" in refused(empty)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ModelNotFoundError, match="cannot be read: Invalid argument"):
        open_model(pipe)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ModelNotFoundError, match="cannot be read: Too many levels"):
        open_model(loop)


def test_an_unreadable_file(model_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "secret.qedge"
    copy.write_bytes(model_file.read_bytes())
    copy.chmod(0)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from qwen_edge.errors import ModelNotFoundError\n"
        "from qwen_edge.model.packed import open_model\n"
        "from qwen_edge.native.library import load\n"
        "load()\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: open_model(Path(sys.argv[1]))\n"
        "except ModelNotFoundError as error: print(error)\n"
    )
    for folder in copy.parents:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    run = subprocess.run([sys.executable, "-c", script, copy], capture_output=True, text=True)
    assert run.stdout == f"The model file {copy} cannot be read: Permission denied.\n", run.stderr


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        (b"GGUF\x03\0\0\0", "is not a .qedge model file: it is a GGUF file"),
        (b"PK\x03\x04", "it is a zip archive or a PyTorch checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"<!DOCTYPE html>", "it is a web page"),
        (b"\x7fELF", "it does not begin with a safetensors header"),
        (b"\0" * 8, "it does not begin with a safetensors header"),
    ],
)
def test_other_kinds_of_files(tmp_path: Path, start: bytes, sentence: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(start + b"\0" * 100)
    assert sentence in refused(path)


def test_a_plain_safetensors_file(checkpoint: Path) -> None:
    sentence = refused(checkpoint / "model.safetensors")
    assert "is not a .qedge model file: it is a safetensors file of another kind" in sentence


def test_truncation_anywhere(model_file: Path, tmp_path: Path) -> None:
    whole = model_file.read_bytes()
    points = random.Random(0).sample(range(len(whole)), 50)
    points += [0, 1, 7, 8, 9, 10, 63, 64, len(whole) - 1]
    path = tmp_path / "part.qedge"
    for point in points:
        path.write_bytes(whole[:point])
        assert f"The model file {path} is truncated: " in refused(path), point


def test_bytes_after_the_end(model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.qedge"
    path.write_bytes(model_file.read_bytes() + b"xyz")
    assert "is damaged: it has 3 bytes after its last tensor" in refused(path)


@pytest.mark.parametrize(
    ("length", "sentence"),
    [
        (2**64 - 1, "is the limit"),
        (2**63, "is the limit"),
        (17 << 20, "is the limit"),
        (16 << 20, "is truncated"),
        (100, "not valid JSON"),
        (1, "not valid JSON"),
        (0, "not valid JSON"),
    ],
)
def test_a_header_length_that_lies(
    model_file: Path, tmp_path: Path, length: int, sentence: str
) -> None:
    path = tmp_path / "lies.qedge"
    path.write_bytes(length.to_bytes(8, "little") + model_file.read_bytes()[8:])
    assert sentence in refused(path)


@pytest.mark.parametrize(
    "text",
    [
        b"{" * 50_000,
        b'{"a":' * 50_000,
        b'{"a":[' + b"[" * 50_000,
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": "\xff"}',
        b'{"a": 1, "a": 2}',
        b'{"__metadata__": []}',
        b'{"__metadata__": {"format": 1}}',
        b'{"\\ud800\\u001b[2J": 1}',
        b'{"a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1], "x": 1}}',
        b'{"a": {"dtype": "U8", "shape": [true], "data_offsets": [0, 1]}}',
        b'{"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "U8", "shape": [1.0], "data_offsets": [0, 1]}}',
        b'{"a": {"dtype": "U7", "shape": [1], "data_offsets": [0, 1]}}',
        b'{"a": {"dtype": [], "shape": [1], "data_offsets": [0, 1]}}',
        b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 0]}}',
        b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}',
        b'{"a": {"dtype": "F64", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}',
    ],
)
def test_hostile_headers(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "hostile.qedge"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(1000))
    refused(path)


def _set(*keys: str, value: Any) -> Change:
    def change(header: Any, table: Any) -> None:
        place = table
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def _drop(*keys: str) -> Change:
    def change(header: Any, table: Any) -> None:
        place = table
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


def _header(name: str, key: str, value: Any) -> Change:
    return lambda header, table: header[name].__setitem__(key, value)


def _rename(header: Any, table: Any) -> None:
    header["other"] = header.pop(Q)
    table["tensors"]["other"] = table["tensors"].pop(Q)


def _swap(header: Any, table: Any) -> None:
    # Two matrices of one shape over the same bytes.
    keys = [f"model.layers.0.self_attn.{part}_proj.weight" for part in "kv"]
    header[keys[0]]["data_offsets"] = header[keys[1]]["data_offsets"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_set("format_version", value=4), "has format version 4, this program reads up to 3"),
        (_set("format_version", value="1"), "format_version is '1', not a number"),
        (_set("format_version", value=0), "format_version is 0"),
        (_set("architecture", value="llama"), "holds the architecture 'llama'"),
        (_set("architecture", value=["\x1b"]), "holds the architecture"),
        (_drop("config"), "lacks the table config"),
        (_set("generation", value=[]), "lacks the table generation"),
        (_drop("config", "layers"), "layers is None, not a number from 1 to 1024"),
        (_set("config", "layers", value=3), "has no tensor model.layers.2.input_layernorm"),
        (_set("config", "layers", value=1), "'model.layers.1.input_layernorm.weight' does not be"),
        (_set("config", "layers", value=True), "layers is True"),
        (_set("config", "layers", value=10**30), "layers is 1000"),
        (_set("config", "hidden_size", value=128), "is q4 261x96, not 261x128"),
        (_set("config", "heads", value=2), "q_proj.weight is q4 96x96, not 64x96"),
        (_set("config", "heads", value=4096), "do not go together"),
        (_set("config", "kv_heads", value=2), "3 heads and 2 key heads of 32 do not go together"),
        (_set("config", "head_dim", value=48), "head_dim is 48, not a multiple of 32"),
        (_set("config", "vocab_size", value=262), "is q4 261x96, not 262x96"),
        (_set("config", "rms_norm_eps", value=-1.0), "rms_norm_eps is -1.0"),
        (_set("config", "rope_theta", value="1e6"), "rope_theta is '1e6'"),
        (_set("config", "tied", value=0), "tied is 0, not true or false"),
        (_set("config", "tied", value=False), "has no tensor lm_head.weight"),
        (_set("generation", "stop_ids", value=[261]), "stop_ids is not a list of token ids"),
        (_set("generation", "stop_ids", value=2), "stop_ids is not a list of token ids"),
        (_set("generation", "temperature", value=-1), "temperature is -1"),
        (_set("chat_template", value=None), "chat_template is not a text"),
        (_set("chat_template", value="\ud800"), "chat_template is not valid Unicode"),
        (_set("name", value="\x1b[2Jboo"), "name has unprintable characters"),
        (_set("source", value="x" * 2000), "source is not a text of at most 1000"),
        (_set("quantization", "method", value="\x1b[2J"), "quantization has unprintable"),
        (_set("quantization", "x", value=[{"\x07": 1}]), "quantization has unprintable"),
        (_set("tensors", value={}), "is not described"),
        (_drop("tensors", Q), "is not described"),
        (_set("tensors", "ghost", value={}), "describes a tensor 'ghost' that it does not have"),
        (_set("tensors", Q, value=7), "is not described by a table"),
        (_set("tensors", Q, "type", value="q5"), "type 'q5' is unknown"),
        (_set("tensors", Q, "type", value={}), "malformed type"),
        (_set("tensors", Q, "type", value="u8"), "neither groups nor a codebook"),
        (_set("tensors", Q, "type", value="q8"), "its type q8 has no codebook"),
        (_set("tensors", Q, "group", value=64), "is not stored as it is described"),
        (_set("tensors", Q, "group", value=0), "group size 0 is not 32, 64 or 128"),
        (_set("tensors", Q, "group", value="32"), "group is '32'"),
        (_set("tensors", Q, "min", value=True), "is not stored as it is described"),
        (_set("tensors", Q, "min", value=1), "malformed type, min"),
        (_set("tensors", Q, "zero", value=1), "malformed type, min, zero, levels"),
        (_set("tensors", Q, "zero", value=True), "zero points lack the minimums' place"),
        (_set("tensors", Q, "codebook", value=[0] * 15), "codebook is not 16 signed bytes"),
        (_set("tensors", Q, "codebook", value=[200] * 16), "codebook is not 16 signed bytes"),
        (_set("tensors", Q, "levels", value=["1"] * 16), "malformed type, min, zero, levels"),
        (_set("tensors", Q, "levels", value=[0.5] * 16), "its unit 0 is not from 1 to 127"),
        (_set("tensors", Q, "unit", value=5), "its levels do not go with its type"),
        (
            _set("tensors", Q, "codebook", value=[0.5] * 16),
            "malformed type, min, zero, levels or codebook",
        ),
        (_set("tensors", Q, "rows", value=95), "is q4 95x96, not 96x96"),
        (_set("tensors", Q, "rows", value=2**40), "rows is"),
        (_set("tensors", NORM, "type", value="bf16"), "is not stored as it is described"),
        (_set("tensors", NORM, "cols", value=48), "is not stored as it is described"),
        (_set("tensors", "tokenizer", "type", value="f32"), "is not stored as it is described"),
        (_rename, "does not belong to the model"),
        (_swap, "leaves a hole before it"),
        (_header(Q, "data_offsets", [0, 5184]), "overlaps another tensor"),
        (_header(Q, "data_offsets", [0, 2**70]), "does not fit its offsets"),
        (_header(Q, "shape", [3, 6, 288]), "is not stored as it is described"),
        (_header(Q, "dtype", "I8"), "is not stored as it is described"),
        (lambda header, table: header.pop("__metadata__"), "of another kind"),
        (lambda header, table: header["__metadata__"].update(format="pt"), "of another kind"),
        (lambda header, table: header["__metadata__"].pop("qedge"), "of another kind"),
        (lambda header, table: header.pop(Q), "leaves a hole before it"),
    ],
)
def test_headers_that_contradict_themselves(
    model_file: Path, tmp_path: Path, change: Change, sentence: str
) -> None:
    assert sentence in refused(with_header(model_file, tmp_path / "changed.qedge", change))


@pytest.mark.parametrize("text", ["[]", "{", '{"format_version": 1, "format_version": 1}', "NaN"])
def test_metadata_that_is_not_a_table(model_file: Path, tmp_path: Path, text: str) -> None:
    header, data = read_header(model_file)
    header["__metadata__"]["qedge"] = text
    raw = json.dumps(header).encode()
    path = tmp_path / "changed.qedge"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    assert "its metadata" in refused(path)


def test_tensors_out_of_alignment(model_file: Path, tmp_path: Path) -> None:
    header, data = read_header(model_file)
    text = json.dumps(header).encode()
    text = text.ljust(-(-(len(text) + 8) // 64) * 64 - 8 + 4)
    path = tmp_path / "shifted.qedge"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    assert "does not begin at a multiple of 64" in refused(path)


def test_fields_to_come_are_ignored(model_file: Path, tmp_path: Path) -> None:
    path = with_header(model_file, tmp_path / "newer.qedge", _set("licence", value="Apache-2.0"))
    open_model(path).close()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flipped_bytes_never_surprise(
    model_file: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(model_file.read_bytes())
    length = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.qedge"
    path.write_bytes(content)
    sentence = ""
    try:
        open_model(path).close()
    except DamagedModelError as error:
        sentence = str(error)
    assert sentence.isprintable()
