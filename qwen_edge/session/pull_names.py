"""What the user wants to download: a short name, ``owner/name``, ``owner/name:file`` or a URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from qwen_edge.errors import ModelNotFoundError, UsageError
from qwen_edge.host.https import checked, host_of, origin_of
from qwen_edge.host.hub_access import (
    HUGGING_FACE,
    MODEL_SCOPE,
    endpoint,
)
from qwen_edge.host.hub_listing import is_safe
from qwen_edge.session.models import SHORT_NAMES

# The same on Hugging Face and on ModelScope.
OWNER = "Qwen"
SOURCES = (HUGGING_FACE, MODEL_SCOPE)
URL = "url"
READY_SUFFIX, GGUF_SUFFIX = ".qedge", ".gguf"
_HUGGING_FACE_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com")
_MODEL_SCOPE_HOSTS = ("modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
# Paths below owner/name on Hugging Face and on ModelScope: revision, and file where there is one.
_REPO_PATH = re.compile(r"(?:/(?:tree|blob|resolve|raw|file/view)/([^/]+)(?:/(.+))?)?")


@dataclass(frozen=True)
class Wanted:
    """One model to download.

    Attributes:
        source: ``huggingface``, ``modelscope`` or ``url``.
        repo: ``owner/name``; for a URL its host and path.
        revision: a branch, tag or commit; None for the main one.
        file: a file of the repository, or a part of its name; None for what makes a model.
        address: of the source, where the user has given it.
        url: the address of the file, for the source ``url``.
    """

    source: str
    repo: str
    revision: str | None = None
    file: str | None = None
    address: str | None = None
    url: str = ""

    @property
    def name(self) -> str:
        """What the model is called: the repository without its owner, or the file's stem."""
        if self.source == URL:
            return self.repo.rpartition("/")[2].rpartition(".")[0]
        return self.repo.partition("/")[2]

    @property
    def origin(self) -> str:
        """Names it in the model file that is made of all of it."""
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


def parse_wanted(
    text: str,
    environ: Mapping[str, str],
    *,
    source: str | None = None,
    revision: str | None = None,
    file: str | None = None,
) -> Wanted:
    """Reads what the user has written.

    Args:
        text: ``qwen3-0.6b``, ``owner/name``, ``owner/name:file`` or a URL.
        environ: the environment variables; HF_ENDPOINT makes its host a Hugging Face.
        source: ``huggingface`` or ``modelscope``; None for Hugging Face.
        revision: a branch, tag or commit.
        file: a file of the repository.

    Raises:
        UsageError: it is nothing to download, or the options contradict it.
        ModelNotFoundError: no short name is like that.
    """
    if source is not None and source not in SOURCES:
        raise UsageError(
            "{name} cannot be {value}.",
            "Use one of {choices}.",
            name="--source",
            value=repr(source),
            choices=", ".join(SOURCES),
        )
    if "://" in text:
        wanted = _parse_url(checked(text), environ)
        if source not in (None, wanted.source):
            raise UsageError("{url} is not at {source}.", url=text, source=source)
    else:
        wanted = _parse_name(text, source or HUGGING_FACE)
    if revision is not None:
        _check_new(wanted, "--revision", wanted.revision, revision)
        wanted = replace(wanted, revision=revision)
    if file is not None:
        _check_new(wanted, "--file", wanted.file, file)
        wanted = replace(wanted, file=file)
    if wanted.revision is not None and (
        not _REVISION.fullmatch(wanted.revision) or ".." in wanted.revision
    ):
        raise UsageError("{name} cannot be {value}.", name="--revision", value=wanted.revision)
    return wanted


def _check_new(wanted: Wanted, option: str, before: str | None, value: str) -> None:
    """Refuses an option that contradicts the name or the URL."""
    if wanted.source == URL or before not in (None, value):
        raise UsageError(
            "{option} does not go with {name}.",
            "Give the repository as owner/name.",
            option=option,
            name=before or wanted.repo,
        )


def _parse_name(text: str, source: str) -> Wanted:
    repo, colon, file = text.partition(":")
    if colon and not file:
        raise UsageError("{name} names no file after the colon.", name=text)
    if "/" not in repo:
        repo = f"{OWNER}/{_known(repo)}"
    if repo.count("/") != 1 or not is_safe(repo):
        raise UsageError(
            "{name} is not the name of a model that can be downloaded.",
            "Give owner/name as Hugging Face writes it, Qwen/Qwen3-0.6B say, or a URL.",
            name=repr(text),
        )
    return Wanted(source, repo, file=file or None)


def _known(name: str) -> str:
    """The full form of a short name."""
    import difflib

    by_lower = {known.lower(): known for known in SHORT_NAMES}
    wanted = name.lower()
    found = by_lower.get(wanted) or by_lower.get(f"qwen3-{wanted}")
    if found:
        return found
    near = difflib.get_close_matches(wanted, by_lower, n=3, cutoff=0.6)
    hint = "Short names are {near}; others are given as owner/name."
    if near:
        hint = "Did you mean {near}? Models of others are given as owner/name."
    raise ModelNotFoundError(
        "No model is called {name} for short.",
        hint,
        name=name,
        near=", ".join(near or by_lower),
    )


def _parse_url(url: str, environ: Mapping[str, str]) -> Wanted:
    host = host_of(url).lower()
    if host in _HUGGING_FACE_HOSTS or origin_of(url) == origin_of(endpoint(HUGGING_FACE, environ)):
        # A mirror that the user has set stands for the original.
        own = host not in (*_HUGGING_FACE_HOSTS[:3], host_of(endpoint(HUGGING_FACE, environ)))
        address = f"https://{host}" if own else None
        return _parse_repo_url(url, HUGGING_FACE, address, 0)
    if host in _MODEL_SCOPE_HOSTS or origin_of(url) == origin_of(endpoint(MODEL_SCOPE, environ)):
        own = host not in (*_MODEL_SCOPE_HOSTS[:2], host_of(endpoint(MODEL_SCOPE, environ)))
        return _parse_repo_url(url, MODEL_SCOPE, f"https://{host}" if own else None, 1)
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not is_safe(name) or not name.lower().endswith((READY_SUFFIX, GGUF_SUFFIX)):
        raise UsageError(
            "{url} is not the address of a model.",
            "It must end in .gguf or .qedge, or be a model's page at Hugging Face or ModelScope.",
            url=url.partition("?")[0],
        )
    return Wanted(URL, f"{host}/{name}", url=url)


def _parse_repo_url(url: str, source: str, address: str | None, skipped: int) -> Wanted:
    """A page or a file of a repository; ModelScope's paths begin with ``models``."""
    parts = unquote(urlsplit(url).path).strip("/").split("/")
    parts = parts[1:] if skipped and parts[0] == "models" else parts
    repo = "/".join(parts[:2])
    rest = "".join(f"/{part}" for part in parts[2:])
    match = _REPO_PATH.fullmatch("" if rest in ("/summary", "/files") else rest)
    wrong = parts[0] in ("datasets", "spaces", "api", "models", "docs")
    if match is None or wrong or len(parts) < 2 or not is_safe(repo):
        raise UsageError(
            "{url} is not the address of a model.",
            "It must end in .gguf or .qedge, or be a model's page at Hugging Face or ModelScope.",
            url=url.partition("?")[0],
        )
    return Wanted(source, repo, match.group(1), match.group(2), address)
