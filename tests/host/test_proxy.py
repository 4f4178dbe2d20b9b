"""Downloads through a proxy: tunnels, refusals, and what stays secret."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_edge.errors import UsageError
from qwen_edge.host.proxy import proxy_for
from tests.cli.running import run
from tests.host.connect_proxy import ConnectProxy, connect_proxy
from tests.host.hub_server import HubServer, hub_server

CERTIFICATE = Path(__file__).with_name("hub_test.pem")
PASSWORD = "s3cr%2Ft"
USER = "someone:s3cr/t"
MODEL = random.Random(2).randbytes(200_000)
VARIABLES = ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server(CERTIFICATE) as server:
        server.files["Tiny.gguf"] = MODEL
        yield server


@pytest.fixture
def proxy(hub: HubServer) -> Iterator[ConnectProxy]:
    with connect_proxy(hub.port) as server:
        yield server


def pull(home: Path, **variables: str) -> tuple[int, str]:
    """What comes of a model that is downloaded and then found to be none: code and stderr."""
    usual = {
        "HF_ENDPOINT": "https://hub.test",
        "SSL_CERT_FILE": str(CERTIFICATE),
        "HF_TOKEN": "hf_token",
    }
    result = run("pull", "owner/name", home=home, **(usual | variables))
    return result.returncode, result.stderr


def downloaded(code: int, stderr: str) -> bool:
    """Whether all came through: what is no model is found to be damaged only then."""
    return code == 5 and "Tiny.gguf" in stderr


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_downloads_go_through_a_tunnel(
    hub: HubServer, proxy: ConnectProxy, tmp_path: Path, variable: str
) -> None:
    hub.redirect = "https://cdn.test/cdn/{path}"
    code, stderr = pull(tmp_path, **{variable: proxy.url()})
    assert downloaded(code, stderr), stderr
    assert set(proxy.asked) == {"hub.test:443", "cdn.test:443"}
    # The token goes to its own host only, and nothing of the proxy's goes on.
    assert {request.headers.get("Authorization") for request in hub.asked("/cdn/")} == {None}
    assert {request.headers["Authorization"] for request in hub.asked("/api/")} == {
        "Bearer hf_token"
    }


def test_a_proxy_without_a_scheme(hub: HubServer, proxy: ConnectProxy, tmp_path: Path) -> None:
    assert downloaded(*pull(tmp_path, HTTPS_PROXY=f"127.0.0.1:{proxy.port}"))


def test_the_proxy_alone_sees_its_password(
    hub: HubServer, proxy: ConnectProxy, tmp_path: Path
) -> None:
    proxy.user = USER
    code, stderr = pull(tmp_path, HTTPS_PROXY=proxy.url(f"someone:{PASSWORD}"))
    assert downloaded(code, stderr), stderr
    assert hub.requests
    assert not any("Proxy-Authorization" in request.headers for request in hub.requests)
    assert "s3cr" not in stderr


@pytest.mark.parametrize("user", ["", "someone:wr0ng", "someone"])
def test_a_proxy_that_wants_another_password(
    hub: HubServer, proxy: ConnectProxy, tmp_path: Path, user: str
) -> None:
    proxy.user = USER
    code, stderr = pull(tmp_path, HTTPS_PROXY=proxy.url(user))
    assert code == 6
    assert f"The proxy 127.0.0.1:{proxy.port} wants a valid name and password" in stderr
    assert "wr0ng" not in stderr
    assert "\x1b" not in stderr
    # Asked once: another try would get the same answer.
    assert proxy.asked == ["hub.test:443"]
    assert not hub.requests


def test_a_proxy_that_refuses_the_host(hub: HubServer, proxy: ConnectProxy, tmp_path: Path) -> None:
    proxy.refusals = [403]
    code, stderr = pull(tmp_path, HTTPS_PROXY=proxy.url(f"someone:{PASSWORD}"))
    assert code == 6
    assert f"127.0.0.1:{proxy.port} does not let through to hub.test (status 403)" in stderr
    assert "s3cr" not in stderr
    assert proxy.asked == ["hub.test:443"]


def test_a_proxy_in_difficulties_is_asked_again(
    hub: HubServer, proxy: ConnectProxy, tmp_path: Path
) -> None:
    proxy.refusals = [503]
    code, stderr = pull(tmp_path, HTTPS_PROXY=proxy.url())
    assert downloaded(code, stderr), stderr


def test_a_tunnel_that_breaks_is_opened_again(
    hub: HubServer, proxy: ConnectProxy, tmp_path: Path
) -> None:
    # The listing in two pages, then the file.
    proxy.cuts = [1 << 20, 1 << 20, 100_000]
    code, stderr = pull(tmp_path, HTTPS_PROXY=proxy.url())
    assert downloaded(code, stderr), stderr
    ranges = [request.headers.get("Range") for request in hub.asked("Tiny.gguf")]
    assert len(ranges) == 2
    assert ranges[0] is None
    assert ranges[1] is not None
    assert 0 < int(ranges[1].removeprefix("bytes=").rstrip("-")) <= 100_000


def test_a_proxy_that_is_gone(hub: HubServer, tmp_path: Path) -> None:
    with connect_proxy(hub.port) as server:
        pass
    code, stderr = pull(tmp_path, HTTPS_PROXY=server.url(f"someone:{PASSWORD}"))
    assert code == 6
    assert f"no connection to hub.test through the proxy 127.0.0.1:{server.port}" in stderr
    assert "s3cr" not in stderr


def test_this_device_is_reached_without_a_proxy(tmp_path: Path) -> None:
    with hub_server() as hub, connect_proxy(hub.port) as proxy:
        hub.files["Tiny.gguf"] = MODEL
        code, stderr = pull(
            tmp_path, HF_ENDPOINT=hub.url, HTTPS_PROXY=proxy.url(), HTTP_PROXY=proxy.url()
        )
        assert downloaded(code, stderr), stderr
        assert proxy.asked == []


def test_a_certificate_of_nobody_is_refused_in_a_tunnel_too(
    hub: HubServer, proxy: ConnectProxy, tmp_path: Path
) -> None:
    nobody = tmp_path / "none.pem"
    nobody.touch()
    code, stderr = pull(tmp_path, HTTPS_PROXY=proxy.url(), SSL_CERT_FILE=str(nobody))
    assert code == 6
    assert "certificate of hub.test is not valid" in stderr
    assert not hub.requests


@pytest.mark.parametrize(
    "address",
    [
        "socks5://someone:s3cret@127.0.0.1:1080",
        "https://someone:s3cret@proxy.test:8080",
        "http://someone:s3/cret@proxy.test:8080",
        "http://someone:s3#cret@proxy.test:8080",
        "http://someone:s3cret@proxy.test:port",
        "http://someone:s3cret@proxy.test:99999",
        "http://someone:s3cret@:8080",
        "http://someone:s3cret@proxy.test:8080/path?x",
        "http://someone:s3 cret@proxy.test",
        "http://[someone:s3cret",
    ],
)
def test_a_proxy_that_is_none_is_not_shown(address: str, tmp_path: Path) -> None:
    code, stderr = pull(tmp_path, HTTPS_PROXY=address)
    assert code == 2
    assert "HTTPS_PROXY" in stderr
    assert "s3" not in stderr
    assert "cret" not in stderr


@pytest.mark.parametrize(
    ("excepted", "proxied"),
    [
        ("", True),
        ("*", False),
        ("hub.test", False),
        (".test", False),
        ("test", False),
        ("other.test, hub.test", False),
        ("hub.test:8443", True),
        ("xhub.test", True),
        ("ub.test", True),
    ],
)
def test_exceptions(monkeypatch: pytest.MonkeyPatch, excepted: str, proxied: bool) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", excepted)
    proxy = proxy_for("https://hub.test/owner/name")
    assert (proxy is not None) == proxied
    assert proxy is None or proxy.address == "proxy.test:3128"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://proxy.test", "proxy.test:80"),
        ("HTTP://Proxy.test:81/", "proxy.test:81"),
        ("http://[2001:db8::1]:3128", "[2001:db8::1]:3128"),
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, address: str, expected: str) -> None:
    assert proxy_for("https://hub.test/") is None
    monkeypatch.setenv("https_proxy", address)
    proxy = proxy_for("https://hub.test/")
    assert proxy is not None
    assert proxy.address == expected


def test_a_password_is_not_in_what_python_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://someone:s3cret@proxy.test:port")
    with pytest.raises(UsageError) as caught:
        proxy_for("https://hub.test/")
    assert "s3cret" not in repr(caught.value) + str(caught.value)
    monkeypatch.setenv("HTTPS_PROXY", "http://someone:s3cret@proxy.test")
    proxy = proxy_for("https://hub.test/")
    assert "c29tZW9uZTpzM2NyZXQ" not in repr(proxy)
    assert "s3cret" not in repr(proxy)
