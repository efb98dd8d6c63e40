"""Cross-origin requests: headers that let pages of other origins call the service from a browser.

Every answer carries them, refusals included, or the page could not read why it was refused.
"""

from collections.abc import Mapping
from typing import Self

from loss_scoring.service.settings import Settings

_Headers = list[tuple[bytes, bytes]]
_EXPOSED = (
    b"access-control-expose-headers",
    b"X-Request-Id, Server-Timing, Retry-After, WWW-Authenticate",
)
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, HEAD, POST"),
    (b"access-control-max-age", b"7200"),  # seconds; browsers cut it to that
]


class Cors:
    """The origins whose pages may call.

    Args:
        origins: Such as ``https://app.example``, with commas between them; or ``*``.
    """

    def __init__(self, origins: str) -> None:
        self._origins = frozenset(origins.encode().split(b","))

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return what the settings name; None if they name no origin."""
        return cls(settings.cors_origins) if settings.cors_origins else None

    def headers(self, request: Mapping[bytes, bytes]) -> _Headers:
        """Return what the answer to a request carries, given the request's headers.

        A preflight (OPTIONS with ``Access-Control-Request-Method``) may ask for any header, since
        the service ignores those that it does not know.
        """
        origin, is_any = request.get(b"origin"), b"*" in self._origins
        headers: _Headers = [] if is_any else [(b"vary", b"Origin")]
        if origin is None or not (is_any or origin in self._origins):
            return headers
        headers += [(b"access-control-allow-origin", b"*" if is_any else origin), _EXPOSED]
        if b"access-control-request-method" in request:
            headers += _PREFLIGHT
            if wanted := request.get(b"access-control-request-headers"):
                headers.append((b"access-control-allow-headers", wanted))
        return headers
