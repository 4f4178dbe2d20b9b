from __future__ import annotations

import hashlib
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from pathlib import Path

import pytest

from qwen_edge.errors import NetworkError, QwenEdgeError
from qwen_edge.host.download import Watch, download
from qwen_edge.host.https import Client
from qwen_edge.host.part_file import Digest, RemoteFile, bytes_there, is_whole
from qwen_edge.host.retry import Patience, wanted_wait
from tests.cli.program import ROOT
from tests.host.hub_server import Fault, HubServer, hub_server

CONTENT = random.Random(1).randbytes(300_000)
PATH = "/owner/name/resolve/main/big.bin"


class Log:
    """What a download tells."""

    def __init__(self) -> None:
        self.waits: list[tuple[str, float]] = []
        self.slept: list[float] = []
        self.checked: list[tuple[int, int]] = []
        self.done: list[int] = []
        self.watch = Watch(
            progress=self.done.append,
            checking=lambda done, total: self.checked.append((done, total)),
            waiting=lambda reason, seconds: self.waits.append((reason, seconds)),
        )


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        server.files["big.bin"] = CONTENT
        yield server


def remote(hub: HubServer, **changes: object) -> RemoteFile:
    digest = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
    file = RemoteFile("big.bin", hub.url + PATH, len(CONTENT), digest)
    return replace(file, **changes)  # type: ignore[arg-type]


def refused(status: int, headers: Message) -> QwenEdgeError:
    return NetworkError("refused with {status}", status=status)


def get(
    file: RemoteFile, folder: Path, log: Log | None = None, timeout: float = 5, **patience: object
) -> bytes:
    log = log or Log()
    patient = replace(Patience(timeout, sleep=log.slept.append), **patience)  # type: ignore[arg-type]
    path = download(Client(timeout), file, folder, refused, patient, log.watch)
    assert path == folder / file.name
    return path.read_bytes()


def give_up_early(hub: HubServer, folder: Path, cut: int, **changes: object) -> None:
    """Leaves a part of some bytes."""
    hub.faults["big.bin"] = [Fault(cut=cut)]
    with pytest.raises(NetworkError):
        get(remote(hub, **changes), folder, tries=1)
    assert (folder / "big.bin.part").stat().st_size == cut
    assert not (folder / "big.bin").exists()
    hub.requests.clear()


def test_a_file_arrives_whole_and_leaves_no_part(hub: HubServer, tmp_path: Path) -> None:
    log = Log()
    assert get(remote(hub), tmp_path, log) == CONTENT
    assert log.done[-1] == len(CONTENT)
    assert not list(tmp_path.glob("*.part"))
    assert is_whole(tmp_path, remote(hub))
    # A second time asks nothing.
    hub.requests.clear()
    assert get(remote(hub), tmp_path) == CONTENT
    assert not hub.requests


@pytest.mark.parametrize("cuts", [[0], [1], [100_000], [0, 65_536, 7, 0, 150_000]])
def test_dropped_connections_are_taken_up_at_the_byte(
    hub: HubServer, tmp_path: Path, cuts: list[int]
) -> None:
    hub.faults["big.bin"] = [Fault(cut=cut) for cut in cuts]
    log = Log()
    assert get(remote(hub), tmp_path, log) == CONTENT
    assert len(log.waits) == len(cuts)
    asked = [request.headers.get("Range") for request in hub.asked("big.bin")]
    starts = [sum(cuts[:number]) for number in range(len(cuts) + 1)]
    assert asked == [f"bytes={start}-" if start else None for start in starts]
    # Never the same byte twice.
    assert sum(len(CONTENT) - start for start in starts[-1:]) + sum(cuts) == len(CONTENT)


def test_a_part_of_an_earlier_run_is_hashed_again_and_continued(
    hub: HubServer, tmp_path: Path
) -> None:
    give_up_early(hub, tmp_path, 123_456)
    assert bytes_there(tmp_path, remote(hub)) == 123_456
    log = Log()
    assert get(remote(hub), tmp_path, log) == CONTENT
    assert log.checked[-1] == (123_456, 123_456)
    (request,) = hub.requests
    assert request.headers["Range"] == "bytes=123456-"
    assert request.headers["If-Range"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def test_a_part_that_went_bad_is_downloaded_again(hub: HubServer, tmp_path: Path) -> None:
    give_up_early(hub, tmp_path, 100_000)
    (tmp_path / "big.bin.part").write_bytes(bytes(100_000))
    assert get(remote(hub), tmp_path) == CONTENT
    assert len(hub.requests) == 2


def test_a_whole_part_needs_no_request(hub: HubServer, tmp_path: Path) -> None:
    give_up_early(hub, tmp_path, 100_000)
    (tmp_path / "big.bin.part").write_bytes(CONTENT)
    assert get(remote(hub), tmp_path) == CONTENT
    assert not hub.requests


def test_a_file_that_changed_starts_anew(hub: HubServer, tmp_path: Path) -> None:
    give_up_early(hub, tmp_path, 100_000, digest=None)
    other = CONTENT[::-1]
    hub.files["big.bin"] = other
    assert get(remote(hub, digest=None), tmp_path) == other
    (request,) = hub.requests
    assert request.headers["If-Range"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def test_another_checksum_is_another_file(hub: HubServer, tmp_path: Path) -> None:
    give_up_early(hub, tmp_path, 100_000)
    other = CONTENT[::-1]
    hub.files["big.bin"] = other
    file = remote(hub, digest=Digest("sha256", hashlib.sha256(other).hexdigest()))
    assert bytes_there(tmp_path, file) == 0
    assert get(file, tmp_path) == other
    assert "Range" not in hub.requests[0].headers


def test_changed_behind_a_server_that_ignores_if_range(hub: HubServer, tmp_path: Path) -> None:
    hub.etags["big.bin"] = '"one"'
    give_up_early(hub, tmp_path, 100_000, digest=None)
    other = CONTENT[::-1]
    hub.files["big.bin"] = other
    # The same condition holds for the server, but its answer names another version.
    hub.faults["big.bin"] = [Fault(headers={"ETag": '"two"'})]
    assert get(remote(hub, digest=None), tmp_path) == other


def test_without_checksum_and_etag_nothing_is_continued(hub: HubServer, tmp_path: Path) -> None:
    hub.etags["big.bin"] = 'W/"weak"'
    give_up_early(hub, tmp_path, 100_000, digest=None)
    assert bytes_there(tmp_path, remote(hub, digest=None)) == 0
    assert get(remote(hub, digest=None), tmp_path) == CONTENT
    assert "Range" not in hub.requests[0].headers


def test_a_mirror_continues_what_the_original_began(hub: HubServer, tmp_path: Path) -> None:
    give_up_early(hub, tmp_path, 100_000)
    file = remote(hub, url=hub.url + "/cdn/big.bin")
    assert get(file, tmp_path) == CONTENT
    assert hub.requests[0].headers["Range"] == "bytes=100000-"


def test_a_server_without_ranges_starts_over(hub: HubServer, tmp_path: Path) -> None:
    hub.faults["big.bin"] = [Fault(cut=100_000), Fault(cut=200_000, ignores_range=True)]
    hub.always["big.bin"] = Fault(ignores_range=True)
    assert get(remote(hub), tmp_path) == CONTENT


def test_a_server_that_never_gets_further_ends_it(hub: HubServer, tmp_path: Path) -> None:
    hub.always["big.bin"] = Fault(cut=100_000, ignores_range=True)
    log = Log()
    with pytest.raises(NetworkError, match="broke"):
        get(remote(hub), tmp_path, log, tries=4)
    assert len(hub.requests) == 4
    assert log.slept == [1, 2, 4]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(length="299000", cut=299_000),
        Fault(length="400000"),
        Fault(body=CONTENT + b"more", length=""),
        Fault(body=b"<html>log in</html>"),
        Fault(headers={"Content-Encoding": "br"}),
        Fault(status=206, headers={"Content-Range": "bytes 5-299999/300000"}),
        Fault(status=206),
        Fault(status=206, headers={"Content-Range": f"bytes 0-1/{'9' * 5000}"}),
    ],
)
def test_lies_about_the_length_are_found_out(hub: HubServer, tmp_path: Path, fault: Fault) -> None:
    hub.always["big.bin"] = fault
    with pytest.raises(NetworkError) as caught:
        get(remote(hub), tmp_path)
    assert caught.value.exit_code == 6
    assert not (tmp_path / "big.bin").exists()
    # Honest again, it goes on.
    del hub.always["big.bin"]
    assert get(remote(hub), tmp_path) == CONTENT


def test_a_lie_does_not_cost_the_part_that_is_here(hub: HubServer, tmp_path: Path) -> None:
    give_up_early(hub, tmp_path, 100_000)
    hub.always["big.bin"] = Fault(body=b"<html>log in</html>")
    with pytest.raises(NetworkError):
        get(remote(hub), tmp_path)
    assert bytes_there(tmp_path, remote(hub)) == 100_000


@pytest.mark.parametrize("length", ["", "many", "-5", "9" * 5000])
def test_no_length_is_borne_where_the_end_is_right(
    hub: HubServer, tmp_path: Path, length: str
) -> None:
    hub.always["big.bin"] = Fault(length=length)
    assert get(remote(hub), tmp_path) == CONTENT


def test_a_range_beyond_the_end_starts_over(hub: HubServer, tmp_path: Path) -> None:
    give_up_early(hub, tmp_path, 100_000)
    hub.faults["big.bin"] = [Fault(status=416)]
    assert get(remote(hub), tmp_path) == CONTENT


def test_a_wrong_hash_leaves_nothing(hub: HubServer, tmp_path: Path) -> None:
    bad = bytearray(CONTENT)
    bad[1234] ^= 1
    hub.always["big.bin"] = Fault(body=bytes(bad))
    with pytest.raises(NetworkError, match="checksum"):
        get(remote(hub), tmp_path)
    assert not list(tmp_path.iterdir())


def test_git_ids_are_checked(hub: HubServer, tmp_path: Path) -> None:
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    assert get(remote(hub, digest=Digest("git", blob)), tmp_path) == CONTENT
    other = RemoteFile("other.bin", hub.url + PATH, len(CONTENT), Digest("git", "0" * 40))
    with pytest.raises(NetworkError, match="checksum"):
        get(other, tmp_path)


@pytest.mark.parametrize("stall", [0, 100_000])
def test_a_stalled_connection_is_dropped(hub: HubServer, tmp_path: Path, stall: int) -> None:
    hub.faults["big.bin"] = [Fault(stall=stall)]
    log = Log()
    assert get(remote(hub), tmp_path, log, timeout=0.3) == CONTENT
    assert log.waits == [("timed out", 1)]
    assert hub.requests[-1].headers.get("Range") == (f"bytes={stall}-" if stall else None)


def test_a_trickling_connection_is_dropped(hub: HubServer, tmp_path: Path) -> None:
    hub.faults["big.bin"] = [Fault(trickle=0.05)]
    log = Log()
    assert get(remote(hub), tmp_path, log, timeout=0.5) == CONTENT
    assert log.waits == [("timed out", 1)]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_statuses_are_tried_again(hub: HubServer, tmp_path: Path, status: int) -> None:
    hub.faults["big.bin"] = [
        Fault(status=status, headers={"Retry-After": "7"}),
        Fault(status=status),
        Fault(status=status, headers={"Retry-After": "0"}),
    ]
    log = Log()
    assert get(remote(hub), tmp_path, log) == CONTENT
    assert log.slept == [7, 2, 4]
    assert log.waits[0] == (f"127.0.0.1: {status}", 7)


@pytest.mark.parametrize("status", [429, 503])
def test_waiting_is_bounded(hub: HubServer, tmp_path: Path, status: int) -> None:
    hub.always["big.bin"] = Fault(status=status, headers={"Retry-After": "5000"})
    log = Log()
    with pytest.raises(NetworkError) as caught:
        get(remote(hub), tmp_path, log)
    assert "1:23:20" in caught.value.hint.format(**caught.value.values)
    assert not log.slept
    hub.always["big.bin"] = Fault(status=status, headers={"Retry-After": "100"})
    with pytest.raises(NetworkError):
        get(remote(hub), tmp_path, log)
    assert log.slept == [100] * 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_other_statuses_are_final(hub: HubServer, tmp_path: Path, status: int) -> None:
    hub.always["big.bin"] = Fault(status=status)
    with pytest.raises(NetworkError, match=f"refused with {status}"):
        get(remote(hub), tmp_path)
    assert len(hub.requests) == 1


def test_storage_that_refuses_an_old_link_gets_a_new_one(hub: HubServer, tmp_path: Path) -> None:
    hub.redirect = f"http://localhost:{hub.port}/cdn/{{path}}?signature=old"
    hub.faults["big.bin"] = [Fault(status=403)]
    assert get(remote(hub), tmp_path) == CONTENT
    assert len(hub.asked("resolve")) == 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "12"}, 12.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:02:00 GMT"}, 20.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "9" * 40}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api";r=10;t=55'}, None),
        ({}, None),
    ],
)
def test_what_servers_ask_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    message = Message()
    for name, value in headers.items():
        message[name] = value
    assert wanted_wait(message, now=100.0) == seconds


def test_no_connection_is_given_up_soon(tmp_path: Path) -> None:
    with hub_server() as hub:
        file = remote(hub)
    log = Log()
    with pytest.raises(NetworkError, match=r"no connection to 127\.0\.0\.1") as caught:
        get(file, tmp_path, log)
    assert len(log.slept) == 2
    assert "HF_ENDPOINT" in caught.value.hint


def test_damaged_states_start_over(hub: HubServer, tmp_path: Path) -> None:
    for state in (b"", b"{", b"[]", b"\xff", b'{"size": 300000}', b"[" * 100_000):
        (tmp_path / ".big.bin.state.json").write_bytes(state)
        (tmp_path / "big.bin.part").write_bytes(b"junk")
        hub.requests.clear()
        assert get(remote(hub), tmp_path) == CONTENT
        assert "Range" not in hub.requests[0].headers
        (tmp_path / "big.bin").unlink()


def test_a_part_is_never_a_link(hub: HubServer, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "big.bin.part").symlink_to(victim)
    with pytest.raises(QwenEdgeError, match="cannot be written"):
        get(remote(hub), tmp_path)
    assert victim.read_bytes() == b"precious"


def test_a_file_too_large_for_the_place(hub: HubServer, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from qwen_edge.errors import QwenEdgeError\n"
        "from qwen_edge.host.download import Watch, download\n"
        "from qwen_edge.host.https import Client\n"
        "from qwen_edge.host.part_file import RemoteFile\n"
        "from qwen_edge.host.retry import Patience\n"
        f"file = RemoteFile('big.bin', sys.argv[1], {len(CONTENT)})\n"
        "try:\n"
        "    download(Client(5), file, Path(sys.argv[2]), None, Patience(), Watch())\n"
        "except QwenEdgeError as error:\n"
        "    sys.exit(f'{error.exit_code} {error}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, hub.url + PATH, tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        check=False,
    )
    assert done.stderr.startswith("1 "), done.stderr
    assert "needs 293 KiB, more than a file may have there" in done.stderr
    # What fits stays.
    assert bytes_there(tmp_path, remote(hub, digest=None)) == 100_000
