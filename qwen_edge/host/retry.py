"""When to try a request again, and for how long to wait before."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message

from qwen_edge.errors import NetworkError
from qwen_edge.host.https import Trouble, host_of

# Timeout, too many requests, and a server or what stands before it in difficulties.
PASSING = (408, 429, 500, 502, 503, 504)
_LONGEST_BACKOFF = 30.0


@dataclass(frozen=True)
class Patience:
    """How much a download puts up with.

    Attributes:
        timeout: seconds without a byte after which a connection counts as stalled.
        tries: failures in a row, without a byte gained between them, that end it.
        connection_tries: the same where there was never anything but failure.
        longest_wait: the most seconds to wait in a row because a server asks to.
        backoff: seconds before the second try; each further one waits twice as long.
        sleep: waits.
    """

    timeout: float = 30.0
    tries: int = 8
    connection_tries: int = 3
    longest_wait: float = 300.0
    backoff: float = 1.0
    sleep: Callable[[float], None] = time.sleep


class Retries:
    """The failures in a row of one piece of work.

    Args:
        patience: how many are borne.
        told: called with the reason and the seconds before each wait.
    """

    def __init__(self, patience: Patience, told: Callable[[str, float], None]) -> None:
        self._patience = patience
        self._told = told
        self._failures = 0
        self._waited = 0.0
        self._gained = False

    def succeeded(self) -> None:
        """Forgets the failures: something was gained."""
        self._failures = 0
        self._waited = 0.0
        self._gained = True

    def failed(self, trouble: Trouble) -> None:
        """Waits before the next try.

        Raises:
            QwenEdgeError: there is to be none.
        """
        self._failures += 1
        patience = self._patience
        # Where something came through before, the network may well come back.
        few = trouble.stubborn and not self._gained
        most = patience.connection_tries if few else patience.tries
        if self._failures >= most:
            raise trouble.error from None
        wait = min(patience.backoff * 2 ** (self._failures - 1), _LONGEST_BACKOFF)
        if trouble.wait is not None:
            self._waited += trouble.wait
            if self._waited > patience.longest_wait:
                raise trouble.error from None
            wait = trouble.wait or wait
        self._told(trouble.reason, wait)
        patience.sleep(wait)


def status_trouble(url: str, status: int, headers: Message) -> Trouble:
    """The trouble that a status of ``PASSING`` is."""
    wait = wanted_wait(headers)
    if status == 429:
        error = NetworkError(
            "{host} has had too many requests from here.",
            "Try again in {wait}; a token (HF_TOKEN) is allowed more of them.",
            host=host_of(url),
            wait=_duration(wait),
        )
    else:
        error = NetworkError(
            "{host} is out of order at the moment (status {status}).",
            "Try again in {wait}; what is downloaded so far is kept.",
            host=host_of(url),
            status=status,
            wait=_duration(wait),
        )
    return Trouble(error, f"{host_of(url)}: {status}", wait)


def wanted_wait(headers: Message, now: float | None = None) -> float | None:
    """Seconds that a server asks to wait: Retry-After (RFC 9110) or RateLimit (an IETF draft)."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal() and len(value) < 10:
        return float(value)
    if value:
        return _until(value, time.time() if now is None else now)
    # Hugging Face's way: ``"api";r=0;t=55``, requests left and seconds until there are more.
    match = re.search(r";\s*r=0\s*;\s*t=(\d{1,6})\b", headers.get("RateLimit", ""))
    return float(match.group(1)) if match else None


def _until(date: str, now: float) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(date).timestamp() - now, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _duration(seconds: float | None) -> str:
    minutes, rest = divmod(round(seconds or 60), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
