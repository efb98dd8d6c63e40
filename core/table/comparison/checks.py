"""The gate: is a model good enough to replace another?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .boards import columns_of
from .frames import Losses, take_scores
from .statistics import Floats, interval, means, resampled_means

Verdict = Literal["passed", "cannot tell", "worse", "not comparable"]


@dataclass(frozen=True)
class Check:
    """One rule, applied to one group of series.

    Attributes:
        group: Values of the columns of ``by``.
        rule: What is asked of the model, in words.
        verdict: ``passed``, ``worse``, ``not comparable``; or, where a confidence is asked for and
            the interval holds what is allowed as well as what is not, ``cannot tell``, which is
            no failure.
        n: How many series were compared.
        num_failures: How many the model has no loss of, of those that it should have.
        loss: Mean loss of the model over the compared series; None where there are none.
        baseline: That of the baseline; None where the rule has none.
        value: What is compared with ``limit``: the relative improvement,
            ``1 - |loss| / |baseline|``, or ``|loss|``.
        lower: Of its interval; None without a confidence.
        upper: Likewise.
        limit: The least improvement, or the greatest loss.
    """

    group: dict[str, Any]
    rule: str
    verdict: Verdict
    n: int
    num_failures: int
    loss: float | None = None
    baseline: float | None = None
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    limit: float | None = None

    def __str__(self) -> str:
        """Return the line that is printed."""
        label = "".join(f", {name}={value}" for name, value in self.group.items())
        series = f"{self.n} series" + (f", {self.num_failures} missing" * bool(self.num_failures))
        if self.loss is None:
            return f"{self.verdict}: {self.rule}{label} ({series})"
        figures = f"{self.loss:.6g}"
        if self.baseline is not None:
            figures += f" against {self.baseline:.6g}, improvement {self.value:.2%}"
        if self.lower is not None:
            form = ".2%" if self.baseline is not None else ".6g"
            figures += f", interval {self.lower:{form}} to {self.upper:{form}}"
        if min(self.loss, self.baseline or 0) < 0:
            series += ", compared without signs"
        return f"{self.verdict}: {self.rule}{label}: {figures} ({series})"


class CheckError(Exception):
    """Not every rule was passed.

    Attributes:
        rows: All of them, passed or not.
    """

    def __init__(self, rows: Sequence[Check]) -> None:
        self.rows = tuple(rows)
        failed = [str(row) for row in rows if row.verdict in ("worse", "not comparable")]
        super().__init__("; ".join(failed))

    def __reduce__(self) -> tuple[type, tuple[tuple[Check, ...]]]:
        return type(self), (self.rows,)


class WorseError(CheckError):
    """The model is worse than a rule allows."""


class NotComparableError(CheckError):
    """Too many series are missing, or none is left; and nothing else is wrong."""


def check(  # noqa: PLR0913 - a choice each, all but the model with a default
    scores: Any,
    *,
    model: str,
    baseline: str | None = None,
    loss: str = "smape",
    max: float | None = None,  # noqa: A002 - the flag of the command line
    min_relative_improvement: float | None = None,
    by: str | Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    confidence: float | None = None,
    max_missing: float = 0.0,
    n_resamples: int = 1000,
    seed: int = 123,
) -> tuple[Check, ...]:
    """Tell whether a model is good enough, and raise if it is not.

    Compared are means of the loss over the series that model and baseline share, each series
    counting once; where losses have a sign, as bias has, the mean that is nearer to 0 is the better
    one, as in ``leaderboard``. Without a threshold the model must be no worse than the baseline.

    Args:
        scores: A row a series and model, as of ``leaderboard``.
        model: The model to judge.
        baseline: The model that it must not be worse than.
        loss: The column to compare by, lower being better, and nearer to 0 where losses have a
            sign.
        max: The greatest mean loss that is allowed, over the series that the model has; with a
            sign, how far it may be from 0.
        min_relative_improvement: The least ``(|baseline| - |loss|) / |baseline|``.
        by: Columns that name groups of series; each must pass.
        keys: The columns that together name a series; default those left of ``model``.
        confidence: Share of the resamples that the bootstrap's interval holds; then only a whole
            interval beyond the limit is a failure, and one on both sides of it ``cannot tell``.
            Default: the means decide.
        max_missing: The greatest share of the series that the model may lack: of those of the
            baseline, or without one of all. 0 by default, as nobody knows how a model does on
            series that it left out.
        n_resamples: How many times series are drawn with replacement.
        seed: Of the draws.

    Returns:
        A row a rule and group: none of them failed.

    Raises:
        WorseError: If a rule is broken; ``rows`` of it has all rows.
        NotComparableError: If none is broken, but in a group too many series are missing, or none
            is left.
        ScoresError: If a column or a model is absent, or a row is there twice.
        ValueError: If there is neither a baseline nor ``max``, or a number is out of its range.

    Example:
        >>> import pyarrow as pa
        >>> scores = pa.table({"unique_id": ["a", "a", "b", "b"], "model": ["Old", "New"] * 2,
        ...                    "smape": [0.4, 0.3, 0.2, 0.1]})
        >>> (row,) = check(scores, model="New", baseline="Old", min_relative_improvement=0.05)
        >>> row.verdict, row.loss < row.baseline
        ('passed', True)
        >>> try:
        ...     check(scores, model="Old", baseline="New")
        ... except CheckError as error:
        ...     print(error.rows[0].verdict, error.rows[0].loss, error.rows[0].baseline)
        worse 0.30000000000000004 0.2
    """
    _refuse_arguments(model, baseline, max, min_relative_improvement, max_missing)
    if confidence is not None and not (0 < confidence < 1 <= n_resamples):
        raise ValueError(
            f"confidence is {confidence} with {n_resamples} resamples; it must be between 0 and 1, "
            "of one resample or more"
        )
    names = (by,) if isinstance(by, str) else tuple(by or ())
    read = take_scores(scores, [loss], names, keys)
    read.require([model] if baseline is None else [model, baseline])
    if baseline is not None:
        read = read.select([model, baseline])
    rows = []
    for group, losses in read.groups(loss):
        named = {name: column[0].as_py() for name, column in columns_of(group)}
        judge = _Judge(losses, named, max_missing, confidence, n_resamples, seed)
        with np.errstate(all="ignore"):
            if baseline is not None:
                rows.append(judge.improvement(loss, model, baseline, min_relative_improvement))
            if max is not None:
                rows.append(judge.ceiling(loss, model, max))
    verdicts = {row.verdict for row in rows}
    if "worse" in verdicts:
        raise WorseError(rows)
    if "not comparable" in verdicts:
        raise NotComparableError(rows)
    return tuple(rows)


def _refuse_arguments(
    model: str,
    baseline: str | None,
    most: float | None,
    min_relative_improvement: float | None,
    max_missing: float,
) -> None:
    if baseline is None and most is None:
        raise ValueError("name a baseline or a max to check the model by")
    if baseline is None and min_relative_improvement is not None:
        raise ValueError("min_relative_improvement needs a baseline")
    if baseline == model:
        raise ValueError(f"{model!r} is the model and its own baseline")
    if not 0 <= max_missing <= 1:
        raise ValueError(f"max_missing is {max_missing}; it is a share, from 0 to 1")


@dataclass(frozen=True)
class _Judge:
    """Applies rules to one group of series."""

    losses: Losses
    group: dict[str, Any]
    max_missing: float
    confidence: float | None
    n_resamples: int
    seed: int

    def improvement(self, loss: str, model: str, baseline: str, least: float | None) -> Check:
        """Compare with a baseline."""
        names = self.losses.models
        sides = self.losses.values[:, [names.index(model), names.index(baseline)]]
        rule = f"{loss} of {model} no worse than that of {baseline}"
        if least is not None:
            rule = f"{loss} of {model} at least {100 * least:.4g}% below that of {baseline}"

        def relative(pairs: Floats) -> Floats:
            own, other = pairs[..., 0], pairs[..., 1]
            return np.where(own == other, 0.0, (other - own) / other)

        expected = ~np.isnan(sides[:, 1])
        return self._judge(rule, sides, expected, relative, least or 0.0)

    def ceiling(self, loss: str, model: str, most: float) -> Check:
        """Compare with a number."""
        sides = self.losses.values[:, [self.losses.models.index(model)]]
        expected = np.ones(len(sides), np.bool_)
        rule = f"{loss} of {model} at most {most:.6g}"
        return self._judge(rule, sides, expected, lambda means: means[..., 0], most)

    def _judge(
        self,
        rule: str,
        sides: Floats,
        expected: NDArray[np.bool_],
        statistic: Callable[[Floats], Floats],
        limit: float,
    ) -> Check:
        """Judge a statistic of |mean loss|: of two models it must not be less, of one not more."""
        missing = int((expected & np.isnan(sides[:, 0])).sum())
        compared = Losses((), sides).common().ordered().values
        if not len(compared) or missing > self.max_missing * expected.sum():
            return Check(self.group, rule, "not comparable", len(compared), missing, limit=limit)
        average = means(compared)
        value = low = high = float(statistic(np.abs(average)))
        if self.confidence is not None:
            resampled = np.abs(resampled_means(compared, self.n_resamples, self.seed))
            low, high = map(float, interval(statistic(resampled), self.confidence))
        worst, best = (
            (low - limit, high - limit) if len(average) > 1 else (limit - high, limit - low)
        )
        verdict: Verdict = "passed" if worst >= 0 else "cannot tell" if best >= 0 else "worse"
        sure = self.confidence is not None
        return Check(
            self.group,
            rule,
            verdict,
            len(compared),
            missing,
            loss=float(average[0]),
            baseline=float(average[1]) if len(average) > 1 else None,
            value=value,
            lower=low if sure else None,
            upper=high if sure else None,
            limit=limit,
        )
