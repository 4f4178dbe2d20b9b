from __future__ import annotations

import random
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from qwen_edge.errors import NetworkError, UsageError
from qwen_edge.host.download import Watch, download
from qwen_edge.host.https import Client, Secret, checked, origin_of
from qwen_edge.host.hub import Repository, repository, single_file
from qwen_edge.host.hub_access import endpoint, token
from qwen_edge.host.hub_listing import is_safe
from qwen_edge.host.retry import Patience
from tests.host.hub_server import Fault, HubServer, hub_server

BIG = random.Random(2).randbytes(10_000)
QUICK = Patience(timeout=5, sleep=lambda seconds: None)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        server.files |= {"config.json": b"{}", "model.safetensors": BIG, "sub/x.gguf": BIG}
        yield server


def opened(
    hub: HubServer, repo: str = "owner/name", revision: str | None = None, **environ: str
) -> Repository:
    variables = {"HF_ENDPOINT": hub.url, "HOME": "/nonexistent", **environ}
    return repository(
        "huggingface", repo, revision, environ=variables, patience=QUICK, watch=Watch(),
        known=["Owner/Missing-One", "Qwen/Qwen3-0.6B"],
    )  # fmt: skip


def model_scope(hub: HubServer, repo: str = "owner/name", **environ: str) -> Repository:
    variables = {"MODELSCOPE_DOMAIN": hub.url, "HOME": "/nonexistent", **environ}
    return repository(
        "modelscope", repo, None, environ=variables, patience=QUICK, watch=Watch()
    )  # fmt: skip


def told(error: pytest.ExceptionInfo[NetworkError]) -> str:
    """Sentence and hint."""
    assert error.value.exit_code == 6
    return f"{error.value} {error.value.hint.format(**error.value.values)}"


def test_a_listing_of_several_pages(hub: HubServer) -> None:
    files = {file.name: file for file in opened(hub).files()}
    assert list(files) == ["config.json", "model.safetensors", "sub/x.gguf"]
    assert files["config.json"].digest is not None
    assert files["config.json"].digest.kind == "git"
    assert files["model.safetensors"].size == len(BIG)
    assert files["model.safetensors"].digest is not None
    assert files["model.safetensors"].digest.kind == "sha256"
    assert len(hub.asked("/tree/main")) == 2


@pytest.mark.parametrize("source", [opened, model_scope])
def test_listed_files_can_be_downloaded(hub: HubServer, source: object, tmp_path: Path) -> None:
    repo: Repository = source(hub)  # type: ignore[operator]
    for file in repo.files():
        if "/" not in file.name:
            path = download(repo.client, file, tmp_path, repo.refusal, QUICK, Watch())
            assert path.read_bytes() == hub.files[file.name]


def test_model_scope_publishes_sha256_of_all(hub: HubServer) -> None:
    files = model_scope(hub).files()
    assert [file.name for file in files] == list(hub.files)
    assert all(file.digest and file.digest.kind == "sha256" for file in files)
    assert hub.requests[0].path.startswith("/api/v1/models/owner/name/repo/files?Revision=master")


@pytest.mark.parametrize(
    "path",
    [
        "../evil", "a/../../evil", "/etc/passwd", ".hidden", "a//b", "a/", "", "a\\b", "a\nb", "~x",
        "x" * 300, "-rf", "a/.b", "a b", "ü", "con\0",
    ],
)  # fmt: skip
def test_hostile_names_are_left_out(hub: HubServer, path: str) -> None:
    assert not is_safe(path)
    hub.extra_entries = [{"type": "file", "path": path, "size": 5, "oid": "0" * 40}]
    assert len(opened(hub).files()) == 3


@pytest.mark.parametrize(
    "entry",
    [
        None, 5, "x", [], {}, {"type": "file"}, {"type": "file", "path": 5, "size": 5},
        {"type": "file", "path": "a", "size": -1},
        {"type": "file", "path": "a", "size": 10**400}, {"type": "file", "path": "a", "size": "5"},
    ],
)  # fmt: skip
def test_hostile_entries_are_left_out(hub: HubServer, entry: object) -> None:
    hub.extra_entries = [entry]
    assert len(opened(hub).files()) == 3


def test_checksums_that_are_none_are_not_taken_for_some(hub: HubServer) -> None:
    hub.digests["model.safetensors"] = "x" * 64
    files = {file.name: file for file in opened(hub).files()}
    assert files["model.safetensors"].digest is None


@pytest.mark.parametrize("body", [b"", b"{", b"5", b"{}", b"[" * 100_000, b"\xff"])
def test_listings_that_make_no_sense(hub: HubServer, body: bytes) -> None:
    hub.listing_faults = [Fault(body=body)]
    with pytest.raises(NetworkError, match="no sense"):
        opened(hub).files()


def test_an_endless_listing_ends(hub: HubServer) -> None:
    hub.extra_entries = ["x" * (1 << 20)] * 40
    with pytest.raises(NetworkError, match="too long"):
        opened(hub).files()


def test_the_listing_is_tried_again(hub: HubServer) -> None:
    hub.listing_faults = [Fault(status=503), Fault(cut=0), Fault(status=429)]
    assert len(opened(hub).files()) == 3


def test_a_wrong_name_gets_near_ones(hub: HubServer) -> None:
    with pytest.raises(NetworkError) as error:
        opened(hub, "owner/missing").files()
    assert "no model owner/missing at 127.0.0.1" in told(error)
    assert "Did you mean Owner/Missing-One?" in told(error)
    assert "HF_TOKEN" in told(error)


def test_a_wrong_name_is_searched_for(hub: HubServer) -> None:
    hub.search = ["someone/missing-model", "../evil"]
    variables = {"HF_ENDPOINT": hub.url, "HOME": "/nonexistent"}
    repo = repository(
        "huggingface", "owner/missing", None, environ=variables, patience=QUICK, watch=Watch()
    )
    with pytest.raises(NetworkError) as error:
        repo.files()
    assert "Did you mean someone/missing-model?" in told(error)


def test_a_wrong_name_at_model_scope(hub: HubServer) -> None:
    with pytest.raises(NetworkError) as error:
        model_scope(hub, "owner/missing").files()
    assert "no model owner/missing" in told(error)
    assert "MODELSCOPE_API_TOKEN" in told(error)


def test_a_wrong_revision(hub: HubServer) -> None:
    with pytest.raises(NetworkError, match="no revision no-such"):
        opened(hub, revision="no-such").files()


@pytest.mark.parametrize(
    ("status", "code", "environ", "words"),
    [
        (401, "GatedRepo", {}, ["not for everyone", "/owner/name", "HF_TOKEN"]),
        (403, "", {"HF_TOKEN": "hf_x"}, ["not for everyone", "/owner/name"]),
        (401, "", {"HF_TOKEN": "hf_x"}, ["does not accept the token", "HF_TOKEN"]),
        (401, "", {}, ["There is no model owner/name", "HF_TOKEN"]),
        (404, "", {}, ["There is no model owner/name"]),
        (404, "EntryNotFound", {}, ["is not there"]),
        (418, "", {}, ["refuses", "418"]),
    ],
)
def test_refusals_say_what_to_do(
    hub: HubServer, status: int, code: str, environ: dict[str, str], words: list[str]
) -> None:
    hub.listing_faults = [Fault(status=status, headers={"X-Error-Code": code})]
    with pytest.raises(NetworkError) as error:
        opened(hub, **environ).files()
    assert all(word in told(error) for word in words)
    assert "hf_x" not in told(error)


# Tokens


def test_the_token_goes_to_its_host_only(hub: HubServer, tmp_path: Path) -> None:
    # The same server under another name is another host.
    hub.redirect = f"http://localhost:{hub.port}/cdn/{{path}}"
    repo = opened(hub, HF_TOKEN="hf_secret")
    file = next(file for file in repo.files() if file.name == "model.safetensors")
    download(repo.client, file, tmp_path, repo.refusal, QUICK, Watch())
    for request in hub.requests:
        expected = None if "/cdn/" in request.path else "Bearer hf_secret"
        assert request.headers.get("Authorization") == expected
    assert len(hub.asked("/cdn/")) == 1


def test_the_token_goes_along_on_the_same_host(hub: HubServer, tmp_path: Path) -> None:
    hub.redirect = "/cdn/{path}"
    repo = model_scope(hub, MODELSCOPE_API_TOKEN="ms-secret")
    file = repo.files()[1]
    download(repo.client, file, tmp_path, repo.refusal, QUICK, Watch())
    (request,) = hub.asked("/cdn/")
    assert request.headers["Authorization"] == "Bearer ms-secret"
    assert request.headers["Cookie"] == "m_session_id=ms-secret"


def test_no_token_for_an_address_of_the_users_own(hub: HubServer) -> None:
    repo = repository(
        "huggingface", "owner/name", None, environ={"HF_TOKEN": "hf_secret"}, patience=QUICK,
        watch=Watch(), address=hub.url,
    )  # fmt: skip
    repo.files()
    assert not any("Authorization" in request.headers for request in hub.requests)


def test_where_tokens_come_from(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert token("huggingface", home) is None
    stored = tmp_path / ".cache" / "huggingface"
    stored.mkdir(parents=True)
    (stored / "token").write_text("hf_stored\n")
    assert token("huggingface", home) == "hf_stored"
    assert token("huggingface", home | {"HUGGING_FACE_HUB_TOKEN": "hf_old"}) == "hf_old"
    both = {"HF_TOKEN": "hf_new", "HUGGING_FACE_HUB_TOKEN": "hf_old"}
    assert token("huggingface", home | both) == "hf_new"
    (tmp_path / "token").write_text("hf_home")
    assert token("huggingface", home | {"HF_HOME": str(tmp_path)}) == "hf_home"
    assert token("huggingface", {"HF_TOKEN_PATH": str(tmp_path / "token")}) == "hf_home"
    assert token("modelscope", home) is None
    assert token("modelscope", {"MODELSCOPE_API_TOKEN": "ms-x"}) == "ms-x"


@pytest.mark.parametrize("value", ["hf x", "hf\r\nHost: evil", "hf;x", "ü"])
def test_tokens_that_are_none_are_refused(value: str) -> None:
    with pytest.raises(UsageError) as error:
        token("huggingface", {"HF_TOKEN": value})
    assert value not in str(error.value)


# Addresses and redirects


@pytest.mark.parametrize(
    "url",
    [
        "http://huggingface.co", "ftp://huggingface.co", "huggingface.co", "https://",
        "https://user:word@huggingface.co", "https://a b", "https://x:99999", "file:///etc/passwd",
        "https://x\\@evil", "http://127.0.0.1.evil.example", "https://[::1", "https://x\n",
    ],
)  # fmt: skip
def test_addresses_that_are_not_asked(url: str) -> None:
    with pytest.raises(UsageError):
        checked(url)
    with pytest.raises(UsageError):
        endpoint("huggingface", {"HF_ENDPOINT": url.replace("\n", "\0")})


def test_addresses_that_are_asked() -> None:
    for url in ("https://hf-mirror.com", "http://127.0.0.1:80", "http://[::1]:8080/x"):
        assert checked(url) == url
    assert endpoint("huggingface", {"HF_ENDPOINT": "https://hf-mirror.com/"}) == (
        "https://hf-mirror.com"
    )
    assert endpoint("modelscope", {"MODELSCOPE_DOMAIN": "modelscope.ai"}) == (
        "https://modelscope.ai"
    )
    assert endpoint("huggingface", {}) == "https://huggingface.co"


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("http://files.example/{path}", "plain HTTP"),
        ("ftp://files.example/{path}", "address that is none"),
        ("https://user:word@files.example/", "address that is none"),
        ("https://files.example:99999/", "address that is none"),
        ("https://" + "a" * 100 + ".example/", "no connection"),
        ("/owner/name/resolve/main/{path}", "from one address to the next"),
    ],
)
def test_redirects_that_are_not_followed(
    hub: HubServer, tmp_path: Path, target: str, complaint: str
) -> None:
    hub.redirect = target
    repo = opened(hub)
    with pytest.raises(NetworkError, match=complaint):
        download(repo.client, repo.files()[1], tmp_path, repo.refusal, QUICK, Watch())
    assert len(hub.asked("resolve")) <= 9


def test_a_single_file(hub: HubServer, tmp_path: Path) -> None:
    file, client, refusal = single_file(f"{hub.url}/cdn/sub/x.gguf", "x.gguf", QUICK, Watch())
    assert (file.name, file.size, file.digest) == ("x.gguf", len(BIG), None)
    assert download(client, file, tmp_path, refusal, QUICK, Watch()).read_bytes() == BIG
    hub.always["sub/x.gguf"] = Fault(ignores_range=True)
    assert single_file(f"{hub.url}/cdn/sub/x.gguf", "x", QUICK, Watch())[0].size == len(BIG)
    hub.always["sub/x.gguf"] = Fault(ignores_range=True, length="")
    with pytest.raises(NetworkError, match="how large"):
        single_file(f"{hub.url}/cdn/sub/x.gguf", "x.gguf", QUICK, Watch())
    with pytest.raises(NetworkError, match="nothing at this address"):
        single_file(f"{hub.url}/cdn/none.gguf", "none.gguf", QUICK, Watch())


# TLS


class _Redirecting(BaseHTTPRequestHandler):
    """Answers /plain with a way to plain HTTP, anything else with what it was asked with."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(302 if self.path == "/plain" else 200)
        self.send_header("Location", "http://127.0.0.1:9/secret")
        body = self.headers.get("Authorization", "none").encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with a certificate of its own; its address and the certificate."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key,
        "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    server = HTTPServer(("127.0.0.1", 0), _Redirecting)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"https://localhost:{server.server_address[1]}", certificate
    server.shutdown()
    thread.join()
    server.server_close()


def test_https_never_steps_down(secure: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, certificate = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    secret = Secret(origin_of(url), {"Authorization": "Bearer x"})
    with Client(5, secret).open(url + "/here") as response:
        assert response.read() == b"Bearer x"
    with pytest.raises(NetworkError, match="plain HTTP") as error:
        Client(5, secret).open(url + "/plain")
    assert error.value.exit_code == 6


def test_a_certificate_of_nobody_is_refused(
    secure: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", "/nonexistent")
    with pytest.raises(NetworkError, match="certificate of localhost") as error:
        Client(5).open(secure[0])
    assert "ca-certificates" in error.value.hint
