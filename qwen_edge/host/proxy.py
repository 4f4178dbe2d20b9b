"""The HTTP proxy on the way to a host, as HTTPS_PROXY and NO_PROXY name it."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import (  # type: ignore[attr-defined]
    getproxies_environment,
    proxy_bypass_environment,
)

from qwen_edge.errors import NetworkError, UsageError

# How http.client tells that a proxy has refused CONNECT.
_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})\b")
_PROXY_AUTHENTICATION = 407


@dataclass(frozen=True)
class Proxy:
    """A proxy that opens tunnels (CONNECT, RFC 9110).

    Attributes:
        address: host and port.
        headers: with the name and password that it wants, if the user gave them.
    """

    address: str
    headers: dict[str, str] = field(repr=False)


def proxy_for(url: str) -> Proxy | None:
    """The proxy through which an HTTPS URL is to be asked, if any.

    Raises:
        UsageError: HTTPS_PROXY names none that can be used. What it says stays secret.
    """
    proxies = getproxies_environment()
    named = proxies.get("https", "").strip()
    if not named or proxy_bypass_environment(urlsplit(url).netloc, proxies):
        return None
    scheme, separator, rest = named.rpartition("://")
    if separator and scheme.lower() != "http":
        raise UsageError(
            "HTTPS_PROXY names a proxy of another kind than http://, which is not supported.",
            "Most programs that offer SOCKS offer an HTTP proxy as well: give its address.",
        )
    try:
        parts = urlsplit(f"http://{rest}")
        host, port = parts.hostname, parts.port or 80
        usable = host and rest.isascii() and rest.isprintable() and " " not in rest
        usable = usable and not (parts.path.strip("/") or parts.query or parts.fragment)
    except ValueError:
        usable, host, port = False, None, 0
    if not usable or host is None:
        raise UsageError(
            "HTTPS_PROXY is not the address of a proxy.",
            "Write it as http://HOST:PORT or http://NAME:PASSWORD@HOST:PORT; /, @, # and % in a "
            "password are written as %2F, %40, %23 and %25.",
        )
    headers: dict[str, str] = {}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = "Basic " + b64encode(user.encode()).decode()
    return Proxy(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", headers)


def refused_status(error: Exception) -> int | None:
    """The status with which a proxy has refused a tunnel, if that is what the error says."""
    match = _REFUSED.match(str(error)) if isinstance(error, OSError) else None
    return int(match[1]) if match else None


def proxy_failure(proxy: Proxy, host: str, status: int | None, reason: str) -> NetworkError:
    """What the user is told when nothing comes through a proxy.

    Args:
        proxy: the one.
        host: what was to be reached.
        status: with which the proxy refused it, None if it did not come to that.
        reason: what happened instead.
    """
    if status == _PROXY_AUTHENTICATION:
        return NetworkError(
            "The proxy {proxy} wants a valid name and password (status 407).",
            "Set HTTPS_PROXY=http://NAME:PASSWORD@{proxy}.",
            proxy=proxy.address,
        )
    if status is not None:
        return NetworkError(
            "The proxy {proxy} does not let through to {host} (status {status}).",
            "Ask who runs it; if {host} can be reached without it, name that in NO_PROXY.",
            proxy=proxy.address,
            host=host,
            status=status,
        )
    return NetworkError(
        "There is no connection to {host} through the proxy {proxy}: {reason}.",
        "Check HTTPS_PROXY; if {host} can be reached without it, name that in NO_PROXY.",
        proxy=proxy.address,
        host=host,
        reason=reason,
    )
