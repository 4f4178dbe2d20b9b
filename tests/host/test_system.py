from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from qwen_edge.host.android_properties import parse_properties, read_properties
from qwen_edge.host.place import Place
from qwen_edge.host.system import is_proot, is_termux, packages_left_behind, read_system
from tests.host.recorded import recorded


def command(folder: Path, script: str) -> None:
    file = folder / "getprop"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_properties_are_parsed() -> None:
    text = "[ro.product.model]: [Redmi [Note] 9]\n[empty]: []\nnoise\n[a.b]: [x\ny]\n"
    assert parse_properties(text) == {"ro.product.model": "Redmi [Note] 9", "empty": ""}


def test_getprop_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(tmp_path, "echo x >> $0.calls; echo '[ro.product.model]: [P]'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    place = Place(environ={"ANDROID_ROOT": "/system"})
    assert read_system(place).device == "P"
    assert (tmp_path / "getprop.calls").read_text() == "x\n"


def test_getprop_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(tmp_path, "exec sleep 30")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    start = time.monotonic()
    assert read_properties(timeout=0.2) == {}
    assert time.monotonic() - start < 5


def test_getprop_that_is_absent_or_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_properties() == {}
    file = tmp_path / "getprop"
    file.write_bytes(b"\x7fELF broken")
    file.chmod(0o755)
    assert read_properties() == {}


def test_a_pc_does_not_start_getprop() -> None:
    def must_not_run() -> dict[str, str]:
        raise AssertionError

    system = read_system(Place(environ={}, platform="linux", properties=must_not_run))
    assert not system.android
    assert not system.termux


def test_termux_and_proot_are_told_apart() -> None:
    termux, proot = recorded("redmi_note_9").place, recorded("redmi_note_9_proot").place
    assert is_termux(termux)
    assert not is_proot(termux)
    assert is_proot(proot)
    assert is_proot(Place(environ={"PROOT_L2S_DIR": "/x"}))
    # A debugger on a PC traces too.
    pc = Place(proc=proot.proc / "nowhere", environ={}, platform="linux")
    assert not is_proot(pc)


def test_packages_of_an_older_python_are_found(tmp_path: Path) -> None:
    old, new = tmp_path / "lib/python3.12/site-packages", tmp_path / "lib/python3.14/site-packages"
    (old / "jinja2").mkdir(parents=True)
    (old / "typer").mkdir()
    (old / "six.py").write_text("")
    (new / "typer").mkdir(parents=True)
    names = ("jinja2", "typer", "six", "psutil")
    assert packages_left_behind(names, tmp_path, "3.14") == {"3.12": ("jinja2", "six")}
    assert packages_left_behind(names, tmp_path, "3.12") == {}
    assert packages_left_behind(names, tmp_path / "none", "3.14") == {}
    assert sys.version_info[:2] >= (3, 11)
