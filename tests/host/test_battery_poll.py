"""The battery, asked in passing: never waited for, given up where it hangs, no child left."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen_edge.host import battery, battery_poll
from qwen_edge.host.battery import Battery
from qwen_edge.host.battery_poll import BatteryPoller
from qwen_edge.host.place import Place
from tests.cli.program import ROOT
from tests.host.test_battery import place, supply
from tests.session.hot_phone import HotPhone


def eventually(holds: Callable[[], object], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HotPhone:
    phone = HotPhone(tmp_path / "phone")
    for name, value in phone.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(battery_poll, "INTERVAL", 0.05)
    monkeypatch.setattr(battery, "TIMEOUT", 1.0)
    return phone


def here(sysfs: Path) -> Place:
    return Place(sysfs=sysfs, environ=os.environ)


def running(number: int) -> bool:
    """Whether a process runs that is no zombie."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_the_first_question_is_not_waited_for(phone: HotPhone, tmp_path: Path) -> None:
    phone.battery(temperature=41.5, percentage=64, plugged="PLUGGED_USB")
    poller = BatteryPoller(here(tmp_path))
    assert poller.latest() is None
    assert eventually(poller.latest)
    dated = poller.latest()
    assert dated is not None
    assert dated.battery == Battery(41.5, 64.0, True, "termux-api")
    assert 0 <= time.monotonic() - dated.taken < 60
    phone.battery(temperature=42.5)
    assert eventually(lambda: (last := poller.latest()) and last.battery.temperature == 42.5)
    poller.close()


def test_it_is_asked_at_most_once_an_interval(
    phone: HotPhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(battery_poll, "INTERVAL", 30.0)
    poller = BatteryPoller(here(tmp_path))
    assert eventually(poller.latest)
    for _ in range(20):
        poller.latest()
        time.sleep(0.01)
    assert phone.asked == 1
    poller.close()


def test_a_helper_that_hangs_is_asked_once(
    phone: HotPhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(battery, "TIMEOUT", 0.3)
    phone.hangs()
    poller = BatteryPoller(here(tmp_path))
    start = time.monotonic()
    assert poller.latest() is None
    assert eventually(lambda: poller.absent)
    assert time.monotonic() - start >= 0.3
    for _ in range(10):
        assert poller.latest() is None
        time.sleep(0.02)
    assert phone.asked == 1
    assert eventually(lambda: not any(map(running, phone.processes)))


def test_what_hangs_is_made_up_for_by_sysfs(phone: HotPhone, tmp_path: Path) -> None:
    supply(tmp_path, "battery", "Battery", "388")
    phone.says("no JSON")
    poller = BatteryPoller(here(tmp_path))
    assert eventually(poller.latest)
    dated = poller.latest()
    assert dated is not None
    assert dated.battery == Battery(38.8, None, None, "sysfs")
    # After some answers of no use it is not asked any more.
    assert eventually(lambda: poller.latest() and phone.asked >= 3)
    for _ in range(10):
        poller.latest()
        time.sleep(0.02)
    assert phone.asked == 3
    poller.close()


def test_an_old_reading_is_none(
    phone: HotPhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = BatteryPoller(here(tmp_path))
    assert eventually(poller.latest)
    monkeypatch.setattr(battery_poll, "INTERVAL", 60.0)
    monkeypatch.setattr(battery_poll, "STALE", 0.05)
    assert eventually(lambda: poller.latest() is None)
    poller.close()


def test_closing_ends_a_question_under_way(phone: HotPhone, tmp_path: Path) -> None:
    phone.hangs()
    poller = BatteryPoller(here(tmp_path))
    poller.latest()
    assert eventually(lambda: phone.processes)
    assert running(phone.processes[0])
    poller.close()
    assert eventually(lambda: not running(phone.processes[0]))
    assert poller.absent
    assert poller.latest() is None


def test_a_machine_without_battery_starts_nothing(tmp_path: Path) -> None:
    code = """
        import threading, sys
        from pathlib import Path
        from qwen_edge.host.battery_poll import BatteryPoller
        from qwen_edge.host.place import Place
        poller = BatteryPoller(Place(sysfs=Path(sys.argv[1]), environ={}, platform="linux"))
        assert poller.absent and poller.latest() is None
        poller.close()
        print(threading.active_count())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"


def test_a_program_that_ends_leaves_no_child(phone: HotPhone, tmp_path: Path) -> None:
    phone.hangs()
    code = """
        import os, signal, sys, time
        from qwen_edge.host.battery_poll import BatteryPoller
        poller = BatteryPoller()
        poller.latest()
        while not os.path.exists(sys.argv[1]):
            time.sleep(0.01)
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        poller.close()
    """
    asked = tmp_path / "phone" / "asked"
    for how in ("closed", "killed"):
        asked.unlink(missing_ok=True)
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(asked), how],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert eventually(lambda: phone.processes)
        # The command is limited by one of its own where this program cannot end it any more.
        assert eventually(lambda: not running(phone.processes[0]), 15)


def test_under_a_memory_cap_the_child_is_free_of_it(phone: HotPhone, tmp_path: Path) -> None:
    from qwen_edge.host.limits import address_space_cap

    poller = BatteryPoller(here(tmp_path))
    with address_space_cap(64 << 20):
        poller.latest()
        assert eventually(poller.latest)
    poller.close()


@pytest.mark.parametrize(
    "said",
    [
        '{"temperature": 1e400, "percentage": true}',
        '{"temperature": NaN, "percentage": "full"}',
        '{"temperature": [35], "percentage": -4, "plugged": 7}',
        '{"temperature": 99999999999999999999999999999999999999999, "percentage": 101}',
        "[" * 100000,
        "[]",
        "",
        '{"percentage": 0, "plugged": "UNPLUGGED"}',
        "x" * 1000000,
    ],
)
def test_strange_answers_are_none(phone: HotPhone, tmp_path: Path, said: str) -> None:
    phone.says(said)
    assert battery.battery_status(here(tmp_path)) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('{"temperature": 35, "percentage": -4}', Battery(35.0, None, None, "termux-api")),
        (
            '{"temperature": null, "percentage": 100, "plugged": "PLUGGED_DOCK"}',
            Battery(None, 100.0, True, "termux-api"),
        ),
        (
            '{"percentage": 7, "plugged": "UNPLUGGED"}',
            Battery(None, 7.0, False, "termux-api"),
        ),
        ('{"percentage": 7, "plugged": "?"}', Battery(None, 7.0, None, "termux-api")),
    ],
)
def test_parts_of_an_answer(phone: HotPhone, tmp_path: Path, said: str, expected: Battery) -> None:
    phone.says(said)
    assert battery.battery_status(here(tmp_path)) == expected


def test_a_battery_in_sysfs(tmp_path: Path) -> None:
    supply(tmp_path, "AC", "Mains", None)
    supply(tmp_path, "a_mouse", "Battery", None)
    folder = tmp_path / "class" / "power_supply"
    (folder / "a_mouse" / "scope").write_text("Device\n")
    (folder / "a_mouse" / "capacity").write_text("3\n")
    (folder / "a_mouse" / "status").write_text("Discharging\n")
    assert battery.battery_status(place(tmp_path)) is None
    supply(tmp_path, "battery", "Battery", "305")
    (folder / "battery" / "capacity").write_text("56\n")
    for status, plugged in [
        ("Charging", True),
        ("Full", True),
        ("Not charging", True),
        ("Discharging", False),
        ("Unknown", None),
    ]:
        (folder / "battery" / "status").write_text(f"{status}\n")
        assert battery.battery_status(place(tmp_path)) == Battery(30.5, 56.0, plugged, "sysfs")
