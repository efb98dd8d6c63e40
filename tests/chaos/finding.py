"""What a scenario measured against what is promised; the verdict is arithmetic, not opinion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One promise and the figure that keeps or breaks it."""

    promise: str
    measured: float
    limit: float
    unit: str = ""
    least: bool = False

    @property
    def passed(self) -> bool:
        """NaN passes nothing."""
        return self.measured >= self.limit if self.least else self.measured <= self.limit

    @property
    def measured_text(self) -> str:
        return _text(self.measured, self.unit)

    @property
    def limit_text(self) -> str:
        bare = (
            ""
            if self.limit == 0 and not self.least
            else ("at least " if self.least else "at most ")
        )
        return bare + _text(self.limit, self.unit)


def _text(number: float, unit: str) -> str:
    if not math.isfinite(number):
        return str(number)
    digits = f"{number:,.0f}" if number == round(number) or abs(number) >= 1000 else f"{number:.3g}"
    return f"{digits} {unit}".strip()


def at_most(promise: str, measured: float, limit: float, unit: str = "") -> Finding:
    return Finding(promise, measured, limit, unit)


def at_least(promise: str, measured: float, limit: float, unit: str = "") -> Finding:
    return Finding(promise, measured, limit, unit, least=True)


def quantile(values: Sequence[float], share: float) -> float:
    """NaN without values, so that nothing measured is nothing kept."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else math.nan


def counts(findings: Sequence[Finding]) -> list[Finding]:
    """Leave times to the scorecard: they are those of the machine, too."""
    return [one for one in findings if one.unit not in {"s", "ms"}]


def check(findings: Sequence[Finding]) -> None:
    """Raise where a promise is broken; print all figures."""
    broken = []
    for one in findings:
        line = f"{one.promise}: {one.measured_text} ({one.limit_text})"
        print(line)
        broken += [] if one.passed else [line]
    assert findings, "a scenario without a finding proves nothing"
    assert not broken, "\n".join(broken)
