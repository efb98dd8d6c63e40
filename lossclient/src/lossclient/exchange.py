"""One part of a call from plan to scores: every decision, and no input or output.

`exchange` is a generator, as httpx's own authentication flows are. It yields a `Post`, to be
answered with a reply or httpx's error, or a `Pause`. Both clients drive it, one in threads and
one in tasks, so they cannot differ in what they decide; and tests need neither sockets nor sleep.
"""

import logging
import math
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import pyarrow as pa

from lossclient import wire
from lossclient.exceptions import (
    DeadlineExceeded,
    LossClientError,
    UnexpectedAnswer,
    printable,
)
from lossclient.forecasts import Forecasts
from lossclient.options import ScoreOptions
from lossclient.plan import cut, halve, weight_of
from lossclient.problems import Failure, excerpt, failure_of, unreadable
from lossclient.reading import Reply, coding_of
from lossclient.retries import Retries
from lossclient.wire import Part

_CALL = "lossclient-"
"""How the id of every request of every client begins."""
log = logging.getLogger("lossclient")


@dataclass(frozen=True)
class Post:
    """Send this to ``/score``.

    Attributes:
        query: Parameters.
        headers: Those that this request needs.
        body: In a content coding if ``headers`` say so.
        within_s: The time until the deadline, None without one.
        most_bytes: Of the body of an answer.
    """

    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: memoryview
    within_s: float | None
    most_bytes: int

    def reads(self, headers: Mapping[str, str]) -> bool:
        """Whether the body of an answer is of use: not another request's scores, not packed."""
        is_other = _other_request(headers, self.headers["X-Request-Id"]) is not None
        return not is_other and coding_of(headers) is None


@dataclass(frozen=True)
class Pause:
    seconds: float


Step = Post | Pause
Outcome = Reply | httpx.RequestError | None
"""Of a `Post`, the first two; of a `Pause`, None."""
Answers = list[pa.Table]
"""In the order of series, the models of a series together."""


@dataclass
class SizeLimit:
    """The largest request that the service may take, learned from those that it refused.

    Attributes:
        bytes: Of a body before compression; the same for calls with and without gradients,
            though a service may have refused the answer's size, of which a 413 says nothing.
    """

    bytes: float = math.inf

    def refused(self, body: int) -> None:
        self.bytes = min(self.bytes, body // 2)


@dataclass(frozen=True)
class Surroundings:
    """Clocks and chance: a monotonic clock, the time of day, random numbers in [0, 1)."""

    now: Callable[[], float] = time.monotonic
    today: Callable[[], datetime] = lambda: datetime.now(UTC)
    chance: Callable[[], float] = random.random


@dataclass(frozen=True)
class Rules:
    """What all parts of a call share.

    Attributes:
        size_limit: Shared by all calls of a client.
        deadline: On the clock of the surroundings; None without one.
        compression: A content coding for bodies; None leaves them as they are.
        server: Where the service is, for messages.
        via: Of which proxy, for messages.
        call_id: The beginning of the ids of its requests.
        first: The number of its first series on the wire.
        failures: The error of the last attempt, of whichever part; empty while none has failed.
    """

    options: ScoreOptions
    retries: Retries
    size_limit: SizeLimit
    deadline: float | None = None
    compression: str | None = None
    surroundings: Surroundings = field(default_factory=Surroundings)
    server: str = "the service"
    via: str = ""
    call_id: str = field(default_factory=lambda: f"{_CALL}{secrets.token_hex(8)}")
    first: int = field(default_factory=wire.first_number)
    failures: deque[LossClientError] = field(default_factory=lambda: deque(maxlen=1))

    def left_s(self) -> float | None:
        """Return the time until the deadline.

        Raises:
            DeadlineExceeded: If there is none left.
        """
        if self.deadline is None:
            return None
        left = self.deadline - self.surroundings.now()
        if left <= 0:
            raise self.late("the deadline has passed")
        return left

    def unanswered(self) -> DeadlineExceeded:
        """Return the error of a call whose deadline has passed amid a request."""
        return self.late(f"the deadline has passed before {self.server}{self.via} answered")

    def late(self, reason: str) -> DeadlineExceeded:
        """Return an error that names that of the last attempt, and has it as its cause."""
        last = self.failures[-1] if self.failures else None
        error = DeadlineExceeded(reason if last is None else f"{reason}; the last attempt: {last}")
        error.request_id = None if last is None else last.request_id
        error.__cause__ = last
        return error


def exchange(forecasts: Forecasts, part: Part, rules: Rules) -> Generator[Step, Outcome, Answers]:
    """Score one part, in as many requests as it takes.

    Raises:
        LossClientError: That of the last attempt.
    """
    body = weight_of(forecasts, part)
    if part.rows > 1 and body > rules.size_limit.bytes:
        smaller = list(cut(forecasts, part, int(rules.size_limit.bytes)))
        return (yield from _exchange_each(forecasts, smaller, rules))
    outcome = yield from _attempts(forecasts, part, rules)
    if isinstance(outcome, pa.Table):
        return [outcome]
    if outcome.is_too_large and part.rows > 1:
        answers = yield from _exchange_each(forecasts, halve(forecasts, part), rules)
        # Only now: one series that is too long by itself says nothing about the others.
        rules.size_limit.refused(body)
        return answers
    raise outcome.error


def _exchange_each(
    forecasts: Forecasts, parts: Sequence[Part], rules: Rules
) -> Generator[Step, Outcome, Answers]:
    answers = []
    for part in parts:
        answers += yield from exchange(forecasts, part, rules)
    return answers


def _attempts(
    forecasts: Forecasts, part: Part, rules: Rules
) -> Generator[Step, Outcome, pa.Table | Failure]:
    """Try until there is an answer with scores, or another attempt cannot help."""
    body = wire.encode(forecasts, part, rules.first)
    headers = {
        "Content-Type": wire.MEDIA_TYPE,
        "Accept": wire.MEDIA_TYPE,
        "Accept-Encoding": "identity",  # what is not packed is no larger than it looks
    }
    if rules.compression is not None:
        body = wire.compress(body, rules.compression)
        headers["Content-Encoding"] = rules.compression
    options = rules.options
    query = {**options.query(), **wire.query_of(forecasts)}
    most_bytes = wire.most_answer_bytes(
        forecasts, part, options.loss_count, gradients=options.gradients
    )
    failed = 0
    while True:
        headers["X-Request-Id"] = _request_id(rules, part, failed + 1)
        left_s = rules.left_s()
        if left_s is not None:
            headers["X-Request-Timeout-Ms"] = str(max(1, min(int(left_s * 1000), 999_999_999)))
        post = Post(query, dict(headers), body, left_s, most_bytes)
        outcome = yield post
        result = _read(outcome, forecasts, part, rules, post)
        if isinstance(result, pa.Table):
            return result
        failed += 1
        rules.failures.append(result.error)
        if isinstance(outcome, httpx.TimeoutException):
            rules.left_s()  # it may have been the deadline's
        wait_s = None
        if result.retryable:
            chance = rules.surroundings.chance()
            wait_s = rules.retries.wait_s(failed, result.retry_after_s, chance)
        if wait_s is None:
            return result
        left_s = rules.left_s()
        if left_s is not None and wait_s >= left_s:
            raise rules.late(
                f"{left_s:.3g} s are left, and the next attempt would come after {wait_s:.3g} s"
            )
        log.info("attempt %d failed, next in %.3g s: %s", failed, wait_s, result.error)
        yield Pause(wait_s)


def _request_id(rules: Rules, part: Part, attempt: int) -> str:
    """Return an id that no other request has: parts of a call share no series and model.

    It ends in the numbers of the series, of the models from the first to the last, and the attempt.
    """
    models = f"{part.models[0]}:{part.models[-1] + 1}"
    return f"{rules.call_id}-{part.start}:{part.stop}-{models}-{attempt}"


def _read(
    outcome: Outcome, forecasts: Forecasts, part: Part, rules: Rules, post: Post
) -> pa.Table | Failure:
    request_id = post.headers["X-Request-Id"]
    if outcome is None:
        raise TypeError("a Post is answered with a reply or an error")
    if not isinstance(outcome, httpx.RequestError):
        if other := _other_request(outcome.headers, request_id):
            error = UnexpectedAnswer(
                f"the answer to another request, {printable(other)}: something between this client "
                f"and {rules.server}{rules.via} mixes answers up",
                status=outcome.status_code,
                request_id=request_id,
            )
            return Failure(error, retryable=True)  # another attempt goes over another connection
        if outcome.status_code == 200:
            return _scores(outcome, forecasts, part, rules, post)
    return failure_of(
        outcome,
        forecasts,
        part,
        request_id=request_id,
        server=rules.server,
        via=rules.via,
        now=rules.surroundings.today(),
    )


def _scores(
    reply: Reply, forecasts: Forecasts, part: Part, rules: Rules, post: Post
) -> pa.Table | Failure:
    request_id = post.headers["X-Request-Id"]
    if coding_of(reply.headers) or reply.headers.get("content-type") != wire.MEDIA_TYPE:
        return unreadable(reply, request_id, f"no Arrow stream: {excerpt(reply)}")
    if len(reply.content) > post.most_bytes:
        return unreadable(reply, request_id, f"more than the {post.most_bytes} bytes of those")
    losses, gradients = rules.options.names, rules.options.gradients
    try:
        return wire.decode(
            reply.content, forecasts, part, losses, gradients=gradients, first=rules.first
        )
    except ValueError as error:
        return unreadable(reply, request_id, error)


def _other_request(headers: Mapping[str, str], request_id: str) -> str | None:
    """Return the id of another request that is answered, None if it may be this one.

    Only ids of clients count. Gateways strip the header, or put ids of their own in it (Envoy and
    Istio do); then the numbers of the series decide, which every answer with scores repeats.
    """
    ids = [id_.strip() for id_ in headers.get("x-request-id", "").split(",")]
    if request_id in ids:
        return None
    return next((id_ for id_ in ids if id_.startswith(_CALL)), None)
