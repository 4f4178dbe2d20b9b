"""The program starts itself, whatever lies in the working folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import qwen_edge
from qwen_edge.host.own_process import own_command, own_environment


def test_a_package_of_the_same_name_in_the_working_folder_is_not_taken(tmp_path: Path) -> None:
    decoy = tmp_path / "qwen_edge"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("raise SystemExit(99)")
    (decoy / "__main__.py").write_text("")
    done = subprocess.run(
        own_command("qwen_edge", "--version"), env=own_environment(), cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert qwen_edge.__version__ in done.stdout
