from __future__ import annotations

from pathlib import Path

import pytest

from qwen_edge.errors import ModelNotFoundError, UsageError
from qwen_edge.session import models
from qwen_edge.session.models import find_in_store, remove, resolve, store_files


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"QWEN_EDGE_HOME": str(tmp_path), "HOME": str(tmp_path)}


def store(environ: dict[str, str], *names: str) -> Path:
    folder = Path(environ["QWEN_EDGE_HOME"]) / "models"
    folder.mkdir(exist_ok=True)
    for size, name in enumerate(names, 1):
        (folder / name).write_bytes(b"x" * size)
    return folder


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "package" / "demo.qedge"
    path.parent.mkdir()
    path.write_bytes(b"x")
    monkeypatch.setattr(models, "demo_path", lambda: path)
    return path


def test_nothing_anywhere_is_the_demo_with_a_note(environ: dict[str, str], demo: Path) -> None:
    found = resolve(None, environ)
    assert found == (demo, "demo", True)
    assert found.name == "demo"
    assert resolve("demo", environ) == (demo, "demo", False)
    assert resolve(None, environ, configured="demo") == (demo, "demo", False)


def test_a_downloaded_small_qwen_comes_before_others(environ: dict[str, str], demo: Path) -> None:
    folder = store(environ, "Aya.qedge", "Qwen3-1.7B-int4.qedge", "Qwen3-0.6B-int4.qedge", "x.txt")
    assert resolve(None, environ) == (folder / "Qwen3-0.6B-int4.qedge", "default", False)
    (folder / "Qwen3-0.6B-int4.qedge").unlink()
    assert resolve(None, environ).path == folder / "Aya.qedge"


@pytest.mark.parametrize(
    "name",
    [
        "Qwen3-0.6B-int4",
        "Qwen3-0.6B-int4.qedge",
        "qwen3-0.6b-INT4",
        "0.6b",
        "Qwen/Qwen3-0.6B",
        "qwen3_0.6b",
    ],
)
def test_names_are_found_leniently(environ: dict[str, str], name: str) -> None:
    folder = store(environ, "Qwen3-0.6B-int4.qedge", "Qwen3-1.7B-int4.qedge")
    assert find_in_store(name, environ) == folder / "Qwen3-0.6B-int4.qedge"


def test_random_weights_are_no_default(environ: dict[str, str]) -> None:
    folder = store(environ, "qwen3-0.6b-synthetic.qedge")
    assert resolve(None, environ).kind == "demo"
    assert resolve("qwen3-0.6b-synthetic", environ).path == folder / "qwen3-0.6b-synthetic.qedge"


def test_configured_and_given(environ: dict[str, str]) -> None:
    folder = store(environ, "a.qedge", "b.qedge")
    assert resolve(None, environ, configured="b") == (folder / "b.qedge", "store", False)
    assert resolve("a", environ, configured="b") == (folder / "a.qedge", "store", False)
    assert resolve(str(folder / "a.qedge"), environ) == (folder / "a.qedge", "path", False)


def test_exact_name_wins_over_parts(environ: dict[str, str]) -> None:
    folder = store(environ, "m.qedge", "m-chat.qedge")
    assert find_in_store("m", environ) == folder / "m.qedge"
    assert find_in_store("M", environ) == folder / "m.qedge"


def test_ambiguous_part_is_refused(environ: dict[str, str]) -> None:
    store(environ, "Qwen3-0.6B-int4.qedge", "Qwen3-0.6B-int8.qedge")
    with pytest.raises(UsageError, match=r"int4.*int8"):
        resolve("qwen3", environ)


def test_wrong_name_has_near_ones(environ: dict[str, str]) -> None:
    store(environ, "Qwen3-0.6B-int4.qedge", "other{x}.qedge")
    with pytest.raises(ModelNotFoundError) as caught:
        resolve("Qwen3-0.8B-int4", environ)
    assert caught.value.exit_code == 3
    assert "Qwen3-0.6B-int4" in caught.value.hint.format(**caught.value.values)
    with pytest.raises(ModelNotFoundError) as far:
        resolve("zzzzzz", environ)
    assert "other{x}, Qwen3-0.6B-int4, demo" in far.value.hint.format(**far.value.values)


@pytest.mark.parametrize("name", ["./none.qedge", "/none/x.qedge", "x.qedge", "~/none", "", "   "])
def test_missing_paths(environ: dict[str, str], name: str, demo: Path) -> None:
    if not name:
        assert resolve(name, environ).kind == "demo"
        return
    with pytest.raises(ModelNotFoundError):
        resolve(name, environ)


def test_folder_says_to_convert(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="is a folder") as caught:
        resolve(f"{tmp_path}/", environ)
    assert "convert" in caught.value.hint


def test_no_demo_and_nothing_else(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "demo_path", lambda: Path("/nonexistent"))
    with pytest.raises(ModelNotFoundError, match="no model on this device") as caught:
        resolve(None, environ)
    assert "qwen-edge pull" in caught.value.hint


def test_remove_deletes_only_whole_names_of_the_store(environ: dict[str, str]) -> None:
    folder = store(environ, "Qwen3-0.6B-int4.qedge", "b.qedge")
    outside = folder.parent / "c.qedge"
    outside.write_bytes(b"x")
    for name in ("0.6b", "../c", "../c.qedge", str(outside), "", "."):
        with pytest.raises(ModelNotFoundError):
            remove(name, environ)
    with pytest.raises(UsageError):
        remove("demo", environ)
    assert remove("b", environ) == folder / "b.qedge"
    assert [path.name for path in store_files(environ)] == ["Qwen3-0.6B-int4.qedge"]
    assert outside.exists()


def test_store_that_is_absent_or_odd(environ: dict[str, str]) -> None:
    assert store_files(environ) == []
    folder = store(environ)
    (folder / "dir.qedge").mkdir()
    (folder / "dangling.qedge").symlink_to("/nonexistent")
    assert store_files(environ) == []
