"""What is counted of requests, many at a time."""

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from loss_scoring.core import LOSSES
from loss_scoring.service.errors import known_reasons
from loss_scoring.service.telemetry.families import SECONDS, Families

STAGES = ("decode", "queue", "compute", "encode")


class Scored(NamedTuple):
    """What a request was scored for.

    Attributes:
        losses: Their names.
        series: How many.
        elements: How many.
        masked: Elements without a finite quotient, by loss.
    """

    losses: tuple[str, ...]
    series: int
    elements: int
    masked: Mapping[str, int]


class Answered(NamedTuple):
    """A request that was answered, or whose client left.

    Attributes:
        route: The route's path; a client's path would be unbounded.
        format: ``json``, ``arrow`` or ``none``.
        status: Of the answer; 499 if there was none.
        seconds: From the complete head to the end of the answer.
        stages: Seconds by stage.
        reason: Why it was refused.
        scored: What it was scored for.
    """

    route: str
    format: str
    status: int
    seconds: float = 0.0
    stages: Mapping[str, float] = {}
    reason: str | None = None
    scored: Scored | None = None


class RequestMetrics:
    """Counts requests; labels that are known have a count of 0 from the beginning."""

    def __init__(self, families: Families) -> None:
        self._requests = families.counter(
            "requests",
            "Requests answered, refused or left by their client (status 499).",
            *("route", "format", "status"),
        )
        self._refusals = families.counter(
            "refusals",
            "Requests refused, by reason; heads that were too slow or too large as well.",
            "reason",
        )
        self._seconds = families.histogram(
            "request_seconds",
            "Seconds from a scoring request's head to the end of its answer.",
            *(SECONDS, "format"),
        )
        self._stages = families.histogram(
            "stage_seconds", "Seconds of one stage of a scoring request.", SECONDS, "stage"
        )
        self._series = families.counter("scored_series", "Series scored, by loss.", "loss")
        self._elements = families.counter("scored_elements", "Elements scored, by loss.", "loss")
        self._masked = families.counter(
            "masked_elements", "Elements scored without a finite quotient, by loss.", "loss"
        )
        for reason in known_reasons():
            self._refusals.labels(reason)
        for format_ in ("json", "arrow"):
            for status in (200, 429, 500, 503, 504):  # so that `rate` sees the first of each
                self._requests.labels("/score", format_, status)
            self._seconds.of(format_)
        for stage in STAGES:
            self._stages.of(stage)
        for loss in LOSSES.values():
            self._series.labels(loss.name)
            self._elements.labels(loss.name)
            if loss.has_quotient:
                self._masked.labels(loss.name)

    def count(self, answered: Sequence[Answered]) -> None:
        """Count requests."""
        for labels, count in Tally([one[:3] for one in answered]).items():
            self._requests.labels(*labels).inc(count)
        for reason, count in Tally([one.reason for one in answered if one.reason]).items():
            self._refusals.labels(reason).inc(count)
        seconds = defaultdict(list)
        stages = defaultdict(list)
        for one in answered:
            if one.route == "/score":
                seconds[one.format].append(one.seconds)
            for name, amount in one.stages.items():
                stages[name].append(amount)
        for histogram, amounts in ((self._seconds, seconds), (self._stages, stages)):
            for label, some in amounts.items():
                histogram.of(label).observe_all(some)
        self._count_scored([one.scored for one in answered if one.scored is not None])

    def _count_scored(self, scored: Sequence[Scored]) -> None:
        masked: dict[str, int] = defaultdict(int)
        alike: dict[tuple[str, ...], list[Scored]] = defaultdict(list)
        for one in scored:
            alike[one.losses].append(one)
            for loss, count in one.masked.items():
                if count:
                    masked[loss] += count
        for losses, some in alike.items():
            series, elements = (
                sum([one.series for one in some]),
                sum([one.elements for one in some]),
            )
            for loss in losses:
                self._series.labels(loss).inc(series)
                self._elements.labels(loss).inc(elements)
        for loss, count in masked.items():
            self._masked.labels(loss).inc(count)
