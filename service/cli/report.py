"""``loss-scoring report``: one page on a file of scores, without scripts or links elsewhere."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import reduce
from html import escape
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from numpy.typing import NDArray

from loss_scoring.core import LOSSES, ZeroDivision
from loss_scoring.core.table import Actuals, Leaderboard, ScoresError, leaderboard, spell_series
from loss_scoring.core.table.comparison.frames import read_scores
from loss_scoring.core.table.comparison.pooling import HORIZON, UnorderedError, moments_of
from loss_scoring.service.cli import charts
from loss_scoring.service.cli.boards import say
from loss_scoring.service.cli.check import column_of, read_file_of_scores
from loss_scoring.service.cli.columns import Roles, find_columns
from loss_scoring.service.cli.flags import FileFlags, refuse_flags_of
from loss_scoring.service.cli.inputs import Inputs
from loss_scoring.service.cli.locations import label_of
from loss_scoring.service.cli.outputs import refuse_overwriting
from loss_scoring.service.cli.score import Scoring, scoring_options
from loss_scoring.service.cli.series import Block, read_series
from loss_scoring.service.cli.source import Source, explained
from loss_scoring.service.errors import InvalidError, UsageError

_WORST = 6
_STEPS = 500
"""The most steps of a series that are drawn, the last ones."""
_QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }}
body {{ color: #222; background: #fff; }}
table {{ border-collapse: collapse; font-size: .85rem; }}
th, td {{ padding: .2rem .6rem; text-align: right; }}
th, td {{ white-space: nowrap; border-bottom: 1px solid #ddd; }}
th:nth-child(-n+2), td:nth-child(-n+2) {{ text-align: left; }}
figure {{ margin: 1rem 1rem 0 0; display: inline-block; }}
div {{ overflow-x: auto; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{sections}
</main>
</body>
</html>
"""


def report(  # noqa: PLR0913, PLR0917 - one flag a choice
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="SCORES", help="What score has written by -o.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path(
        "report.html"
    ),
    loss: Annotated[
        str | None, typer.Option(help="What to draw; default the first loss of the scores.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="A model to compare the others with; gives a skill score.")
    ] = None,
    forecasts: Annotated[
        str | None,
        typer.Option(
            help="What was scored, for the loss by horizon and the worst series; elements that "
            "are missing are left out."
        ),
    ] = None,
    *,
    reading: FileFlags,
) -> None:
    """Write a page that shows which models are better, and where they are not.

    It holds the leaderboard with its intervals, the distribution of losses, what was masked and
    left out and, given the forecasts, the loss by horizon and the worst series of the best model.
    It has no scripts and fetches nothing, so that it can be mailed and kept.
    """
    draw = charts.renderer()
    if not output.parent.is_dir():
        raise UsageError(f"{output}: there is no folder {output.parent}")
    if forecasts is None:
        refuse_flags_of(FileFlags, context, "belongs to --forecasts")
    refuse_overwriting(str(output), file, forecasts, reading.actuals)
    table, keys = read_file_of_scores(file, None, reading.csv)
    label, losses = label_of(file), _losses_in(table, keys)
    if not losses:
        raise InvalidError(f"{label}: no column right of 'model' holds losses")
    spec = loss or losses[0]
    drawn = column_of(spec, losses)
    if drawn not in losses:
        raise UsageError(f"--loss: {drawn!r} is none of the losses {', '.join(losses)} of {label}")
    try:
        board = leaderboard(table, losses, baseline=baseline, keys=keys)
        quantiles = _quantiles(table, drawn, keys)
    except ScoresError as error:
        raise InvalidError(f"{label}: {error}") from error
    rows = [row for row in board.table.to_pylist() if row["loss"] == drawn and row["n"]]
    models = [row["model"] for row in rows]
    notes = list(board.notes)
    sections = [
        _section("Leaderboard", board._repr_html_(), *map(draw, _intervals(rows, models))),
        _section(
            f"Distribution of {drawn}",
            "<p>Of the compared series: half lie in the bar, nine tenths on the line; the median "
            "is marked.</p>",
            draw(charts.boxes(quantiles, models, drawn)),
        ),
    ]
    if forecasts is not None and models:
        scored = _Forecasts(reading.inputs(forecasts), reading.roles(), models, reading.sort)
        steps = [*map(draw, scored.by_horizon(spec, drawn, reading.zero_division))]
        worst = _worst(table, keys, scored.models[0], drawn)
        plots = scored.draw_series(worst)
        if lacking := len(worst) - len(plots):
            scored.notes.append(
                f"{lacking} of {len(worst)} worst series are not in {scored.inputs}"
            )
        if steps:
            scored.notes += _on_weights(table, losses)
            common = "<p>Over the elements that all these models have.</p>"
            sections.append(_section(f"{drawn} by horizon", common, *steps))
        if plots:
            heading = f"Greatest {drawn} of {scored.models[0]}"
            sections.append(_section(heading, *map(draw, plots)))
        notes += scored.notes
    counts = Leaderboard(_counts(board, table), tuple(notes))
    sections.append(_section("Masked, missing and left out", counts._repr_html_()))
    title = escape(f"Losses of {PurePosixPath(label).name}")
    with explained(output):
        page = _PAGE.format(title=title, sections="\n".join(sections))
        output.write_text(page, "utf-8", errors="backslashreplace")
    say(f"wrote {output}")


class _CommonInputs(Inputs):
    """Forecasts without the actual values of elements that some model lacks.

    So that models are compared on the same elements, each of which keeps its place in its series.
    """

    def open(self, roles: Roles) -> tuple[Source, Actuals | None]:
        source, actuals = super().open(roles)
        with explained(str(self)):
            layout = find_columns(source, roles)

        def read(columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
            needed = dict.fromkeys([*columns, *layout.numbers])
            for batch in source.read(list(needed), coded):
                known = [pc.is_finite(batch[name].cast(pa.float64())) for name in layout.models]
                place = batch.schema.names.index(layout.target)
                target = pc.if_else(reduce(pc.and_, known), batch[place], None)
                field = batch.schema.field(place)
                yield batch.set_column(place, field, target).select(list(columns))

        return replace(source, read=read), actuals


class _Forecasts:
    """What was scored.

    Attributes:
        inputs: Where it is.
        models: Those to draw, the best first.
        notes: What there is to say of it.
    """

    def __init__(self, inputs: Inputs, roles: Roles, models: Sequence[str], sort: bool) -> None:
        self.inputs, self._sort = inputs, sort
        names = inputs.forecasts().schema.names
        present = [name for name in models if name in names]
        if not present:
            raise InvalidError(f"{inputs}: holds none of the models {', '.join(models)}")
        self.models, self.notes = present[: charts.MOST_MODELS], list[str]()
        if more := len(models) - len(self.models):
            self.notes.append(f"{more} of {len(models)} models are not drawn by horizon and series")
        self._roles = replace(roles, models=tuple(self.models), by=(HORIZON,))

    def by_horizon(
        self, spec: str, loss: str, zero_division: ZeroDivision
    ) -> Iterator[charts.Spec]:
        """Yield the chart of losses by horizon, if there is one to draw."""
        options = scoring_options(spec, "skip", zero_division, "--loss")
        if options.scaled:
            self.notes.append(f"not drawn by horizon: {loss} is of whole series")
            return
        try:
            inputs = _CommonInputs(**vars(self.inputs))
            scoring = Scoring(inputs, self._roles, options, "cpu", self._sort, (HORIZON,))
            with closing(scoring.answers()) as answers:
                (table,) = answers
        except InvalidError as error:
            self.notes.append(f"not drawn by horizon: {error}")
            return
        self.notes += scoring.notes
        rows = [
            {"step": row[HORIZON], "model": row["model"], "value": _number(row[loss])}
            for row in table.to_pylist()
            if row[loss] is not None
        ]
        yield charts.by_step(rows, self.models, loss)

    def draw_series(self, wanted: Sequence[tuple[str, ...]]) -> list[charts.Spec]:
        """Return the chart of each series that is there, in the order given."""
        source, _ = self.inputs.open(self._roles)
        found: dict[int, charts.Spec] = {}
        with explained(str(self.inputs)):
            layout = find_columns(source, self._roles)
            for block in read_series(source, layout, sort=self._sort):
                for series, place in _find(block.groups.keys, wanted):
                    title = spell_series(block.groups.keys, series).split(", ")
                    rows = self._rows(block, series, layout.target)
                    found.setdefault(place, charts.series(*rows, self.models, title))
        return [found[place] for place in sorted(found)]

    def _rows(self, block: Block, series: int, target: str) -> tuple[charts.Rows, charts.Rows]:
        """Return the elements of a series by time, the actual values and those of each model."""
        start, stop = block.groups.offsets[series : series + 2]
        order = _by_time(block, start, stop)[-_STEPS:]
        steps = np.arange(stop - start)[-_STEPS:] + 1
        columns = {name: block.values(name)[start:stop][order] for name in (target, *self.models)}
        rows = {
            name: [
                {"step": step, "model": name, "value": _number(value)}
                for step, value in zip(steps.tolist(), values.tolist(), strict=True)
            ]
            for name, values in columns.items()
        }
        return rows.pop(target), [row for own in rows.values() for row in own]


def _losses_in(table: pa.Table, keys: Sequence[str]) -> list[str]:
    """Return the columns of losses: numbers behind those of the series and the model."""
    return [
        field.name
        for field in list(table.schema)[len(keys) + 1 :]
        if field.name != "length" and not field.name.endswith("_masked")
        if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    ]


def _on_weights(table: pa.Table, losses: Sequence[str]) -> list[str]:
    """Say what became of weights, if it shows that there were: any loss counts masked elements."""
    counted = [LOSSES[x] for x in losses if x in LOSSES and f"{x}_masked" in table.column_names]
    weighted = any(not loss.can_be_masked for loss in counted)
    return ["by horizon all elements weigh the same, other than in the scores"] * weighted


def _intervals(rows: Sequence[dict[str, Any]], models: Sequence[str]) -> Iterator[charts.Spec]:
    for name, title in (("win_rate", "win rate"), ("skill_score", "skill score")):
        if rows and f"{name}_lower" in rows[0]:
            named = {"value": name, "lower": f"{name}_lower", "upper": f"{name}_upper"}
            points = [
                {"model": row["model"]} | {to: _number(row[of]) for to, of in named.items()}
                for row in rows
            ]
            yield charts.intervals(points, models, f"{title} by {rows[0]['loss']}")


def _quantiles(table: pa.Table, loss: str, keys: Sequence[str]) -> charts.Rows:
    ((_, whole),) = read_scores(table, [loss], (), keys).groups(loss)
    losses = whole.present().common()
    if not len(losses.values):
        return []
    levels = [*_QUANTILES.values()]
    bounds = np.quantile(losses.values, levels, axis=0, method="inverted_cdf")
    return [
        {"model": model} | dict(zip(_QUANTILES, map(_number, bounds[:, i].tolist()), strict=True))
        for i, model in enumerate(losses.models)
    ]


def _worst(table: pa.Table, keys: Sequence[str], model: str, loss: str) -> list[tuple[str, ...]]:
    """Return the keys, as text, of the series in which a model has its greatest losses."""
    own = table.filter(pc.equal(table["model"].cast(pa.string()), model))
    own = own.filter(pc.invert(pc.is_nan(own[loss].cast(pa.float64()))))
    named = _texts(own.select(keys))
    columns = [pc.abs(own[loss].cast(pa.float64())), *named.columns]
    order = pc.sort_indices(
        pa.table(columns, [*map(str, range(len(columns)))]),
        [("0", "descending"), *((str(place), "ascending") for place in range(1, len(columns)))],
    )
    return [tuple(row.values()) for row in named.take(order[:_WORST]).to_pylist()]


def _find(keys: pa.Table, wanted: Sequence[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    """Yield the place of each series that is wanted, and its place among those wanted."""
    texts = _texts(keys)
    first = pa.array([key[0] for key in wanted], pa.string())
    places = np.flatnonzero(pc.is_in(texts.column(0), first).to_numpy())
    for series, row in zip(places.tolist(), texts.take(places).to_pylist(), strict=True):
        with suppress(ValueError):
            yield series, wanted.index(tuple(row.values()))


def _texts(keys: pa.Table) -> pa.Table:
    """Return keys as text, as which a CSV file holds them."""
    columns = []
    for column in keys.columns:
        of = column.type
        plain = column.cast(of.value_type) if pa.types.is_dictionary(of) else column
        columns.append(plain.cast(pa.string()))
    return pa.table(columns, keys.column_names)


def _by_time(block: Block, start: int, stop: int) -> NDArray[np.int64]:
    """Return the order of the elements of a series; that of the file where times have none."""
    if block.times is not None:
        rows = block.groups.rows_at(np.arange(start, stop))
        times = block.times().take(pa.array(rows))
        with suppress(UnorderedError):
            if not times.null_count:
                return np.argsort(moments_of(times), kind="stable")
    return np.arange(stop - start)


def _counts(board: Leaderboard, table: pa.Table) -> pa.Table:
    """Count for each model the series without a loss, and masked elements of all its series."""
    rows = []
    for row in board.table.to_pylist():
        counts = {"series compared": row["n"], "series without": row["num_failures"]}
        if (masked := f"{row['loss']}_masked") in table.column_names:
            own = table.filter(pc.equal(table["model"].cast(pa.string()), row["model"]))
            counts["elements masked"] = pc.sum(own[masked]).as_py()
        rows.append({"loss": row["loss"], "model": row["model"]} | counts)
    columns = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in columns})


def _number(cell: Any) -> Any:
    """Return a value of JSON; what is no finite number is not drawn."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _section(heading: str, *parts: str) -> str:
    """Return a section of tables, texts and drawings."""
    title, body = escape(heading), []
    for part in parts:
        label = f'<svg role="img" aria-label="{title}"'
        drawing = part.startswith("<svg")
        body.append(f"<figure>{part.replace('<svg', label, 1)}</figure>" if drawing else part)
    return f'<section>\n<h2>{title}</h2>\n<div tabindex="0">{"".join(body)}</div>\n</section>'
