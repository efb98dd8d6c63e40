"""What did not work, as an exception in the caller's terms, and whether to try it again."""

import json
import re
from collections.abc import Mapping
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
)
from lossclient.forecasts import Forecasts
from lossclient.retries import RETRYABLE_STATUSES, retry_after_s
from lossclient.wire import TARGET, Part

_IN_SERIES = re.compile(rf"/({TARGET}|\d{{1,18}})/(\d{{1,18}})")
"""The target or a model, and the row in the request."""
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
class Reply:
    """An answer of whatever kind.

    Attributes:
        status: Of the answer.
        headers: A mapping that ignores case.
        body: All of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Failure:
    """An attempt that brought no scores.

    Attributes:
        error: What to raise if it was the last one.
        retryable: Whether another may help.
        retry_after_s: When, if the service says so.
    """

    error: LossClientError
    retryable: bool
    retry_after_s: float | None = None

    @property
    def is_too_large(self) -> bool:
        """Whether less at once may work."""
        return isinstance(self.error, TooLarge)


def failure_of(
    outcome: Reply | httpx.RequestError,
    forecasts: Forecasts,
    part: Part,
    *,
    request_id: str,
    now: datetime,
) -> Failure:
    """Say what an attempt died of.

    Args:
        outcome: Anything but an answer with scores.
        forecasts: The series.
        part: Those that were sent.
        request_id: That was sent along.
        now: The time of day, aware.
    """
    if isinstance(outcome, httpx.RequestError):
        return _of_transport(outcome, request_id)
    problem = _problem(outcome)
    detail = problem.get("detail") or problem.get("title") or excerpt(outcome)
    request_id = outcome.headers.get("x-request-id", request_id)
    says = problem.get("retryable") is True
    after = retry_after_s(outcome.headers, now)
    retryable = says or outcome.status in RETRYABLE_STATUSES
    if outcome.status == 504:
        late = DeadlineExceeded(f"504: {detail} (request {request_id})")
        late.request_id = request_id
        return Failure(late, retryable, after)
    error = _class_of(outcome.status)(
        str(detail),
        status=outcome.status,
        request_id=request_id,
        retryable=says,
        retry_after_s=after,
    )
    if isinstance(error, InvalidValues):
        error.errors = _faults(problem, forecasts, part)
        count = problem.get("error_count")
        error.count = max(count if isinstance(count, int) else 0, len(error.errors))
    elif isinstance(error, TooLarge) and part.series == 1:
        key = forecasts.key_of(part.start)
        error.add_note(f"It held one series only: {key.id!r}")
    return Failure(error, retryable, after)


def unreadable(reply: Reply, request_id: str, reason: Exception | str) -> Failure:
    """Say that an answer with status 200 is not the scores that were asked for."""
    error = UnexpectedAnswer(
        f"not the scores that were asked for: {reason}",
        status=reply.status,
        request_id=reply.headers.get("x-request-id", request_id),
    )
    return Failure(error, retryable=False)


def _of_transport(error: httpx.RequestError, request_id: str) -> Failure:
    wrapped = TransportError(f"no answer to request {request_id}: {type(error).__name__}: {error}")
    wrapped.request_id = request_id
    wrapped.__cause__ = error
    return Failure(wrapped, not isinstance(error, _HOPELESS))


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
        problem = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def excerpt(reply: Reply) -> str:
    """Return the beginning of an answer that is text."""
    return reply.body[:200].decode("utf-8", "replace").strip() or "no body"


def _faults(problem: Mapping[str, Any], forecasts: Forecasts, part: Part) -> tuple[ValueFault, ...]:
    faults = problem.get("errors")
    return tuple(
        _fault(str(fault.get("pointer")), str(fault.get("detail")), forecasts, part)
        for fault in (faults if isinstance(faults, list) else ())
        if isinstance(fault, dict)
    )


def _fault(pointer: str, detail: str, forecasts: Forecasts, part: Part) -> ValueFault:
    place = _IN_SERIES.fullmatch(pointer)
    if place is None:
        return ValueFault(pointer, detail)
    is_target = place[1] == TARGET
    element = int(forecasts.offsets[part.start]) + int(place[2])
    if element >= forecasts.offsets[part.stop] or not (is_target or int(place[1]) in part.models):
        return ValueFault(pointer, detail)
    series = int(np.searchsorted(forecasts.offsets, element, side="right")) - 1
    position = element - int(forecasts.offsets[series])
    key = forecasts.key_of(series)
    return ValueFault(
        pointer,
        detail,
        id=key.id,
        cutoff=key.cutoff,
        model=None if is_target else forecasts.models[int(place[1])],
        side="target" if is_target else "prediction",
        position=position,
        row=forecasts.row_of(series, position),
    )
