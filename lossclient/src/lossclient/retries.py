"""Whether to try again, and when: pure functions, no clock, no chance, no sleep."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from lossclient.arguments import is_count, is_seconds, require

RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How often and how long.

    Attributes:
        attempts: After the first one.
        first_s: The most to wait after the first failure; it doubles with each.
        most_s: The most it doubles to.
        patience_s: A service that asks for a longer wait is considered down.

    Raises:
        InvalidInput: If one is negative, no number, or too large for a clock.
    """

    attempts: int = 5
    first_s: float = 0.25
    most_s: float = 8.0
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        count = self.attempts
        require(is_count(count, 0), "attempts", "a whole number of at least 0", count)
        for name in ("first_s", "most_s", "patience_s"):
            seconds = getattr(self, name)
            require(is_seconds(seconds, zero=True), name, "seconds from 0 to 1e9", seconds)

    def wait_s(self, failed: int, retry_after_s: float | None, chance: float) -> float | None:
        """Return how long to wait before the next attempt; None if there shall be none.

        The wait is spread over all that it may be, so that clients which failed together do not
        come back together. What the service asks for is the least, never cut short.

        Args:
            failed: Attempts so far, at least 1.
            retry_after_s: What the service asks for.
            chance: A random number in [0, 1).

        Example:
            >>> Retries().wait_s(failed=3, retry_after_s=None, chance=0.5)
            0.5
            >>> Retries().wait_s(failed=1, retry_after_s=2.0, chance=0.5)
            2.125
        """
        least = retry_after_s or 0.0
        if failed > self.attempts or least > self.patience_s:
            return None
        doubled: float = self.first_s * 2 ** min(failed - 1, 64)  # a float ends at 2**1023
        return least + chance * min(self.most_s, doubled)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for; None without a valid one.

    Args:
        headers: With names in lower case, or a mapping that ignores case.
        now: With a zone; a date is compared with the answer's own Date if it has one, so that
            the two clocks need not agree.

    Example:
        >>> retry_after_s({"retry-after": "3"}, datetime.now(UTC))
        3.0
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    then = _date(text)
    if then is None:
        return None
    return max(0.0, (then - (_date(headers.get("date", "")) or now)).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
