"""A machine without torch, and doctor's part in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_edge.cli.doctor_table import as_table
from qwen_edge.host.place import Place
from qwen_edge.session import torch_facts
from qwen_edge.session.diagnosis import diagnose
from tests.cli.program import ROOT, environment, run

TERMUX = {"TERMUX_VERSION": "0.118.3", "PREFIX": "/data/data/com.termux/files/usr"}
PROOT = TERMUX | {"PROOT_TMP_DIR": "/tmp"}
_HIDING = """
import importlib.machinery
import importlib.metadata
_HIDDEN = {"torch", "transformers", "accelerate", "bitsandbytes"}
_find, _version = importlib.machinery.PathFinder.find_spec, importlib.metadata.version
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in _HIDDEN else _find(name, path, target)
def version(name):
    if name in _HIDDEN:
        raise importlib.metadata.PackageNotFoundError(name)
    return _version(name)
importlib.machinery.PathFinder.find_spec = find_spec
importlib.metadata.version = version
"""


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which neither torch nor what builds upon it is installed."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(_HIDING)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ({}, 'hint: Install it with `pip install "qwen-edge[torch]"`.'),
        (
            TERMUX,
            "hint: Install it with `pkg install python-torch`, version 2.11 or later: "
            "2.10 loses memory.",
        ),
        (PROOT, 'hint: Install it with `pip install "qwen-edge[torch]"`.'),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "-m", "demo", "--engine", "torch", "Hello!"),
        ("chat", "-m", "demo", "--engine", "torch"),
        ("bench", "-m", "demo", "--engine", "torch"),
        ("run", "-m", "demo", "--engine", "transformers", "Hello!"),
        ("convert", "demo", "--aot"),
    ],
)
def test_how_to_get_torch(
    home: Path,
    hidden: dict[str, str],
    arguments: tuple[str, ...],
    place: dict[str, str],
    hint: str,
) -> None:
    done = run(home, *arguments, changes=hidden | place)
    assert (done.returncode, done.stdout) == (1, "")
    error, said = done.stderr.splitlines()
    engine = "transformers" if "transformers" in arguments else "torch"
    assert error == (f"error: The engine {engine} needs the package torch, which is not installed.")
    assert said == hint


def test_transformers_does_not_exist_for_android(home: Path, hidden: dict[str, str]) -> None:
    # torch is there, transformers is not.
    folder = Path(hidden["PYTHONPATH"].partition(os.pathsep)[0])
    other = folder / "with_torch"
    other.mkdir(exist_ok=True)
    (other / "sitecustomize.py").write_text(_HIDING.replace('"torch", ', ""))
    pytest.importorskip("torch")
    changes = {"PYTHONPATH": os.pathsep.join([str(other), str(ROOT)])} | TERMUX
    done = run(home, "run", "-m", "demo", "--engine", "transformers", "Hi", changes=changes)
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert "needs the package transformers" in error
    assert "under proot" in hint


def test_doctor_without_torch(home: Path, hidden: dict[str, str]) -> None:
    for arguments in (("doctor",), ("doctor", "--torch")):
        told = run(home, *arguments, changes=hidden)
        assert (told.returncode, told.stderr) == (0, "")
        assert "not installed (not needed)" in told.stdout
    table = json.loads(run(home, "doctor", "--json", changes=hidden).stdout)["torch"]
    assert (table["version"], table["built"], table["leaks"]) == (None, False, False)
    # What was compiled before torch was removed can go.
    compiled = home / "torch" / "operators" / "operators-1.so"
    compiled.parent.mkdir(parents=True)
    compiled.write_bytes(bytes(2048))
    assert "2.0 KiB" in run(home, "doctor", changes=hidden).stdout
    done = run(home, "doctor", "--clear-cache", changes=hidden)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"Compiled for torch: 2.0 KiB in {home / 'torch'}.\nIt is deleted.\n"
    assert not (home / "torch").exists()
    nothing = run(home, "doctor", "--clear-cache", changes=hidden)
    assert nothing.stderr == f"Compiled for torch: 0 B in {home / 'torch'}.\n"
    refused = run(home, "doctor", "--clear-cache", "--json")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_doctor_looks_at_torch_without_importing_it(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    script = (
        "import sys; from qwen_edge.cli.app import run_program\n"
        "run_program(['doctor'])\n"
        "print('torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        check=True,
    )
    assert done.stderr == "False\n"
    assert "built on first use with" in done.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("version", "warned"),
    [("2.10.0", True), ("2.9.1+cpu", True), ("2.11.0", False), ("3.0", False)],
)
def test_leaking_torch_is_warned_of_on_android(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, warned: bool
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(torch_facts.importlib.metadata, "version", lambda name: version)
    environ = {"QWEN_EDGE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    phone = Place(environ=environ | TERMUX, platform="android", properties=dict)
    for place, expected in ((phone, warned), (Place(environ=environ), False)):
        table = as_table(diagnose({}, environ, place))
        said = f"torch {version} loses memory on Android."
        assert (said in [item["sentence"] for item in table["findings"]]) == expected
