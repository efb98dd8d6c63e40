"""Leaderboards and pairwise comparisons of models."""

import html
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from .frames import Losses, Scores, ScoresError, ScoresInParts, take_scores
from .statistics import Floats, interval, log_ratios, means, ranks, resampled_means

Missing = Literal["common", "error", "impute"]
_BOUNDS = ("_lower", "_upper")
_SHOWN = 20
"""Lines of notes."""


@dataclass(frozen=True, eq=False, repr=False)
class Leaderboard:
    """A row a model, or a pair of models, the best first; see ``leaderboard`` and ``pairwise``.

    It is printed as a table, in a notebook too, and any library that reads ``__arrow_c_stream__``
    takes it as it is.

    Attributes:
        table: What it says.
        notes: Which series were left out or filled in, and because of which models, in words.
    """

    table: pa.Table
    notes: tuple[str, ...] = ()

    def to_arrow(self) -> pa.Table:
        """Return the rows as a table of pyarrow."""
        return self.table

    def to_pandas(self) -> Any:
        """Return the rows as a frame of pandas."""
        return self.table.to_pandas()

    def to_polars(self) -> Any:
        """Return the rows as a frame of polars."""
        import polars as pl  # noqa: PLC0415 - of the caller

        return pl.from_arrow(self.table)

    def to_markdown(self) -> str:
        """Return the rows as a table of Markdown."""
        names, rows = self.shown()
        rule = ["---:" if aligned else "---" for aligned in self._right()]
        escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]
        return "".join(f"| {' | '.join(row)} |\n" for row in [names, rule, *escaped])

    def shown(self) -> tuple[list[str], list[list[str]]]:
        """Return the headings and cells to print: six digits, bounds beside what they bound."""
        names = [name for name in self.table.column_names if not name.endswith(_BOUNDS)]
        rows = []
        for row in self.table.to_pylist():
            cells = {name: _text(cell) for name, cell in row.items()}
            for name in names:
                if row.get(f"{name}_lower") is not None:
                    low, high = (f"{row[name + bound]:.3g}" for bound in _BOUNDS)
                    cells[name] = f"{row[name]:.3g} ({low} to {high})"
            rows.append([cells[name] for name in names])
        return names, rows

    def _right(self) -> list[bool]:
        """Tell which of the shown columns hold numbers, so that they are aligned to the right."""
        fields = [field for field in self.table.schema if not field.name.endswith(_BOUNDS)]
        return [pa.types.is_floating(x.type) or pa.types.is_integer(x.type) for x in fields]

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        names, rows = self.shown()
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        sizes = list(zip(self._right(), widths, strict=True))
        lines = [
            "  ".join(
                text.rjust(width) if right else text.ljust(width)
                for text, (right, width) in zip(row, sizes, strict=True)
            ).rstrip()
            for row in [names, *rows]
        ]
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        def line(cell: str, texts: Iterable[str]) -> str:
            return f"<tr>{''.join(f'<{cell}>{html.escape(x)}</{cell}>' for x in texts)}</tr>"

        names, rows = self.shown()
        body = "".join(line("td", row) for row in rows)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<table><thead>{line('th', names)}</thead><tbody>{body}</tbody></table>{notes}"


def _text(cell: Any) -> str:
    if cell is None:
        return "-"
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def leaderboard(  # noqa: PLR0913 - a choice each, all with a default
    scores: Any,
    loss: str | Sequence[str] = "smape",
    *,
    baseline: str | None = None,
    missing: Missing = "common",
    weights: str | None = None,
    by: str | Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 123,
) -> Leaderboard:
    """Compare models on the series that all of them have.

    Names and formulas are those of ``fev.leaderboard``, where it has them; a series is what a task
    is there. Sums are exact: a mean has the same bits in whatever order and parts the series were
    scored.

    Args:
        scores: A row a series and model, as ``score_table``, the client and the command line give
            them: a frame of pandas, polars or pyarrow.
        loss: The column to compare by, lower being better, and nearer to 0 where losses have a
            sign, as bias has; or several, of which each is compared by itself.
        baseline: A model whose loss is the unit of the skill score.
        missing: What a series does that some model has no loss of. ``common``: it is left out, for
            all models; a model without any loss is listed, and not waited for. ``error``: it is
            refused. ``impute``: the model gets the baseline's loss.
        weights: What a series weighs in ``mean``: ``"length"``, which makes it a mean over
            elements, or another column. Default: all series alike.
        by: Columns that name groups of series, each with a leaderboard of its own.
        keys: The columns that together name a series; default those left of ``model``.
        n_resamples: How many times series are drawn with replacement for the intervals; 0 for
            none.
        confidence: Share of the resamples that an interval holds.
        seed: Of the draws.

    Returns:
        A row a model, the lowest mean first, with the columns

        - ``loss``, those of ``by``, ``model``;
        - ``n``: how many series were compared;
        - ``mean`` and ``median`` of the loss over them, null where there are none;
        - ``avg_rank``: the mean of its ranks, from 1; equal losses share the mean of theirs;
        - ``wins``: on how many series no model has a lower loss;
        - ``win_rate``: the share of series on which it beats another model, ties half, mean over
          the other models;
        - with a baseline ``skill_score``: 1 - the geometric mean of its loss / the baseline's,
          each between 0.01 and 100; 1 where both are equal, be it 0;
        - ``win_rate_lower``, ``win_rate_upper``, ``skill_score_lower``, ``skill_score_upper``:
          percentile intervals of the bootstrap over series;
        - ``num_failures``: of how many series it has no loss, compared or not;
        - ``masked``: how many elements of the compared series have no finite quotient, where the
          scores say so.

    Raises:
        ScoresError: If a column or the baseline is absent, a row is there twice, or a loss is
            missing and ``missing`` does not allow it.
        ValueError: If an argument has none of its values.

    Example:
        >>> import pyarrow as pa
        >>> scores = pa.table({"unique_id": ["a", "a", "b", "b", "c"],
        ...                    "model": ["Naive", "Theta", "Naive", "Theta", "Theta"],
        ...                    "mae": [2.0, 1.0, 4.0, 1.0, 9.0]})
        >>> leaderboard(scores, "mae", baseline="Naive", n_resamples=0)
        loss  model  n  mean  median  avg_rank  wins  win_rate  skill_score  num_failures
        mae   Theta  2     1       1         1     2         1     0.646447             0
        mae   Naive  2     3       3         2     0         0            0             1
        mae: 2 of 3 series are compared; Naive has none for 1
    """

    def board(losses: Losses, whole: Losses) -> pa.Table:
        values, models = losses.values, losses.models
        sizes = np.abs(values) if np.signbit(values).any() else values
        ranked, best = ranks(sizes)
        columns: dict[str, Any] = {
            "model": models,
            "n": np.full(len(models), len(values)),
            "mean": means(values, losses.weights),
            "median": [np.median(column) if len(column) else np.nan for column in values.T],
            "avg_rank": _mean_of_halves(ranked),
            "wins": best.sum(axis=0),
        }
        ratios = None
        if baseline is not None:
            ratios = log_ratios(sizes, sizes[:, [models.index(baseline)]])
        # The last of M models, at rank M, beats none, and one more with each rank.
        beaten = np.subtract(len(models), ranked, out=ranked)
        columns |= resampling.win_rate_and_skill(beaten, len(models) - 1, ratios)
        failures = dict(zip(whole.models, whole.missing.tolist(), strict=True))
        columns["num_failures"] = [failures.pop(model) for model in models]
        if losses.masked is not None:
            columns["masked"] = losses.masked.sum(axis=0, dtype=np.int64)
        order = sorted(range(len(models)), key=lambda i: (abs(columns["mean"][i]), models[i]))
        rows = _table(columns).take(order)
        absent = {"model": failures.keys(), "n": [0] * len(failures)}
        absent |= {"num_failures": failures.values()}
        return pa.concat_tables([rows, _table(absent)], promote_options="default")

    resampling = _Resampling(n_resamples, confidence, seed)
    read = take_scores(scores, _names(loss), _names(by), keys)
    return _compare(
        read, _names(loss), board, missing, baseline, weights, resampled=n_resamples > 0
    )


def pairwise(  # noqa: PLR0913 - a choice each, all with a default
    scores: Any,
    loss: str | Sequence[str] = "smape",
    *,
    baseline: str | None = None,
    missing: Missing = "common",
    by: str | Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 123,
) -> Leaderboard:
    """Compare each model with each other on the series that all of them have.

    Names and formulas are those of ``fev.pairwise_comparison``.

    Args:
        scores: As of ``leaderboard``, and so are the other arguments.
        loss: The column to compare by, or several.
        baseline: The model whose losses fill in where ``missing`` is ``impute``.
        missing: What a series does that some model has no loss of.
        by: Columns that name groups of series.
        keys: The columns that together name a series.
        n_resamples: How many times series are drawn; 0 for no intervals.
        confidence: Share of the resamples that an interval holds.
        seed: Of the draws.

    Returns:
        A row a pair, models in the order of their mean rank, with the columns ``loss``, those of
        ``by``, ``model_1``, ``model_2``, ``n``, ``win_rate`` (the share of series on which the
        first has the lower loss, ties half) and ``skill_score`` (1 - the geometric mean of loss of
        the first / that of the second, each between 0.01 and 100), both with ``_lower`` and
        ``_upper``.

    Raises:
        ScoresError: As ``leaderboard`` does.
        ValueError: Likewise.

    Example:
        >>> import pyarrow as pa
        >>> scores = pa.table({"unique_id": ["a", "a", "b", "b"], "model": ["A", "B"] * 2,
        ...                    "mae": [2.0, 1.0, 4.0, 1.0]})
        >>> pairwise(scores, "mae", n_resamples=0).to_arrow().to_pylist()[1]["skill_score"]
        0.6464466094067263
    """

    def pairs(losses: Losses, _whole: Losses) -> pa.Table:
        sizes = np.abs(losses.values)
        order = np.argsort(_mean_of_halves(ranks(sizes)[0]), kind="stable")
        values, models = sizes[:, order], [losses.models[i] for i in order]
        first, second = (index.reshape(-1) for index in np.indices((len(models), len(models))))
        own, other = values[:, first], values[:, second]
        return _table(
            {
                "model_1": [models[i] for i in first],
                "model_2": [models[i] for i in second],
                "n": np.full(len(first), len(values)),
                **resampling.win_rate_and_skill(
                    (own < other) + 0.5 * (own == other), 1, log_ratios(own, other)
                ),
            }
        )

    resampling = _Resampling(n_resamples, confidence, seed)
    read = take_scores(scores, _names(loss), _names(by), keys)
    return _compare(read, _names(loss), pairs, missing, baseline, None, resampled=n_resamples > 0)


@dataclass(frozen=True)
class _Resampling:
    """How intervals are made."""

    n_resamples: int
    confidence: float
    seed: int

    def __post_init__(self) -> None:
        if self.n_resamples < 0:
            raise ValueError(f"n_resamples is {self.n_resamples}; it must not be negative")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}; it must be between 0 and 1")

    def win_rate_and_skill(
        self, beaten: Floats, opponents: int, ratios: Floats | None
    ) -> dict[str, Floats]:
        """Return the columns of both, with their bounds; without ratios there is no skill."""
        sides = [beaten] if ratios is None else [beaten, ratios]
        both = np.concatenate(sides, axis=1) if len(sides) > 1 else beaten
        resampled = resampled_means(both, self.n_resamples, self.seed)
        wins, logs = np.split(resampled, [beaten.shape[1]], axis=1)
        columns = {"win_rate": _mean_of_halves(beaten) / opponents}
        columns |= self._bounds("win_rate", wins / opponents)
        if ratios is not None:
            columns["skill_score"] = 1 - np.exp(means(ratios))
            columns |= self._bounds("skill_score", 1 - np.exp(logs))
        return columns

    def _bounds(self, name: str, resampled: Floats) -> dict[str, Floats]:
        if not self.n_resamples:
            return {}
        lower, upper = interval(resampled, self.confidence)
        return {f"{name}_lower": lower, f"{name}_upper": upper}


def _mean_of_halves(values: Floats) -> Floats:
    """Return the mean of columns of halves, whose sums are exact as they are."""
    return values.sum(axis=0) / len(values)  # type: ignore[no-any-return]


def _compare(  # noqa: PLR0913, PLR0917 - what two public functions share
    scores: Scores | ScoresInParts,
    losses: Sequence[str],
    statistic: Callable[[Losses, Losses], pa.Table],
    missing: Missing,
    baseline: str | None,
    weights: str | None,
    *,
    resampled: bool,
) -> Leaderboard:
    """Apply a statistic of the compared series, and of all series, to each loss and group."""
    if missing not in get_args(Missing):
        raise ValueError(f"missing is {missing!r}; it must be 'common', 'error' or 'impute'")
    if missing == "impute" and baseline is None:
        raise ValueError("missing='impute' needs a baseline, whose losses fill in")
    if baseline is not None:
        scores.require([baseline])
    tables: list[pa.Table] = []
    notes: dict[str, list[str]] = {}
    for loss in losses:
        for group, whole in scores.groups(loss, weights):
            label = loss + spell(group)
            note = _note(whole, missing, baseline)
            if note and missing == "error":
                raise ScoresError(f"{label}: {note}; missing='common' leaves such series out")
            if missing == "impute" and baseline is not None:
                compared = whole.imputed(_complete(label, whole, baseline))
            else:
                compared = whole.present(baseline).common()
            with np.errstate(all="ignore"):
                rows = statistic(compared.ordered() if resampled else compared, whole)
            repeated = pa.array(np.zeros(len(rows), np.int64))
            head = {"loss": pa.array([loss] * len(rows), pa.string())}
            head |= {name: column.take(repeated) for name, column in columns_of(group)}
            tables.append(pa.table(head | dict(columns_of(rows))))
            if note:
                notes.setdefault(f"{spell(group)}: {note}", []).append(loss)
    lines = [f"{', '.join(named)}{note}" for note, named in notes.items()]
    more = [f"and {len(lines) - _SHOWN} more such lines"] if len(lines) > _SHOWN else []
    table = pa.concat_tables(tables, promote_options="default")  # not every loss is masked
    return Leaderboard(table, tuple(lines[:_SHOWN] + more))


def _note(whole: Losses, missing: Missing, baseline: str | None) -> str:
    """Return what is not compared as it is, and why, in words; empty if all is."""
    if not whole.missing.any():
        return ""
    series, common = len(whole.values), len(whole.present(baseline).common().values)
    lacking = sorted(zip(whole.missing.tolist(), whole.models, strict=True), reverse=True)
    reasons = ", ".join(f"{name} has none for {count}" for count, name in lacking if count)
    if missing == "impute":
        return f"{series - common} of {series} series are filled in; {reasons}"
    return f"{common} of {series} series are compared; {reasons}"


def _complete(label: str, whole: Losses, baseline: str) -> int:
    """Return the place of a baseline that has a loss of every series."""
    place = whole.models.index(baseline)
    if count := whole.missing[place]:
        raise ScoresError(
            f"{label}: the baseline {baseline} itself has none for {count} of "
            f"{len(whole.values)} series, so its losses cannot fill in for others"
        )
    return place


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else tuple(given)


def _table(columns: Mapping[str, Any]) -> pa.Table:
    types = {"model": pa.string(), "num_failures": pa.int64(), "n": pa.int64()}
    return pa.table(
        {
            name: pa.array(cells, types.get(name), from_pandas=True)
            for name, cells in columns.items()
        }
    )


def columns_of(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield each column with its name."""
    return zip(table.column_names, table.columns, strict=True)


def spell(group: pa.Table) -> str:
    """Return the values that name a group, for a message."""
    named = ", ".join(f"{name}={column[0]}" for name, column in columns_of(group))
    return f" ({named})" if named else ""
