"""Why a request can be refused or fail, with the status of its answer.

ServiceError
├── MalformedError         400  not HTTP
├── UnreadableError        400  the body is not what its content type says
├── UnauthorizedError      401  no key
│   └── UnknownKeyError         a key that is not valid
├── NotAcceptableError     406  no format that Accept allows
├── LateError              408  the client did not send in time
├── TooLargeError          413  over a limit of this server
├── UnsupportedMediaError  415  a content type that is not supported
│   └── UnsupportedCodingError  a content coding that is not
├── ExpectationError       417  Expect asks for what is not known
├── InvalidError           422  readable, but values or options break the contract
├── OverShareError         429  this client's requests take what others need
├── HeadTooLargeError      431  request line and headers are over a limit of this server
├── ScoringError           500  the device failed on this request
├── UnimplementedError     501  a method or transfer coding that is not known
├── OverloadedError        503  the server is full, or not ready
└── DeadlineError          504  the answer was not there in time
"""

import errno
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt

MAX_LISTED_ERRORS = 20
_EXHAUSTED_RETRY_S = 5


def printable(text: str) -> str:
    r"""Return text whose characters all show: a stranger's neither move cursors nor end lines.

    >>> print(printable("Theta \x1b[2J\n"))
    Theta \x1b[2J\n
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclass(frozen=True)
class FieldError:
    """One fault and where it is.

    Attributes:
        pointer: JSON Pointer (RFC 6901) into the request; for Arrow ``/column/row/position``;
            for a query parameter ``?name``.
        detail: What is wrong there.
    """

    pointer: str
    detail: str


class ServiceError(Exception):
    """A request that cannot be answered, and why, in words for its sender."""

    status: ClassVar[int]
    slug: ClassVar[str]
    title: ClassVar[str]
    retryable: ClassVar[bool] = False
    retry_after_s: int | None = None
    reasons: ClassVar[Sequence[str]] = ()
    """What operators call the causes of an error that has several."""
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Headers of the answer."""
    _reason: str | None = None

    @property
    def reason(self) -> str:
        """What operators call it: a name out of a short list."""
        return self._reason or self.slug


class MalformedError(ServiceError):
    """What came is not HTTP."""

    status, slug, title = 400, "malformed", "The request is not valid HTTP"


class UnreadableError(ServiceError):
    """The body is not what its content type says."""

    status, slug, title = 400, "unreadable", "The body cannot be read"


class UnauthorizedError(ServiceError):
    """No key, or one that is not valid."""

    status, slug, title = 401, "unauthorized", "A key is needed"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class UnknownKeyError(UnauthorizedError):
    """A key that is not valid."""

    slug, title = "unknown-key", "The key is not known"
    headers = MappingProxyType({"WWW-Authenticate": 'Bearer error="invalid_token"'})


class NotAcceptableError(ServiceError):
    """No format that the Accept header allows."""

    status, slug, title = 406, "not-acceptable", "No acceptable format"


class LateError(ServiceError):
    """The client did not send its request in time; the rest of it would be misread."""

    status, slug, title = 408, "late", "The request did not arrive in time"
    retryable = True
    headers = MappingProxyType({"Connection": "close"})


class TooLargeError(ServiceError):
    """Over a limit of this server; smaller requests are welcome."""

    status, slug, title = 413, "too-large", "The request is too large"


class UnsupportedMediaError(ServiceError):
    """A content type that is not supported."""

    status, slug, title = 415, "unsupported-media-type", "The content type is not supported"


class UnsupportedCodingError(UnsupportedMediaError):
    """A content coding that is not supported."""

    slug, title = "unsupported-coding", "The content coding is not supported"
    headers = MappingProxyType({"Accept-Encoding": "gzip, zstd"})


class ExpectationError(ServiceError):
    """Expect asks for what is not known."""

    status, slug, title = 417, "expectation", "The expectation cannot be met"


class InvalidError(ServiceError):
    """Readable, but values or options break the contract.

    Args:
        detail: One sentence on the whole.
        errors: The first faults found, at most ``MAX_LISTED_ERRORS``.
        count: How many there are in all.
    """

    status, slug, title = 422, "invalid", "The request is invalid"

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = (), count: int = 0) -> None:
        super().__init__(detail)
        self.errors = errors
        self.count = max(count, len(errors))


class UsageError(Exception):
    """A command line that asks for what it cannot mean. No request is refused with it."""


class HeadTooLargeError(ServiceError):
    """Request line and headers are over a limit of this server."""

    status, slug, title = 431, "head-too-large", "The headers are too large"


class ScoringError(ServiceError):
    """The device failed on this request; its neighbours in the batch were answered."""

    status, slug, title = 500, "scoring-failed", "The scores could not be computed"
    retryable = True


class UnimplementedError(ServiceError):
    """A part of HTTP that this server does not have."""

    status, slug, title = 501, "not-implemented", "This part of HTTP is not implemented"


class _BusyError(ServiceError):
    """Come back later.

    Args:
        detail: One sentence.
        retry_after_s: When the request may be accepted.
        reason: One of ``reasons``, for operators.
    """

    retryable = True

    def __init__(self, detail: str, retry_after_s: int = 1, *, reason: str | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self._reason = reason


class OverShareError(_BusyError):
    """It would be accepted, if other requests of the client did not take so much."""

    status, slug, title = 429, "over-share", "This client uses too much of the server"
    reasons = ("queue-share", "memory-share")


class OverloadedError(_BusyError):
    """The server is full, starting or stopping."""

    status, slug, title = 503, "overloaded", "The server cannot take this request now"
    reasons = ("queue-full", "memory-full", "starting", "not-ready", "device-lost", "exhausted")


class DeadlineError(ServiceError):
    """The answer was not there in time; what was not computed by then never is."""

    status, slug, title = 504, "deadline", "The deadline has passed"
    retryable = True


_EXHAUSTED = ("out of memory", "allocate memory", "not enough memory", "start new thread")
"""What RuntimeErrors of torch and threading say, and OSErrors of Arrow's decompressors."""


def is_exhausted(error: BaseException) -> bool:
    """Tell whether an error says that the machine, or its device, has no memory or thread left."""
    if isinstance(error, OSError) and error.errno in {errno.ENOMEM, errno.ENOSPC}:
        return True
    speaks = isinstance(error, RuntimeError | OSError)
    return isinstance(error, MemoryError) or (
        speaks and any(text in str(error) for text in _EXHAUSTED)
    )


def refusal_of(error: BaseException) -> ServiceError | None:
    """Return what a request that failed with an error is refused with; None if it is a defect.

    A reader may have taken want of memory for a fault of the body: the cause decides.
    """
    cause: BaseException | None = error
    while cause is not None:
        if is_exhausted(cause):
            return OverloadedError(
                "the machine has too little memory or too few threads; try again later",
                _EXHAUSTED_RETRY_S,
                reason="exhausted",
            )
        cause = cause.__cause__ or cause.__context__
    return error if isinstance(error, ServiceError) else None


def forget_frames(error: BaseException | None) -> None:
    """Drop the variables of the calls that raised an error.

    They, or what waits for the error, refer to it again, so that only the garbage collector would
    release them: the bodies of requests that were refused.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@dataclass
class Faults:
    """Faults of a request: the first few, and the count of all.

    Attributes:
        first: At most ``MAX_LISTED_ERRORS``.
        count: How many were found.
        is_complete: Whether all of the request was checked.
    """

    first: list[FieldError] = field(default_factory=list)
    count: int = 0
    is_complete: bool = True

    def add(self, pointer: str, detail: str) -> None:
        """Add a fault."""
        self.count += 1
        if len(self.first) < MAX_LISTED_ERRORS:
            self.first.append(FieldError(pointer, detail))

    def add_each(
        self, places: Sequence[int] | npt.NDArray[np.int64], fault: Callable[[int], tuple[str, str]]
    ) -> None:
        """Add a fault for each place; only those that are listed are worded."""
        listed = places[: MAX_LISTED_ERRORS - len(self.first)]
        for place in listed:
            self.add(*fault(place))
        self.count += len(places) - len(listed)

    def check(self) -> None:
        """Raise ``InvalidError`` if there was any fault."""
        if not self.count:
            return
        only = self.first[0]
        where = f"{only.pointer}: " if only.pointer else ""
        counted = f"{self.count} faults" if self.is_complete else f"at least {self.count} faults"
        detail = where + only.detail if self.count == 1 else f"{counted} were found"
        if self.count > len(self.first):
            detail += f"; the first {len(self.first)} are listed"
        raise InvalidError(detail, tuple(self.first), self.count)


def known_reasons() -> list[str]:
    """Return everything that ``ServiceError.reason`` may be."""
    found: dict[str, None] = {}
    kinds = ServiceError.__subclasses__()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if hasattr(kind, "slug"):
            found.update(dict.fromkeys((kind.slug, *kind.reasons)))
    return sorted(found)
