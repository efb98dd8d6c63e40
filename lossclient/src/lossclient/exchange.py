"""One part of a call from plan to scores: every decision, and no input or output.

`exchange` is a generator, as httpx's own authentication flows are. It yields what to do: a `Post`,
to be answered with the `Reply` or httpx's error, or a `Pause`. The two clients do as they are told,
one in threads and one in tasks, so they cannot differ in what they decide; and tests need neither
sockets nor sleep.
"""

import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import pyarrow as pa

from lossclient import wire
from lossclient.exceptions import DeadlineExceeded, LossClientError
from lossclient.forecasts import Forecasts
from lossclient.options import ScoreOptions
from lossclient.plan import cut, halve, weight_of
from lossclient.problems import Failure, Reply, excerpt, failure_of, unreadable
from lossclient.retries import Retries
from lossclient.wire import Part

log = logging.getLogger("lossclient")


@dataclass(frozen=True)
class Post:
    """Send this to ``/score``.

    Attributes:
        query: Parameters.
        headers: Beside those of the client.
        body: Bytes.
        within_s: How long the answer may take; None without a deadline.
    """

    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: memoryview
    within_s: float | None


@dataclass(frozen=True)
class Pause:
    """Do nothing for so long."""

    seconds: float


Step = Post | Pause
Outcome = Reply | httpx.RequestError | None
"""Of a `Post`, the first two; of a `Pause`, None."""
Answers = list[pa.Table]
"""In the order of series, the models of a series together."""


@dataclass
class Room:
    """How much the service takes at once, as far as it was seen to refuse.

    Attributes:
        most: Bytes of a body before compression; the same for calls with and without gradients,
            though a service may have refused the answer's size, of which a 413 says nothing.
    """

    most: float = math.inf

    def refused(self, body: int) -> None:
        """Learn that a body of so many bytes was too much."""
        self.most = min(self.most, body // 2)


@dataclass(frozen=True)
class Surroundings:
    """What is not pure, in one place.

    Attributes:
        now: Seconds of a clock that never goes back.
        today: The time of day.
        chance: A random number in [0, 1).
    """

    now: Callable[[], float] = time.monotonic
    today: Callable[[], datetime] = lambda: datetime.now(UTC)
    chance: Callable[[], float] = random.random


@dataclass(frozen=True)
class Rules:
    """What all parts of a call share.

    Attributes:
        options: What to compute.
        retries: How often to try.
        room: Shared by all calls of a client.
        deadline: On the clock of the surroundings; None without one.
        compression: A content coding for bodies; None leaves them as they are.
        surroundings: Clock and chance.
        call_id: The beginning of the ids of its requests.
    """

    options: ScoreOptions
    retries: Retries
    room: Room
    deadline: float | None = None
    compression: str | None = None
    surroundings: Surroundings = field(default_factory=Surroundings)
    call_id: str = field(default_factory=lambda: f"lossclient-{secrets.token_hex(8)}")

    def left_s(self, last: LossClientError | None = None) -> float | None:
        """Return the time until the deadline.

        Args:
            last: What the last attempt died of.

        Raises:
            DeadlineExceeded: If there is none left.
        """
        if self.deadline is None:
            return None
        left = self.deadline - self.surroundings.now()
        if left <= 0:
            raise DeadlineExceeded("the deadline has passed") from last
        return left


def exchange(forecasts: Forecasts, part: Part, rules: Rules) -> Generator[Step, Outcome, Answers]:
    """Score one part, in as many requests as it takes.

    Returns:
        Answers, in the order of series, the models of a series together.

    Raises:
        LossClientError: What the last attempt died of.
    """
    body = weight_of(forecasts, part)
    if part.rows > 1 and body > rules.room.most:
        smaller = list(cut(forecasts, part, int(rules.room.most)))
        return (yield from _exchange_each(forecasts, smaller, rules))
    outcome = yield from _attempts(forecasts, part, rules)
    if isinstance(outcome, pa.Table):
        return [outcome]
    if outcome.is_too_large and part.rows > 1:
        answers = yield from _exchange_each(forecasts, halve(forecasts, part), rules)
        # Not before: one series that is too long by itself says nothing about the others.
        rules.room.refused(body)
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
    """Try until it works, or cannot be hoped to."""
    body = wire.encode(forecasts, part)
    headers = {
        "Content-Type": wire.MEDIA_TYPE,
        "Accept": wire.MEDIA_TYPE,
    }
    if rules.compression is not None:
        body = wire.compress(body, rules.compression)
        headers["Content-Encoding"] = rules.compression
    query = {**rules.options.query(), **wire.QUERY}
    failed = 0
    last: LossClientError | None = None
    while True:
        headers["X-Request-Id"] = _request_id(rules, part, failed + 1)
        left_s = rules.left_s(last)
        if left_s is not None:
            headers["X-Request-Timeout-Ms"] = str(max(1, min(int(left_s * 1000), 999_999_999)))
        outcome = yield Post(query, dict(headers), body, left_s)
        result = _read(outcome, forecasts, part, rules, headers["X-Request-Id"])
        if isinstance(result, pa.Table):
            return result
        failed, last = failed + 1, result.error
        wait_s = None
        if result.retryable:
            chance = rules.surroundings.chance()
            wait_s = rules.retries.wait_s(failed, result.retry_after_s, chance)
        if wait_s is None:
            return result
        left_s = rules.left_s(last)
        if left_s is not None and wait_s >= left_s:
            raise DeadlineExceeded(
                f"{left_s:.3g} s are left, and the next attempt would come after {wait_s:.3g} s"
            ) from last
        log.info("attempt %d failed, next in %.3g s: %s", failed, wait_s, last)
        yield Pause(wait_s)


def _request_id(rules: Rules, part: Part, attempt: int) -> str:
    """Return what no other request is called: parts of a call share no series and model.

    It ends in the numbers of the series, of the models from the first to the last, and the attempt.
    """
    models = f"{part.models[0]}:{part.models[-1] + 1}"
    return f"{rules.call_id}-{part.start}:{part.stop}-{models}-{attempt}"


def _read(
    outcome: Outcome, forecasts: Forecasts, part: Part, rules: Rules, request_id: str
) -> pa.Table | Failure:
    if outcome is None:
        raise TypeError("a Post is answered with a Reply or an error")
    if isinstance(outcome, Reply) and outcome.status == 200:
        if outcome.headers.get("content-type") != wire.MEDIA_TYPE:
            return unreadable(outcome, request_id, f"no Arrow stream: {excerpt(outcome)}")
        try:
            losses, gradients = rules.options.losses, rules.options.gradients
            return wire.decode(outcome.body, forecasts, part, losses, gradients=gradients)
        except ValueError as error:
            return unreadable(outcome, request_id, error)
    today = rules.surroundings.today()
    return failure_of(outcome, forecasts, part, request_id=request_id, now=today)
