"""A namespace leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .namespace import UnavailableError, inside, mount
from .root import mounts_below, unmount_below

CHECKOUT = Path(__file__).resolve().parents[2]


def enter(work: Callable[[], int]) -> int:
    """``inside``, or a skip that says what the machine forbids."""
    try:
        return inside(work)
    except UnavailableError as error:
        pytest.skip(str(error))


def test_the_exit_code_comes_out() -> None:
    assert enter(lambda: 7) == 7


def test_a_breakdown_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> int:
        raise ValueError("on purpose")

    assert enter(broken) == 1
    assert "on purpose" in capfd.readouterr().err


def test_one_is_root_and_alone() -> None:
    assert enter(lambda: 0 if (os.getuid(), os.getpid()) == (0, 1) else 1) == 0


def test_mounts_are_seen_inside_only(tmp_path: Path) -> None:
    def mounts() -> int:
        mount("tmpfs", tmp_path, "tmpfs")
        (tmp_path / "inner").mkdir()
        mount("tmpfs", tmp_path / "inner", "tmpfs")
        (tmp_path / "inner" / "file").touch()
        inner = [str(tmp_path / "inner"), str(tmp_path)]
        if mounts_below(tmp_path) != inner:
            return 2
        unmount_below(tmp_path / "inner")
        if mounts_below(tmp_path) != inner[1:]:
            return 3
        return 0

    assert enter(mounts) == 0
    assert not mounts_below(tmp_path)
    assert not list(tmp_path.iterdir())


WAITING = """
import subprocess, sys
from pathlib import Path
from tests.arm.namespace import inside

def work():
    child = subprocess.Popen(["sleep", "600.125"])
    Path(sys.argv[1]).write_text("x")
    return child.wait()

inside(work)
"""


def sleepers() -> list[str]:
    """Processes of this machine that sleep for 600.125 s."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x00600.125\x00":
                found.append(path.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_one_takes_everything_with_it(tmp_path: Path, number: signal.Signals) -> None:
    enter(lambda: 0)
    begun = tmp_path / "begun"
    process = subprocess.Popen([sys.executable, "-c", WAITING, str(begun)], cwd=CHECKOUT)
    deadline = time.monotonic() + 60
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sleepers()
    process.send_signal(number)
    process.wait()
    while sleepers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not sleepers()
