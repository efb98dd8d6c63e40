"""A failed attempt as an exception in the caller's terms, and whether to try again."""

import html
import json
import os
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import numpy as np

from lossclient.exceptions import (
    BadRequest,
    DeadlineExceeded,
    InvalidValues,
    LossClientError,
    Overloaded,
    ServiceError,
    TooLarge,
    TransportError,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    ValueFault,
    printable,
)
from lossclient.forecasts import Forecasts
from lossclient.reading import Reply, coding_of
from lossclient.retries import RETRYABLE_STATUSES, retry_after_s
from lossclient.wire import SERIES, TARGET, Part

_IN_SERIES = re.compile(rf"/({TARGET}|weight|scale|\d{{1,18}})/(\d{{1,18}})")
"""The column, a model by its number, and the row in the request."""
_SIDES = {TARGET: "target", "weight": "weight", "scale": "scale"}
_ON_THE_WIRE = re.compile(rf",? *\b((of|in) )?(the )?(series )?{SERIES}=\d+\b,?")
"""What the service calls a series, in all its forms; the caller does not know the number."""
_MAX_FAULTS = 20
_LONGEST = 2000
"""Characters of a detail, which patterns are looked for in; the service's own are shorter."""
_PAGE = 1 << 13
"""Bytes of a page that is not from the service; its title comes early."""
_MARKUP = re.compile(r"(?is)<(script|style)\b.*?(</\1\s*>|\Z)|<!--.*?(-->|\Z)|<[^>]*(>|\Z)")
_HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.DecodingError)
_CLASSES: Mapping[int, type[ServiceError]] = {
    401: Unauthorized,
    403: Unauthorized,
    413: TooLarge,
    422: InvalidValues,
    429: Overloaded,
    503: Overloaded,
}


@dataclass(frozen=True)
class Failure:
    """An attempt without scores: the error to raise if it is the last, and whether to try again."""

    error: LossClientError
    retryable: bool
    retry_after_s: float | None = None

    @property
    def is_too_large(self) -> bool:
        """Whether a smaller request may succeed."""
        return isinstance(self.error, TooLarge)


def failure_of(  # noqa: PLR0913 - the message names all of it
    outcome: Reply | httpx.RequestError,
    forecasts: Forecasts,
    part: Part,
    *,
    request_id: str,
    server: str,
    via: str = "",
    now: datetime,
) -> Failure:
    """Return the failure that is anything but an answer with scores.

    Args:
        outcome: What came.
        forecasts: The series of the call.
        part: Those that were sent.
        request_id: That was sent.
        server: Where the service is, for the message.
        via: Of which proxy, likewise.
        now: The time of day, with a zone.
    """
    if isinstance(outcome, httpx.RequestError):
        return _of_transport(outcome, request_id, f"{server}{via}")
    problem = _problem(outcome)
    detail = problem.get("detail") or problem.get("title")
    detail = _words(detail) if detail else excerpt(outcome)
    location = outcome.headers.get("location")
    if 300 <= outcome.status_code < 400 and location is not None:
        detail = _redirected(location, server)
    elif outcome.status_code in {404, 405}:
        detail = f"{detail} (no POST {server}/score; base_url is where the service is, less /score)"
    request_id = _id_of(outcome, request_id)
    is_declared = problem.get("retryable") is True
    after = retry_after_s(outcome.headers, now)
    retryable = is_declared or outcome.status_code in RETRYABLE_STATUSES
    if outcome.status_code == 504:
        late = DeadlineExceeded(f"504: {detail} (request {request_id})")
        late.request_id = request_id
        return Failure(late, retryable, after)
    faults = _faults(problem, forecasts, part)
    count = problem.get("error_count")
    count = max(count if isinstance(count, int) else 0, len(faults))
    class_ = _class_of(outcome.status_code)
    error = class_(
        _headline(faults, count, detail) if class_ is InvalidValues else detail,
        status=outcome.status_code,
        request_id=request_id,
        retryable=is_declared,
        retry_after_s=after,
    )
    if isinstance(error, InvalidValues):
        error.errors, error.count = faults, count
    elif isinstance(error, TooLarge) and part.series == 1:
        key = forecasts.key_of(part.start)
        error.add_note(f"It held one series only: {key.id!r}")
    return Failure(error, retryable, after)


def unreadable(reply: Reply, request_id: str, reason: Exception | str) -> Failure:
    error = UnexpectedAnswer(
        f"not the scores that were asked for: {printable(str(reason))}",
        status=reply.status_code,
        request_id=_id_of(reply, request_id),
    )
    return Failure(error, retryable=False)


def _id_of(reply: Reply, request_id: str) -> str:
    return printable(reply.headers.get("x-request-id", request_id))


def _of_transport(error: httpx.RequestError, request_id: str, server: str) -> Failure:
    reason = f"{type(error).__name__}: {_message(error)}"
    wrapped = TransportError(f"no answer from {server} to request {request_id}: {reason}")
    wrapped.request_id = request_id
    wrapped.__cause__ = error
    return Failure(wrapped, not isinstance(error, _HOPELESS))


def _message(error: httpx.RequestError) -> str:
    """Return the message of an error, with the system's, which anyio hides."""
    root: BaseException = error
    while below := _below(root):
        root = below
    if not isinstance(root, OSError) or isinstance(root, ssl.SSLError | socket.gaierror):
        return str(error)  # their numbers mean something else
    system = os.strerror(root.errno) if root.errno else str(root)
    return str(error) if system in str(error) else f"{error}: {system}"


def _below(error: BaseException) -> BaseException | None:
    """Return the cause of an error, also where httpcore raises ``from None``."""
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[0]
    return error.__cause__ or error.__context__


def _redirected(location: str, server: str) -> str:
    try:
        target = httpx.URL(f"{server}/score").join(location)
        url = str(target.copy_with(query=None, fragment=None)).rstrip("/")
    except (httpx.InvalidURL, ValueError):
        url = ""
    base = url.removesuffix("/score")
    if base == url:
        way_out = "is it a page to log in at?"
    elif base == server:
        way_out = "a proxy before the service changes its paths"
    else:
        way_out = f"base_url should be {base}"
    return f"redirected to {printable(location):.300}, which is not followed; {way_out}"


def _class_of(status: int) -> type[ServiceError]:
    if status in _CLASSES:
        return _CLASSES[status]
    if status >= 500:
        return Unavailable
    return BadRequest if status >= 400 else UnexpectedAnswer


def _problem(reply: Reply) -> dict[str, Any]:
    """Return the problem document of an answer, empty if it has none."""
    if not reply.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        problem = json.loads(reply.content)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def excerpt(reply: Reply) -> str:
    """Return the beginning of an answer that is text; of a page, what a reader would see."""
    if coding := coding_of(reply.headers):
        return f"a body in the content coding {printable(coding):.40}, which was not asked for"
    text = reply.content[:_PAGE].decode("utf-8", "replace")
    if "html" in reply.headers.get("content-type", "") or text.lstrip()[:1] == "<":
        text = html.unescape(_MARKUP.sub(" ", text))
    return printable(" ".join(text.split())[:200]) or "no body"


def _headline(faults: Sequence[ValueFault], count: int, detail: str) -> str:
    """Return what is wrong in the caller's terms, which the service's detail is not in."""
    if not faults:
        return _off_the_wire(detail)
    return str(faults[0]) if count == 1 else f"{count} faults were found"


def _off_the_wire(words: str) -> str:
    return _ON_THE_WIRE.sub("", words).strip()


def _faults(problem: Mapping[str, Any], forecasts: Forecasts, part: Part) -> tuple[ValueFault, ...]:
    faults = problem.get("errors")
    return tuple(
        _fault(
            _words(fault.get("pointer")),
            _off_the_wire(_words(fault.get("detail"))),
            forecasts,
            part,
        )
        for fault in (faults[:_MAX_FAULTS] if isinstance(faults, list) else ())
        if isinstance(fault, dict)
    )


def _words(value: object) -> str:
    # Without runs of blanks, in whose square a pattern's time grows.
    return printable(" ".join(str(value)[:_LONGEST].split()))


def _fault(pointer: str, detail: str, forecasts: Forecasts, part: Part) -> ValueFault:
    place = _IN_SERIES.fullmatch(pointer)
    if place is None:
        return ValueFault(pointer, detail)
    is_model = place[1] not in _SIDES
    element = int(forecasts.offsets[part.start]) + int(place[2])
    if element >= forecasts.offsets[part.stop] or (is_model and int(place[1]) not in part.models):
        return ValueFault(pointer, detail)
    series = int(np.searchsorted(forecasts.offsets, element, side="right")) - 1
    position = element - int(forecasts.offsets[series])
    key = forecasts.key_of(series)
    return ValueFault(
        pointer,
        detail,
        id=key.id,
        cutoff=key.cutoff,
        model=forecasts.models[int(place[1])] if is_model else None,
        side=_SIDES.get(place[1], "prediction"),
        position=position,
        row=forecasts.row_of(series, position),
        index=forecasts.index_of(series, position),
    )
