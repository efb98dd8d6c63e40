"""What both clients are: where the service is, how to reach it, and how hard to try."""

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, Self

import httpx

from lossclient import wire
from lossclient.arguments import (
    are_headers,
    is_count,
    is_seconds,
    is_visible,
    require,
    without_password,
)
from lossclient.exceptions import InvalidInput
from lossclient.exchange import Post, Rules, SizeLimit, Surroundings
from lossclient.network import proxy_for, transport_options
from lossclient.options import ScoreOptions
from lossclient.reading import BoundedTransport, Reading
from lossclient.retries import Retries

try:
    __version__ = version("lossclient")
except PackageNotFoundError:  # shipped as bare source, as Ray's `py_modules` does
    __version__ = "0+unknown"

TIMEOUT_S = 75.0
"""The service gives up after 60 s by default; its 504 says more than a timeout here."""
CONNECT_S = 10.0
"""A machine that is up accepts sooner, however long the request takes."""
REQUEST_BYTES = 8 << 20
KEY_VARIABLE = "LOSSCLIENT_API_KEY"
"""Of the environment, where a client that comes out of a pickle finds the key it had."""
_IN_PICKLES = ("timeout", "deadline_s", "retries", "concurrency", "request_bytes", "compression")
_NOT_IN_PICKLES = ("api_key", "headers", "transport")
"""A key may be in any header, and in what only the caller knows."""
_CHUNK = 1 << 18


@dataclass(eq=False, repr=False)
class BaseClient:
    """The arguments of both clients (see `Client`), and what follows from them alone.

    A copy is the client itself, so that it shares the connections. A pickle holds the arguments
    without the secrets, and makes connections where it is used.
    """

    base_url: str
    _: KW_ONLY
    api_key: str | None = None
    timeout: float | httpx.Timeout = TIMEOUT_S
    deadline_s: float | None = None
    retries: int | Retries = 5
    concurrency: int = 4
    request_bytes: int = REQUEST_BYTES
    compression: str | None = None
    headers: Mapping[str, str] | None = None
    transport: Any = None
    _lost: tuple[str, ...] = field(default=(), init=False)
    """Arguments that were left out of the pickle that this client comes from."""
    _surroundings: ClassVar[Surroundings] = Surroundings()

    def __post_init__(self) -> None:
        if re.match(r"(\w+\+)?unix:", str(self.base_url)):
            raise InvalidInput(
                "for a unix socket, base_url must be http://localhost, and transport "
                "httpx.HTTPTransport(uds=path) or httpx.AsyncHTTPTransport(uds=path)"
            )
        self._check_arguments()
        if self.transport is None:
            _ = self._transport_options  # an unusable proxy or certificate is an error now
        self._connect()

    def _check_arguments(self) -> None:
        key, headers, retries, coding = self.api_key, self.headers, self.retries, self.compression
        require(_is_base_url(self.base_url), "base_url", "like http://host:port", self.base_url)
        wanted = "visible ASCII characters, no space nor end of a line, or None"
        require(key is None or is_visible(key), "api_key", wanted)
        wanted = "seconds over 0 and at most 1e9, or an httpx.Timeout of such"
        require(_is_timeout(self.timeout), "timeout", wanted, self.timeout)
        seconds = self.deadline_s
        wanted = "seconds over 0 and at most 1e9, or None"
        require(seconds is None or is_seconds(seconds), "deadline_s", wanted, seconds)
        wanted = "a whole number of at least 0, or Retries"
        require(isinstance(retries, Retries) or is_count(retries, 0), "retries", wanted, retries)
        for name in ("concurrency", "request_bytes"):
            count = getattr(self, name)
            require(is_count(count), name, "a whole number of at least 1", count)
        is_coding = coding is None or (isinstance(coding, str) and coding in {"zstd", "gzip"})
        require(is_coding, "compression", "zstd or gzip, or None", coding)
        wanted = "a mapping of names to printable ASCII text, or None"
        require(headers is None or are_headers(headers), "headers", wanted)
        given = {
            "a name or password in base_url": bool(httpx.URL(self.base_url).userinfo),
            "api_key": key is not None,
            "Authorization in headers": "authorization" in map(str.lower, headers or ()),
        }
        several = [name for name, is_given in given.items() if is_given]
        if len(several) > 1:  # one of them would silently not be sent
            raise InvalidInput(f"{' and '.join(several)} are different credentials; give one")

    def _connect(self) -> None:
        """Begin without connections."""
        wire.prepare()
        self._size_limit = SizeLimit()
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidInput("the client is closed; make another one")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what is no secret, and the names of what is left out."""
        lost = [*self._lost, *(name for name in _NOT_IN_PICKLES if getattr(self, name) is not None)]
        if httpx.URL(self.base_url).userinfo:
            lost.append("password in base_url")
        kept = {name: getattr(self, name) for name in _IN_PICKLES}
        return {"base_url": self._server, **kept, "_lost": tuple(dict.fromkeys(lost))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._connect()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._server!r})"

    @cached_property
    def _server(self) -> str:
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
        return os.environ.get(KEY_VARIABLE) if "api_key" in self._lost else self.api_key

    def _httpx_options(
        self, transport_type: type[BoundedTransport | httpx.AsyncHTTPTransport]
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
            "timeout": self._timeout_within(None),
            "transport": self.transport or transport_type(**self._transport_options, limits=limits),
        }

    def _request(
        self,
        http: httpx.Client | httpx.AsyncClient,
        post: Post,
        chunks: Iterator[bytes] | AsyncIterator[bytes],
    ) -> httpx.Request:
        return http.build_request(
            "POST",
            "/score",
            params=post.query,
            content=chunks,
            headers={**post.headers, "Content-Length": str(len(post.body))},
            timeout=self._timeout_within(post.within_s),
        )

    def _reading(self, post: Post) -> Reading:
        return Reading(post.most_bytes, post.within_s, self._timeout_within(None).read)

    def _timeout_within(self, seconds: float | None) -> httpx.Timeout:
        """Return the timeouts of a request that may take so long."""
        timeout = self.timeout
        if not isinstance(timeout, httpx.Timeout):
            timeout = httpx.Timeout(timeout, connect=min(timeout, CONNECT_S))
        connect, read, write = (
            min((bound for bound in (phase, seconds) if bound is not None), default=None)
            for phase in (timeout.connect, timeout.read, timeout.write)
        )
        # Waiting for one of our own connections is no fault of the network.
        return httpx.Timeout(connect=connect, read=read, write=write, pool=seconds)

    def _rules(self, options: ScoreOptions) -> Rules:
        """Return what a call that begins now goes by.

        Raises:
            InvalidInput: If the client comes out of a pickle and lacks something.
        """
        found = {"api_key"} if is_visible(self._key()) else set()
        if missing := [name for name in self._lost if name not in found]:
            raise InvalidInput(
                f"this client comes out of a pickle, which does not hold its {', '.join(missing)}: "
                f"make another one here"
                + (f", or set {KEY_VARIABLE}" if missing == ["api_key"] else "")
            )
        now = self._surroundings.now()
        return Rules(
            options=options,
            retries=self.retries if isinstance(self.retries, Retries) else Retries(self.retries),
            size_limit=self._size_limit,
            deadline=None if self.deadline_s is None else now + self.deadline_s,
            compression=self.compression,
            surroundings=self._surroundings,
            server=self._server,
            via=f" by way of {without_password(self._proxy)}" if self._proxy else "",
        )


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


def chunks_of(body: memoryview) -> Iterator[bytes]:
    """Yield a body in chunks.

    httpx hands a body of bytes to the socket whole, and httpcore copies what is left of it after
    each write: quadratic in its size.
    """
    for start in range(0, len(body), _CHUNK):
        yield body[start : start + _CHUNK].tobytes()


async def async_chunks_of(body: memoryview, sent: Callable[[], None]) -> AsyncIterator[bytes]:
    """Yield them, and call a function when the last is sent."""
    for chunk in chunks_of(body):
        yield chunk
    sent()
