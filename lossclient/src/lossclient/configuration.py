"""How a client reaches the service, and how hard it tries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import httpx

from lossclient.arguments import (
    Rule,
    are_headers,
    check,
    is_count,
    is_seconds,
    is_text,
    is_visible,
    or_none,
)
from lossclient.body import async_pieces, pieces
from lossclient.exchange import Post, Room, Rules, Surroundings
from lossclient.options import ScoreOptions
from lossclient.retries import Retries

TIMEOUT_S = 75.0
"""The service gives up after 60 s unless told otherwise; its 504 says more than silence."""
CONNECT_S = 10.0
"""A machine that is there answers sooner, whatever the request takes."""
REQUEST_BYTES = 8 << 20


def _is_base_url(value: Any) -> bool:
    try:
        url = httpx.URL(value)
        url.raw_host.decode().encode("idna")  # as a look-up would, and die of a UnicodeError
    except (httpx.InvalidURL, TypeError, UnicodeError):
        return False
    port_is_sound = url.port is None or 0 < url.port < 1 << 16
    return url.scheme in ("http", "https") and bool(url.host) and port_is_sound


def _is_timeout(value: Any) -> bool:
    if not isinstance(value, httpx.Timeout):
        return is_seconds(value)
    phases = (value.connect, value.read, value.write, value.pool)
    return all(phase is None or is_seconds(phase) for phase in phases)


_WHOLE = Rule("a whole number of at least 1", lambda value: is_count(value, 1))
_RULES = {
    "base_url": Rule("like http://host:port", _is_base_url),
    "api_key": or_none(
        Rule("visible ASCII characters, no space nor end of a line", is_visible, shown=False)
    ),
    "timeout": Rule("seconds over 0 and at most 1e9, or an httpx.Timeout of such", _is_timeout),
    "deadline_s": or_none(Rule("seconds over 0 and at most 1e9", is_seconds)),
    "retries": Rule(
        "a whole number of at least 0, or Retries",
        lambda value: isinstance(value, Retries) or is_count(value, 0),
    ),
    "concurrency": _WHOLE,
    "request_bytes": _WHOLE,
    "compression": or_none(
        Rule("zstd or gzip", lambda value: is_text(value) and value in {"zstd", "gzip"})
    ),
    "headers": or_none(
        Rule("a mapping of names to printable ASCII text", are_headers, shown=False)
    ),
}


@dataclass(frozen=True)
class Configuration:
    """Both clients' arguments.

    Attributes:
        base_url: Where the service is; it may have a path.
        api_key: Sent as a bearer token.
        timeout: Seconds for each read and write, and at most 10 for connecting; or httpx's own.
        deadline_s: Seconds for a whole call, retries included; None for no bound.
        retries: Attempts of a request after the first, or `Retries` in full.
        concurrency: Requests at a time.
        request_bytes: The most bytes of a request together with the gradients asked for.
        compression: ``zstd`` or ``gzip`` for bodies of requests.
        headers: Further ones for every request.
        room: What the service was seen to refuse.
        surroundings: Clock and chance.

    Raises:
        InvalidInput: If one of them makes no sense.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float | httpx.Timeout = TIMEOUT_S
    deadline_s: float | None = None
    retries: int | Retries = 5
    concurrency: int = 4
    request_bytes: int = REQUEST_BYTES
    compression: str | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    room: Room = field(default_factory=Room)
    surroundings: Surroundings = field(default_factory=Surroundings)

    def __post_init__(self) -> None:
        check(vars(self), _RULES)

    def for_httpx(self) -> dict[str, Any]:
        """Return the arguments of httpx's clients."""
        headers = {"User-Agent": f"lossclient/{version('lossclient')}", **(self.headers or {})}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return {
            "base_url": self.base_url,
            "headers": headers,
            "timeout": self.timeout_within(None),
            "limits": httpx.Limits(
                max_connections=self.concurrency, max_keepalive_connections=self.concurrency
            ),
        }

    def request(self, http: httpx.Client | httpx.AsyncClient, post: Post) -> httpx.Request:
        """Return what to send."""
        return http.build_request(
            "POST",
            "/score",
            params=post.query,
            content=(pieces if isinstance(http, httpx.Client) else async_pieces)(post.body),
            headers={**post.headers, "Content-Length": str(len(post.body))},
            timeout=self.timeout_within(post.within_s),
        )

    def timeout_within(self, seconds: float | None) -> httpx.Timeout:
        """Return the timeouts of a request that may take so long."""
        timeout = self.timeout
        if not isinstance(timeout, httpx.Timeout):
            timeout = httpx.Timeout(timeout, connect=min(timeout, CONNECT_S))
        connect, read, write = (
            min((each for each in (one, seconds) if each is not None), default=None)
            for one in (timeout.connect, timeout.read, timeout.write)
        )
        # Waiting for one of our own connections is no fault of the network.
        return httpx.Timeout(connect=connect, read=read, write=write, pool=seconds)

    def rules(self, options: ScoreOptions) -> Rules:
        """Return what a call that begins now goes by."""
        retries = self.retries if isinstance(self.retries, Retries) else Retries(self.retries)
        now = self.surroundings.now()
        return Rules(
            options=options,
            retries=retries,
            room=self.room,
            deadline=None if self.deadline_s is None else now + self.deadline_s,
            compression=self.compression,
            surroundings=self.surroundings,
        )
