"""``loss-scoring score``: score a file here, without a server."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loss_scoring.core import (
    LOSSES,
    Missing,
    MissingValueError,
    Ragged,
    ScoreOptions,
    Scores,
    ZeroDivision,
)
from loss_scoring.core import score as score_series
from loss_scoring.core.table import (
    Duplicates,
    TableError,
    answer_schema,
    answer_table,
    listed,
    spell_series,
)
from loss_scoring.service.app import choose_device
from loss_scoring.service.cli.columns import Layout, Roles, find_layout
from loss_scoring.service.cli.console import print_whole
from loss_scoring.service.cli.files import (
    FORMATS,
    check_output,
    explained,
    open_output,
    open_source,
)
from loss_scoring.service.cli.series import Block, read_series
from loss_scoring.service.codecs.options import options_from_query
from loss_scoring.service.errors import Faults, InvalidError


def score(  # noqa: PLR0913, PLR0917 - one flag a choice
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Parquet, CSV or Arrow, long or nested form."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help=f"One row per series and model: {' '.join(FORMATS)}"),
    ] = None,
    losses: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(LOSSES),
    missing: Annotated[
        Missing, typer.Option(help="What a null, NaN or infinite element does.")
    ] = "error",
    duplicates: Annotated[
        Duplicates, typer.Option(help="What two rows of a series with the same time are.")
    ] = "error",
    zero_division: Annotated[
        ZeroDivision, typer.Option(help="What an element without a finite quotient does.")
    ] = "zero",
    models: Annotated[
        str | None,
        typer.Option(
            help="Columns of predictions, comma-separated; default all of numbers whose name is "
            "not that of an index, a step, an interval or a quantile."
        ),
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(help="Columns that are no predictions, comma-separated.")
    ] = None,
    id_col: Annotated[str | None, typer.Option(help="Default unique_id, or id.")] = None,
    time_col: Annotated[str, typer.Option(help="Never taken for a model.")] = "ds",
    target_col: Annotated[str | None, typer.Option(help="Default y, or target.")] = None,
    cutoff_col: Annotated[
        str | None, typer.Option(help="Part of a series' key; default cutoff, if present.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    sort: Annotated[bool, typer.Option(help="Sort by key first, in memory.")] = False,
) -> None:
    """Score a file of forecasts here, without a server.

    The long form has the columns unique_id, [cutoff,] ds, y and one a model, as Nixtla's
    cross_validation returns them; the nested form one row a series, with lists. Prints one line a
    model; -o writes one row per series and model.
    """
    options = _options(losses, missing, zero_division)
    if models is not None and exclude is not None:
        raise InvalidError("--exclude is for models that nobody names; leave them out of --models")
    file = _one_file(files)
    if output is not None:
        check_output(output)
        if output.resolve() == file.resolve():
            raise InvalidError(f"{output}: is the file to score; name another output")
    where = _device(device)
    roles = Roles(id_col, time_col, target_col, cutoff_col, models, exclude, duplicates)
    source = open_source(file, text=roles.text, numbers=roles.numbers)
    with explained(file):
        layout = find_layout(source, roles)
    _say_models(layout)
    tally = _Tally(layout, options)
    schema = _schema(source.schema, layout, options)
    with open_output(output, schema) as write, explained(file), _progress() as progress:
        task = progress.add_task("rows", total=source.rows)
        for block in read_series(source, layout, sort=sort):
            scores = [
                _score(block, model, options, where, layout.target) for model in layout.models
            ]
            tally.add(scores)
            write(_rows(block, layout, options, scores, schema))
            progress.advance(task, block.rows)
        if not tally.series:
            raise TableError(("", "has no rows"))
    print_whole(tally.table())


def _options(losses: str, missing: Missing, zero_division: ZeroDivision) -> ScoreOptions:
    faults = Faults()
    query = [("losses", losses), ("missing", missing), ("zero_division", zero_division)]
    options = options_from_query(query, faults)
    faults.check()
    return options


def _one_file(files: list[Path]) -> Path:
    if len(files) > 1:
        raise InvalidError(
            f"{files[1]}: one file at a time; score each, or write them to one file first, as "
            "pyarrow.dataset.dataset([...]) and polars.scan_parquet([...]) can"
        )
    return files[0]


def _say_models(layout: Layout) -> None:
    with suppress(OSError):  # the scores matter more than standard error
        sys.stderr.write(f"scored as models: {', '.join(layout.models)}\n")
        if layout.left_out:
            sys.stderr.write(f"left out: {listed(layout.left_out)}\n")


def _device(name: str) -> torch.device:
    try:
        return choose_device(name)
    except (ValueError, RuntimeError) as error:
        raise InvalidError(f"device {name!r}: {error}") from error


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def _score(
    block: Block, model: str, options: ScoreOptions, device: torch.device, target: str
) -> Scores:
    def there(ragged: Ragged) -> Ragged:
        return Ragged(ragged.values.to(device), ragged.offsets)

    try:
        return score_series(
            there(block.predictions[model]),
            there(block.target),
            options.losses,
            missing=options.missing,
            zero_division=options.zero_division,
        ).to("cpu")
    except MissingValueError as error:
        series, side, position = error.missing.first[0]
        column = model if side == "prediction" else target
        name = spell_series(block.keys, series)
        row = ""
        if block.first_row is not None:
            row = f" in row {block.first_row + block.target.offsets[series] + position}"
        fault = (
            f"series {name}: element {position} of {column}{row} is missing or "
            f"not finite (the first of {error.missing.affected} such series read so far); pass "
            "--missing skip to leave such elements out"
        )
        raise TableError(("", fault)) from error


def _defined(scores: Scores, name: str, options: ScoreOptions) -> npt.NDArray[np.bool_]:
    """Tell which series had an element left; NaN that MAE propagated is a loss like any other."""
    values = scores.values[name].numpy()
    if options.missing == "propagate" and not LOSSES[name].has_quotient:
        return np.ones(len(values), np.bool_)
    defined: npt.NDArray[np.bool_] = ~np.isnan(values)
    return defined


def _schema(source: pa.Schema, layout: Layout, options: ScoreOptions) -> pa.Schema:
    keys = pa.schema([source.field(key) for key in layout.keys])
    return answer_schema(keys, options, pa.float64())


def _rows(
    block: Block, layout: Layout, options: ScoreOptions, scores: list[Scores], schema: pa.Schema
) -> pa.Table:
    """Lay one block out as one row per series and model, the models of a series together."""
    offsets = block.target.offsets
    table = answer_table(block.keys, offsets, layout.models, Scores.cat(scores), options)
    return table.cast(schema)


class _Tally:
    """Sums over all series, per model."""

    def __init__(self, layout: Layout, options: ScoreOptions) -> None:
        self.series = 0
        self._layout = layout
        self._options = options
        self._names = [spec.name for spec in options.losses]
        shape = (len(layout.models), len(self._names))
        self._sums = np.zeros(shape)
        self._counts = np.zeros(shape, np.int64)
        self._masked = np.zeros(shape, np.int64)
        self._scored = np.zeros(len(layout.models), np.int64)

    def add(self, scores: list[Scores]) -> None:
        """Add the scores of one block, one entry a model."""
        for m, one in enumerate(scores):
            defined = [_defined(one, name, self._options) for name in self._names]
            for k, name in enumerate(self._names):
                self._sums[m, k] += one.values[name].numpy()[defined[k]].sum()
                self._counts[m, k] += defined[k].sum()
                self._masked[m, k] += int(one.masked[name].sum()) if name in one.masked else 0
            self._scored[m] += np.logical_or.reduce(defined).sum()
        self.series += len(scores[0].values[self._names[0]])

    def table(self) -> Table:
        """Return one line a model: each loss as the mean over the series that have one."""
        quotients = [k for k, name in enumerate(self._names) if LOSSES[name].has_quotient]
        masked = [f"{self._names[k]} masked" for k in quotients]
        table = Table(title="Mean loss over the series that have one")
        table.add_column("model", overflow="fold")
        for heading in ("series", "scored", *self._names, *masked):
            table.add_column(heading, justify="right")
        for m, model in enumerate(self._layout.models):
            means = [
                f"{total / count:.6g}" if count else "-"
                for total, count in zip(self._sums[m], self._counts[m], strict=True)
            ]
            table.add_row(
                model,
                str(self.series),
                str(self._scored[m]),
                *means,
                *(str(self._masked[m, k]) for k in quotients),
            )
        return table
