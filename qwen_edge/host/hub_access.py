"""How the sources of models are reached: their addresses, and the user's tokens for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from qwen_edge.errors import UsageError
from qwen_edge.host.https import Headers, checked

HUGGING_FACE, MODEL_SCOPE = "huggingface", "modelscope"
HUGGING_FACE_URL, MODEL_SCOPE_URL = "https://huggingface.co", "https://www.modelscope.cn"
_TOKEN_LIMIT = 4096


def endpoint(source: str, environ: Mapping[str, str]) -> str:
    """The address of a source: HF_ENDPOINT or MODELSCOPE_DOMAIN, where they are set.

    Raises:
        UsageError: what is set is no address to download from.
    """
    if source == HUGGING_FACE:
        named = environ.get("HF_ENDPOINT", "").strip() or HUGGING_FACE_URL
    else:
        named = environ.get("MODELSCOPE_DOMAIN", "").strip() or MODEL_SCOPE_URL
        named = named if "://" in named else f"https://{named}"
    return checked(named.rstrip("/"))


def token(source: str, environ: Mapping[str, str]) -> str | None:
    """The user's token for a source, from the environment or the file that a login leaves.

    Raises:
        UsageError: it is not in the form of a token.
    """
    if source == MODEL_SCOPE:
        found = environ.get("MODELSCOPE_API_TOKEN", "")
    else:
        found = (
            environ.get("HF_TOKEN", "")
            or environ.get("HUGGING_FACE_HUB_TOKEN", "")
            or _stored_token(environ)
        )
    found = found.strip()
    if not found:
        return None
    if not (found.isascii() and found.isprintable()) or " " in found or ";" in found:
        raise UsageError(
            "The token for {source} has characters that no token has.",
            "Check {variable}.",
            source=source,
            variable=token_variable(source),
        )
    return found


def token_variable(source: str) -> str:
    """The environment variable that a source's token is usually in."""
    return "HF_TOKEN" if source == HUGGING_FACE else "MODELSCOPE_API_TOKEN"


def _stored_token(environ: Mapping[str, str]) -> str:
    """What `hf auth login` has stored."""
    cache = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "~") / ".cache")
    home = environ.get("HF_HOME") or str(Path(cache) / "huggingface")
    path = environ.get("HF_TOKEN_PATH") or str(Path(home) / "token")
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return file.read(_TOKEN_LIMIT)
    except (OSError, ValueError):
        return ""


def authorization(source: str, found: str) -> Headers:
    """The headers that carry a token."""
    headers = {"Authorization": f"Bearer {found}"}
    if source == MODEL_SCOPE:
        # Its older interface knows the token as the cookie of a session.
        headers["Cookie"] = f"m_session_id={found}"
    return headers
