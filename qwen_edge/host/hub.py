"""Where models are published: Hugging Face, its mirrors, ModelScope, and single files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from qwen_edge import __version__
from qwen_edge.errors import NetworkError, QwenEdgeError
from qwen_edge.host.download import Refusal, Watch, probe, read_text
from qwen_edge.host.https import Client, Secret, host_of, origin_of
from qwen_edge.host.hub_access import (
    HUGGING_FACE,
    HUGGING_FACE_URL,
    MODEL_SCOPE_URL,
    authorization,
    endpoint,
    token,
    token_variable,
)
from qwen_edge.host.hub_listing import hugging_face_file, is_safe, model_scope_file
from qwen_edge.host.part_file import RemoteFile
from qwen_edge.host.retry import Patience

_LISTING_LIMIT = 16 << 20
_MOST_PAGES = 50


@dataclass(frozen=True)
class Repository:
    """A published model: what files it has and where they are.

    Attributes:
        source: ``huggingface`` or ``modelscope``.
        repo: ``owner/name``.
        revision: a branch, tag or commit.
        address: of the source.
        has_token: whether a token goes with the requests.
        client: makes the requests.
        patience: how often they are tried.
        watch: is told of waiting.
        known: names that a wrong one may have been meant for.
    """

    source: str
    repo: str
    revision: str
    address: str
    has_token: bool
    client: Client
    patience: Patience
    watch: Watch
    known: Sequence[str] = ()

    def files(self) -> list[RemoteFile]:
        """All files with acceptable names; the name of one in a folder begins with the folder's.

        Raises:
            NetworkError: there is no such model, it is not for everyone, or the network fails.
        """
        if self.source == HUGGING_FACE:
            entries = self._hugging_face_entries()
            files = [hugging_face_file(entry) for entry in entries]
        else:
            files = [model_scope_file(entry) for entry in self._model_scope_entries()]
        return [
            RemoteFile(file.name, self.file_url(file.name), file.size, file.digest)
            for file in files
            if file is not None and is_safe(file.name)
        ]

    @property
    def page(self) -> str:
        """The address of the model's page, for people."""
        folder = "" if self.source == HUGGING_FACE else "models/"
        return f"{self.address}/{folder}{self.repo}"

    def file_url(self, name: str) -> str:
        """The address of one file."""
        if self.source == HUGGING_FACE:
            return (
                f"{self.address}/{self.repo}/resolve/{quote(self.revision, safe='')}/{quote(name)}"
            )
        query = urlencode({"Revision": self.revision, "FilePath": name})
        return f"{self.address}/api/v1/models/{self.repo}/repo?{query}"

    def text(self, file: RemoteFile, limit: int) -> bytes:
        """Reads a small file."""
        return self._read(file.url, limit)[0]

    def _hugging_face_entries(self) -> list[Any]:
        """The entries of all pages of the listing (huggingface.co/docs/hub/api)."""
        revision = quote(self.revision, safe="")
        url = f"{self.address}/api/models/{self.repo}/tree/{revision}?recursive=true"
        entries: list[Any] = []
        for _ in range(_MOST_PAGES):
            body, headers = self._read(url, _LISTING_LIMIT)
            entries += self._parsed(body, list)
            following = re.search(r'<([^>]+)>\s*;\s*rel="?next"?', headers.get("Link", ""))
            if following is None:
                return entries
            # A mirror may pass on the original's address.
            parts = urlsplit(following.group(1))
            url = f"{self.address}{parts.path}?{parts.query}"
        raise NetworkError("The answer of {host} is too long.", host=host_of(self.address))

    def _model_scope_entries(self) -> list[Any]:
        query = urlencode({"Revision": self.revision, "Recursive": "true"})
        url = f"{self.address}/api/v1/models/{self.repo}/repo/files?{query}"
        answer = self._parsed(self._read(url, _LISTING_LIMIT)[0], dict)
        data = answer.get("Data")
        if answer.get("Code", 200) != 200 or not isinstance(data, dict):
            raise self.refusal(404, Message())
        files = data.get("Files")
        return files if isinstance(files, list) else []

    def _read(self, url: str, limit: int) -> tuple[bytes, Message]:
        return read_text(self.client, url, self.refusal, self.patience, self.watch, limit)

    def _parsed(self, body: bytes, kind: type[Any]) -> Any:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise NetworkError(
                "{host} answers in a way that makes no sense.",
                "Try again later, or another --source.",
                host=host_of(self.address),
            )
        return value

    def refusal(self, status: int, headers: Message) -> QwenEdgeError:
        """What a status that is no success means to the user.

        Source of the codes: huggingface_hub's documentation of its errors.
        """
        code = headers.get("X-Error-Code", "")
        if code == "GatedRepo" or (status == 403 and self.source == HUGGING_FACE):
            return NetworkError(
                "{repo} is not for everyone: its terms must be agreed to first.",
                "Agree to them at {page}, then set {variable} to a token of yours.",
                repo=self.repo,
                page=self.page,
                variable=token_variable(self.source),
            )
        if code == "RevisionNotFound":
            return NetworkError(
                "{repo} has no revision {revision}.",
                "See {page} for those it has, or leave --revision out.",
                repo=self.repo,
                revision=self.revision,
                page=self.page,
            )
        if code == "EntryNotFound":
            return NetworkError(
                "A file that {repo} lists is not there.",
                "It has just changed: run the same command again.",
                repo=self.repo,
            )
        if status in (401, 403) and self.has_token:
            return NetworkError(
                "{host} does not accept the token for {repo}.",
                "Check {variable}, and whether the token may read this model.",
                host=host_of(self.address),
                repo=self.repo,
                variable=token_variable(self.source),
            )
        if status in (401, 403, 404, 410):
            return self._not_there()
        return _refusal_of(self.address)(status, headers)

    def _not_there(self) -> NetworkError:
        """For who has no token, a private model and none at all look the same."""
        near = self._near()
        hint = "Check the name at {address}; for a model that is not public, set {variable}."
        if near:
            hint = "Did you mean {near}? For a model that is not public, set {variable}."
        return NetworkError(
            "There is no model {repo} at {host}, or not for everyone.",
            hint,
            repo=self.repo,
            host=host_of(self.address),
            address=self.address,
            near=", ".join(near),
            variable=token_variable(self.source),
        )

    def _near(self) -> list[str]:
        """Names that resemble this one: known ones, else what the source's search finds."""
        import difflib

        by_lower = {name.lower(): name for name in self.known if name != self.repo}
        near = difflib.get_close_matches(self.repo.lower(), by_lower, n=3, cutoff=0.75)
        if near or self.source != HUGGING_FACE:
            return [by_lower[name] for name in near]
        query = urlencode({"search": self.repo.rpartition("/")[2], "limit": "3"})
        once = Patience(timeout=self.patience.timeout, tries=1, connection_tries=1)
        # A search that fails as well must not come back here.
        try:
            url = f"{self.address}/api/models?{query}"
            plain = _refusal_of(url)
            body, _ = read_text(self.client, url, plain, once, Watch(), _LISTING_LIMIT)
            found = [entry.get("id") for entry in json.loads(body)]
        except (QwenEdgeError, ValueError, AttributeError, TypeError):
            return []
        return [name for name in found if isinstance(name, str) and is_safe(name)][:3]


def repository(
    source: str,
    repo: str,
    revision: str | None,
    *,
    environ: Mapping[str, str],
    patience: Patience,
    watch: Watch,
    address: str | None = None,
    known: Sequence[str] = (),
) -> Repository:
    """Prepares the access to a published model; asks nothing yet.

    Args:
        source: ``huggingface`` or ``modelscope``.
        repo: ``owner/name``.
        revision: None for the main branch.
        environ: the environment variables: addresses and tokens.
        patience: how often requests are tried.
        watch: is told of waiting.
        address: of the source, where the user has given it; it gets no token unless it is one of
            the source's own.
        known: names that a wrong one may have been meant for.

    Raises:
        UsageError: an address or token in the environment is malformed.
    """
    usual = endpoint(source, environ)
    address = address or usual
    official = HUGGING_FACE_URL if source == HUGGING_FACE else MODEL_SCOPE_URL
    secret = None
    if origin_of(address) in (origin_of(usual), origin_of(official)):
        found = token(source, environ)
        secret = Secret(origin_of(address), authorization(source, found)) if found else None
    return Repository(
        source=source,
        repo=repo,
        revision=revision or ("main" if source == HUGGING_FACE else "master"),
        address=address,
        has_token=secret is not None,
        client=_client(patience, secret),
        patience=patience,
        watch=watch,
        known=known,
    )


def _client(patience: Patience, secret: Secret | None = None) -> Client:
    return Client(patience.timeout, secret, f"qwen-edge/{__version__}")


def single_file(
    url: str, name: str, patience: Patience, watch: Watch
) -> tuple[RemoteFile, Client, Refusal]:
    """Asks how large the file at any URL is; no token goes there.

    Returns:
        The file under this name, and what downloads it.

    Raises:
        UsageError: the URL is not one to download from.
        NetworkError: the server refuses, does not say, or the network fails.
    """
    client, refusal = _client(patience), _refusal_of(url)
    size = probe(client, url, refusal, patience, watch)
    return RemoteFile(name, url, size), client, refusal


def _refusal_of(url: str) -> Refusal:
    """Makes the errors of a server of which nothing else is known."""

    def refusal(status: int, headers: Message) -> QwenEdgeError:
        if status in (404, 410):
            return NetworkError(
                "There is nothing at this address of {host}.",
                "Check the address.",
                host=host_of(url),
            )
        return NetworkError(
            "{host} refuses the download (status {status}).",
            "Try again later, or another --source.",
            host=host_of(url),
            status=status,
        )

    return refusal
