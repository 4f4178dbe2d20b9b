"""The package builds with one compiler, and its wheel is tagged for the platform alone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import qwen_edge
from qwen_edge.native.library import ABI_VERSION

ROOT = Path(__file__).resolve().parents[1]


def build(kind: str, output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # Hatchling runs the same hooks here as under pip; no build environment has to be downloaded.
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(output)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("dist")
    result = build("wheel", output)
    assert result.returncode == 0, result.stderr
    (path,) = output.glob("*.whl")
    return path


def test_wheel_is_tagged_for_the_platform_alone(wheel: Path) -> None:
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name == f"qwen_edge-{qwen_edge.__version__}-py3-none-{platform}.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert "qwen_edge/native/libqwen_edge.so" in names
    assert "qwen_edge/demo/demo.qedge" in names
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "termux/"))]


def test_wheel_runs_from_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, system_site_packages=False)
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    code = "import qwen_edge.native.library as n; print(n.load().qe_abi_version())"
    result = subprocess.run(
        [tmp_path / "venv/bin/python", "-I", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert result.stdout.strip() == str(ABI_VERSION)


def test_sdist_holds_the_sources_and_builds(tmp_path: Path) -> None:
    result = build("sdist", tmp_path)
    assert result.returncode == 0, result.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
        tar.extractall(tmp_path / "source", filter="data")
    assert {"pyproject.toml", "LICENSE", "qwen_edge/native/c_api.cpp"} <= names
    assert "qwen_edge/native/libqwen_edge.so" not in names
    (source,) = (tmp_path / "source").iterdir()
    library = source / "qwen_edge/native/libqwen_edge.so"
    subprocess.run([sys.executable, source / "qwen_edge/native/build.py"], check=True, timeout=600)
    assert library.is_file()


def test_without_a_compiler_the_build_says_what_to_install(tmp_path: Path) -> None:
    result = build("wheel", tmp_path, PATH=str(tmp_path), CXX="")
    assert result.returncode != 0
    assert "pkg install clang" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_a_refusing_compiler_leaves_the_old_library(tmp_path: Path) -> None:
    from qwen_edge.native.build import CompilerError
    from qwen_edge.native.build import build as compile_library

    library = tmp_path / "libqwen_edge.so"
    library.write_bytes(b"old")
    with pytest.raises(CompilerError, match="exit code"):
        compile_library(library, compiler=["false"])
    with pytest.raises(CompilerError, match="could not be started"):
        compile_library(library, compiler=[str(tmp_path / "absent")])
    assert library.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [library]
