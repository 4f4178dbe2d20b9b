"""HTTPS requests under rules: no step down to plain HTTP, and secrets stay with their host."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from qwen_edge.errors import NetworkError, QwenEdgeError, UsageError
from qwen_edge.host.proxy import Proxy, proxy_failure, proxy_for, refused_status

Headers = dict[str, str]
Origin = tuple[str, str, int]

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 8
_PORTS = {"https": 443, "http": 80}


class Trouble(Exception):
    """A request failed in a way that may pass.

    Attributes:
        error: what the user is told if it does not.
        reason: a few words, for the note that it is tried again.
        wait: seconds that the server asks to wait, if it does.
        stubborn: whether there was no connection at all: few tries are enough.
    """

    def __init__(
        self,
        error: QwenEdgeError,
        reason: str,
        wait: float | None = None,
        stubborn: bool = False,
    ) -> None:
        self.error = error
        self.reason = reason
        self.wait = wait
        self.stubborn = stubborn
        super().__init__(reason)


@dataclass(frozen=True)
class Secret:
    """Headers that only one origin may see."""

    origin: Origin
    headers: Headers = field(repr=False)


def origin_of(url: str) -> Origin:
    """Scheme, host and port of a URL that ``checked`` has let pass."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def host_of(url: str) -> str:
    """The host of a URL, for people to read."""
    return urlsplit(url).hostname or url


def is_loopback(host: str) -> bool:
    """Whether a host name is this device."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked(url: str) -> str:
    """Returns a URL that may be asked: HTTPS, or plain HTTP on this very device.

    Raises:
        UsageError: it is anything else, or carries a password.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in _PORTS:
        raise UsageError("{url} is not an address that can be downloaded from.", url=_shown(url))
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise UsageError(
            "{url} is plain HTTP, which anyone on the way can read and change.",
            "Use the address with https://.",
            url=_shown(url),
        )
    return url


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None if it is malformed or names a user."""
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        usable = plain and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return None
    return parts if usable else None


def _shown(url: str) -> str:
    """A URL without what may be secret in it: user, password and query."""
    without = url.partition("?")[0]
    scheme, separator, rest = without.partition("://")
    host, slash, path = rest.partition("/")
    return (scheme + separator + host.rpartition("@")[2] + slash + path)[:200]


class Client:
    """Opens URLs; knows no retries.

    Args:
        timeout: seconds without a byte after which a connection counts as stalled.
        secret: headers for one origin, a token say.
        agent: how the program introduces itself.
    """

    def __init__(self, timeout: float, secret: Secret | None = None, agent: str = "") -> None:
        self.timeout = timeout
        self._secret = secret
        self._agent = agent
        self._tls: ssl.SSLContext | None = None

    def open(self, url: str, headers: Headers | None = None) -> http.client.HTTPResponse:
        """Gets a URL, redirects followed; the status is for the caller to look at.

        Raises:
            UsageError: the URL is not one to ask.
            NetworkError: a redirect leads to where it must not.
            Trouble: there is no connection, or it broke.
        """
        checked(url)
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._request(url, headers or {})
            target = response.headers.get("Location")
            if response.status not in _REDIRECTS or target is None:
                return response
            response.close()
            url = _redirected(url, target)
        raise NetworkError("{host} sends from one address to the next.", host=host_of(url))

    def _request(self, url: str, headers: Headers) -> http.client.HTTPResponse:
        own = {"User-Agent": self._agent, "Accept-Encoding": "identity"}
        if self._secret is not None and origin_of(url) == self._secret.origin:
            own |= self._secret.headers
        request = urllib.request.Request(url, headers=own | headers)
        # A proxy has no business between this program and this device.
        proxy = None if is_loopback(host_of(url)) else proxy_for(url)
        if proxy is not None:
            request.set_proxy(proxy.address, "http")
            for name, value in proxy.headers.items():
                request.add_unredirected_header(name, value)
        try:
            return self._opener().open(request, timeout=self.timeout)  # type: ignore[no-any-return]
        except (OSError, http.client.HTTPException, ValueError) as error:
            # A ValueError is a host's name that is none.
            raise broken(url, error, stubborn=True, proxy=proxy) from None

    def _opener(self) -> urllib.request.OpenerDirector:
        """An opener that hands over every status, and every redirect, as it comes."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=self._tls),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(handler)
        opener.addheaders = []
        return opener


def _redirected(url: str, target: str) -> str:
    """The URL a redirect leads to."""
    following = urljoin(url, target)
    parts = _split(following)
    if parts is None or parts.scheme not in _PORTS:
        raise NetworkError("{host} sends to an address that is none.", host=host_of(url))
    here = urlsplit(url)
    # From this device to this device: the same rule as for the first address.
    inside = is_loopback(here.hostname or "") and is_loopback(parts.hostname or "")
    if parts.scheme == "http" and not (here.scheme == "http" and inside):
        raise NetworkError(
            "{host} sends to plain HTTP ({target}), which anyone on the way can read and change.",
            "A network that asks for a login does so; otherwise try another network or source.",
            host=here.hostname,
            target=parts.hostname,
        )
    return following


def broken(
    url: str, error: Exception, *, stubborn: bool = False, proxy: Proxy | None = None
) -> Trouble:
    """What a failed connection means to the user.

    Args:
        url: what was asked for.
        error: what came instead.
        stubborn: whether not even a first byte came.
        proxy: through which it was asked.

    Raises:
        NetworkError: it cannot be mended by trying again.
    """
    reason = getattr(error, "reason", None)
    if isinstance(error, urllib.error.URLError) and isinstance(reason, Exception):
        error = reason
    if isinstance(error, ssl.SSLCertVerificationError):
        raise NetworkError(
            "The certificate of {host} is not valid: {reason}.",
            "Check the date of this device, and `pkg install ca-certificates` on Termux.",
            host=host_of(url),
            reason=error.verify_message,
        ) from None
    text = _described(error)
    if proxy is not None:
        status = refused_status(error)
        failure = proxy_failure(proxy, host_of(url), status, text)
        if status is not None and status < 500:
            raise failure from None
    elif stubborn:
        failure = NetworkError(
            "There is no connection to {host}: {reason}.",
            "Check the network; where {host} is out of reach, set HF_ENDPOINT to a mirror or "
            "use --source modelscope.",
            host=host_of(url),
            reason=text,
        )
    else:
        failure = NetworkError(
            "The connection to {host} broke: {reason}.",
            "Run the same command again: it goes on where it stopped.",
            host=host_of(url),
            reason=text,
        )
    return Trouble(failure, text, stubborn=stubborn)


def _described(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, http.client.IncompleteRead):
        return "it ended early"
    return str(error) or type(error).__name__
