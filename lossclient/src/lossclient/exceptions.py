"""Everything a call can raise.

::

  LossClientError
  ├── InvalidInput          frame or argument cannot be sent, client is closed (a ValueError)
  ├── TransportError        no answer came: connecting, sending or reading failed, retries included
  ├── DeadlineExceeded      the deadline has passed, here or at the service: 504 (a TimeoutError)
  └── ServiceError          the service answered, but not with scores
      ├── BadRequest        4xx that nothing below names
      ├── Unauthorized      401, 403: no key, or one that the service does not know
      ├── TooLarge          413 for a single series; what has several is split and sent again
      ├── InvalidValues     422: values or options break the contract; ``errors`` says where
      ├── Overloaded        429, 503, still after the retries
      ├── Unavailable       any other 5xx, still after the retries where they may help
      └── UnexpectedAnswer  not the scores that were asked for: a proxy's page, other series
"""

from dataclasses import dataclass


def printable(text: str) -> str:
    r"""Return text whose characters all show, so that a stranger's moves no terminal's cursor.

    Example:
        >>> print(printable("Theta \x1b[2J"))
        Theta \x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class LossClientError(Exception):
    """Whatever went wrong.

    Attributes:
        request_id: The ``X-Request-Id`` of the request that failed, for the service's log; None
            if none was sent.
    """

    request_id: str | None = None


class InvalidInput(LossClientError, ValueError):
    """The frame or an argument cannot be sent, or the client is closed; nothing was sent."""


class TransportError(LossClientError):
    """No answer came. The cause is httpx's error."""


class DeadlineExceeded(LossClientError, TimeoutError):
    """The deadline has passed. The cause, if any, is the error of the last attempt."""


class ServiceError(LossClientError):
    """The service answered, but not with scores.

    Attributes:
        status: Of the answer.
        detail: What the service says is wrong.
        retryable: Whether the service says that trying again may help.
        retry_after_s: When, if it says so.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int = 0,  # pickle creates an error before it sets the attributes
        request_id: str | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.retryable = retryable
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        """Return status, detail and request id in one line."""
        known = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status}: {self.detail}{known}"


class BadRequest(ServiceError):
    """A 4xx that no other class names."""


class Unauthorized(ServiceError):
    """No key, or one that the service does not know."""


class TooLarge(ServiceError):
    """A single series is over a limit of the service, or of a proxy before it."""


@dataclass(frozen=True)
class ValueFault:
    """One fault that the service found, in the caller's terms.

    Attributes:
        pointer: Where it is in the request, as the service said; ``?name`` for an option.
        detail: What is wrong there.
        id: The id of the series; None where the fault is not in one, like all that follow.
        cutoff: Its cutoff, if the frame has one.
        model: The column of predictions; None for the target, and for `score_series`.
        side: ``prediction``, ``target``, ``weight`` or ``scale``.
        position: Of the element in its series, in the order of time.
        row: The row of the frame that holds the element, counted from 0.
        index: Of the element in a series of `score_series` that is nested (T x C).
    """

    pointer: str
    detail: str
    id: object = None
    cutoff: object = None
    model: str | None = None
    side: str | None = None
    position: int | None = None
    row: int | None = None
    index: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """Return place and fault in one line."""
        if self.side is None:
            return f"{self.pointer} {self.detail}"
        place = f"series {self.id!r}"
        if self.cutoff is not None:
            place += f" at cutoff {printable(str(self.cutoff))}"
        if self.model is not None:
            place += f", model {printable(self.model)}"
        place += f": {self.side} {self.position if self.index is None else list(self.index)}"
        if self.row is not None:
            place += f" (row {self.row})"
        return f"{place} {self.detail}"


class InvalidValues(ServiceError):
    """Values or options break the contract.

    Attributes:
        errors: The first faults of the first request that was refused, at most twenty.
        count: How many that request has in all.
    """

    errors: tuple[ValueFault, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        """Return the faults, a line each; a single one is what the first line says."""
        lines = [f"  {fault}" for fault in self.errors if str(fault) != self.detail]
        if self.count > len(self.errors):
            lines.append(f"  and {self.count - len(self.errors)} more")
        return "\n".join([super().__str__(), *lines])


class Overloaded(ServiceError):
    """The service is overloaded, and was in all retries."""


class Unavailable(ServiceError):
    """The service, or a proxy before it, failed."""


class UnexpectedAnswer(ServiceError):
    """Not the scores that were asked for, or none."""
