"""How a client reaches the service, and how hard it tries."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

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
    without_password,
)
from lossclient.body import async_pieces, pieces
from lossclient.exceptions import InvalidInput
from lossclient.exchange import Post, Room, Rules, Surroundings
from lossclient.network import proxy_for, transport_options
from lossclient.options import ScoreOptions
from lossclient.retries import Retries
from lossclient.version import __version__

TIMEOUT_S = 75.0
"""The service gives up after 60 s unless told otherwise; its 504 says more than silence."""
CONNECT_S = 10.0
"""A machine that is there answers sooner, whatever the request takes."""
REQUEST_BYTES = 8 << 20
KEY_VARIABLE = "LOSSCLIENT_API_KEY"
"""Of the environment, where a client that comes out of a pickle finds the key it had."""
_NOT_IN_PICKLES = ("api_key", "headers", "transport")
"""A key may be in any header, and in what only the caller knows."""


def _is_base_url(value: Any) -> bool:
    try:
        url = httpx.URL(value)
        url.raw_host.decode().encode("idna")  # as a look-up would, and die of a UnicodeError
    except (httpx.InvalidURL, TypeError, UnicodeError):
        return False
    port_is_valid = url.port is None or 0 < url.port < 1 << 16
    only_a_place = not url.query and not url.fragment and not re.search(r"\s", str(value))
    return url.scheme in {"http", "https"} and bool(url.host) and port_is_valid and only_a_place


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
        transport: httpx's; None for its usual ones.
        room: What the service was seen to refuse.
        surroundings: Clock and chance.
        lost: Arguments that were left out of the pickle that this comes from.

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
    transport: Any = field(default=None, repr=False)
    room: Room = field(default_factory=Room)
    surroundings: Surroundings = field(default_factory=Surroundings)
    lost: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if re.match(r"(\w+\+)?unix:", str(self.base_url)):
            raise InvalidInput(
                "for a unix socket, base_url must be http://localhost, and transport "
                "httpx.HTTPTransport(uds=path) or httpx.AsyncHTTPTransport(uds=path)"
            )
        check(vars(self), _RULES)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is no secret, and the names of what is left out."""
        url = httpx.URL(self.base_url)
        left_out = [name for name in _NOT_IN_PICKLES if getattr(self, name) is not None]
        if url.userinfo:
            left_out.append("password in base_url")
        names = ("timeout", "deadline_s", "retries", "concurrency", "request_bytes", "compression")
        settings = {name: getattr(self, name) for name in names}
        lost = tuple(dict.fromkeys([*self.lost, *left_out]))
        return {"base_url": self.server, **settings, "lost": lost}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(Configuration(**state)))

    @cached_property
    def server(self) -> str:
        """The URL of the service, without a password and a slash at its end."""
        url = httpx.URL(self.base_url)
        return f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode()}".rstrip("/")

    @cached_property
    def _proxy(self) -> str | None:
        return None if self.transport is not None else proxy_for(httpx.URL(self.base_url))

    @cached_property
    def _transport_options(self) -> dict[str, Any]:
        return transport_options(httpx.URL(self.base_url), self._proxy)

    def _key(self) -> str | None:
        return os.environ.get(KEY_VARIABLE) if "api_key" in self.lost else self.api_key

    def for_httpx(
        self, transport_type: type[httpx.HTTPTransport | httpx.AsyncHTTPTransport]
    ) -> dict[str, Any]:
        """Return the arguments of httpx's client with such transports.

        Raises:
            InvalidInput: If the environment leads nowhere; see `lossclient.network`.
        """
        headers = {"User-Agent": f"lossclient/{__version__}", **(self.headers or {})}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        limits = httpx.Limits(
            max_connections=self.concurrency, max_keepalive_connections=self.concurrency
        )
        return {
            "base_url": self.base_url,
            "headers": headers,
            "timeout": self.timeout_within(None),
            "transport": self.transport or transport_type(**self._transport_options, limits=limits),
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
        """Return what a call that begins now goes by.

        Raises:
            InvalidInput: If the client comes out of a pickle and lacks something.
        """
        self._check_lost()
        retries = self.retries if isinstance(self.retries, Retries) else Retries(self.retries)
        now = self.surroundings.now()
        return Rules(
            options=options,
            retries=retries,
            room=self.room,
            deadline=None if self.deadline_s is None else now + self.deadline_s,
            compression=self.compression,
            surroundings=self.surroundings,
            server=self.server,
            via=f" by way of {without_password(self._proxy)}" if self._proxy else "",
        )

    def _check_lost(self) -> None:
        found = {"api_key"} if is_visible(self._key()) else set()
        missing = [name for name in self.lost if name not in found]
        if missing:
            raise InvalidInput(
                f"this client comes out of a pickle, which does not hold its {', '.join(missing)}: "
                f"make another one here"
                + (f", or set {KEY_VARIABLE}" if missing == ["api_key"] else "")
            )


class Configured:
    """What both clients are to whoever copies, pickles or prints them.

    A copy is the client itself, so that it shares the connections. A pickle holds the configuration
    without its secrets, and makes connections where it is used.
    """

    _configuration: Configuration
    _http: Any

    def _connect(self) -> None:
        """Set ``_http``."""
        raise NotImplementedError

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_http"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._connect()

    def __repr__(self) -> str:
        """Show where the service is."""
        return f"{type(self).__name__}({self._configuration.server!r})"
