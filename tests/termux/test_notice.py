"""The notification of a long download: ended with the work, and silent where it cannot be."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_edge.session.models import demo_path
from tests.host.hub_server import Fault, HubServer, hub_server
from tests.termux.background import Program
from tests.termux.commands import Commands

SHOW, REMOVE = "termux-notification", "termux-notification-remove"
FILE = "demo.qedge"
AT_ONCE = "from qwen_edge.host.notice import Notice\nNotice.__init__.__defaults__ = (0.0, 0.0)"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        server.files = {FILE: demo_path().read_bytes()}
        yield server


@pytest.fixture
def phone(tmp_path: Path, hub: HubServer) -> Iterator[Commands]:
    commands = Commands(tmp_path / "phone", (SHOW, REMOVE))
    commands.environment["HF_ENDPOINT"] = hub.url
    yield commands
    commands.go()
    commands.wait_for_silence()


def pull(home: Path, phone: Commands, before: str = AT_ONCE) -> Program:
    return Program(home, phone, "pull", f"Owner/Tiny:{FILE}", before=before)


def words(phone: Commands) -> list[tuple[str, ...]]:
    return [call.words for call in phone.calls(SHOW)]


def test_the_end_of_a_download_is_shown(home: Path, phone: Commands) -> None:
    code, out, err = pull(home, phone).end()
    assert code == 0, err
    assert out.endswith(f"{FILE}\n")
    phone.wait_until(lambda: any("Done." in call for call in words(phone)))
    last = words(phone)[-1]
    assert last[2:] == ("--title", "qwen-edge pull Tiny", "--content", "Done.")
    # One notification that changes.
    assert {call[:2] for call in words(phone)} == {last[:2]}


def test_progress_is_pinned_and_taken_away_when_broken_off(
    home: Path, phone: Commands, hub: HubServer
) -> None:
    hub.always[FILE] = Fault(stall=1_000_000)
    program = pull(home, phone)
    phone.wait_for(f"end {SHOW}")
    assert "--ongoing" in words(phone)[0]
    assert "/2.9 MiB" in words(phone)[0][5]
    program.process.send_signal(signal.SIGINT)
    assert program.end()[0] == 130
    phone.wait_for(f"end {REMOVE}")
    assert phone.calls(REMOVE)[0].words == (words(phone)[0][1],)


def test_a_failure_is_shown(home: Path, phone: Commands, hub: HubServer) -> None:
    hub.always[FILE] = Fault(status=404)
    code, _, err = pull(home, phone).end()
    assert code != 0
    phone.wait_for(f"end {SHOW}")
    told = words(phone)[-1][5]
    assert f"error: {told}" in err


def test_a_short_download_shows_nothing(home: Path, phone: Commands) -> None:
    assert pull(home, phone, "").end()[0] == 0
    phone.wait_for(f"end {REMOVE}")
    assert words(phone) == []


def test_a_pinned_one_of_a_killed_download_is_taken_over(
    home: Path, phone: Commands, hub: HubServer
) -> None:
    hub.always[FILE] = Fault(stall=1_000_000)
    program = pull(home, phone)
    phone.wait_for(f"end {SHOW}")
    program.process.kill()
    program.end()
    hub.always.clear()
    assert pull(home, phone, "").end()[0] == 0
    phone.wait_for(f"end {REMOVE}")
    assert phone.calls(REMOVE)[0].words == (words(phone)[0][1],)


@pytest.mark.parametrize("mode", ["hangs", "fails", "babbles", "absent"])
def test_what_does_not_work_is_not_told(
    home: Path, phone: Commands, hub: HubServer, tmp_path: Path, mode: str
) -> None:
    if mode == "absent":
        phone.environment["PATH"] = Commands(tmp_path / "bare", ()).environment["PATH"]
    else:
        phone.behave(SHOW, mode)
    code, out, err = pull(home, phone).end()
    assert (code, out.endswith(f"{FILE}\n")) == (0, True)
    assert "notif" not in err
    phone.wait_for_silence()
