"""``loss-scoring score``: score a file without a server."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loss_scoring.core import DEFAULT_LOSSES, LossSpec, Missing, ScoreOptions, ZeroDivision
from loss_scoring.core.machine import choose_device
from loss_scoring.core.table import (
    Duplicates,
    History,
    MissingElementError,
    TableError,
    answer_schema,
    key_faults,
    listed,
    score_models,
    spell_series,
)
from loss_scoring.service.cli.columns import FileColumns, Roles, find_columns
from loss_scoring.service.cli.files import (
    FORMATS,
    check_output,
    explained,
    open_output,
    open_source,
)
from loss_scoring.service.cli.series import Block, read_series
from loss_scoring.service.errors import InvalidError, printable

_UNBOUNDED = 1 << 16


def score(  # noqa: PLR0913, PLR0917 - one flag a choice
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Parquet, CSV or Arrow, long or nested form."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help=f"One row per series and model: {' '.join(FORMATS)}"),
    ] = None,
    losses: Annotated[
        str, typer.Option(help="Comma-separated, with parameters as in huber:delta=1.5.")
    ] = ",".join(DEFAULT_LOSSES),
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
    weight_col: Annotated[
        str | None, typer.Option(help="What each element weighs, finite and at least 0.")
    ] = None,
    scale_col: Annotated[
        str | None,
        typer.Option(help="What mase and rmsse are divided by, the same in all rows of a series."),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            help="Past values of the series, with the same columns, of which the scales of mase "
            "and rmsse are made; no row after a cutoff is used. Read whole."
        ),
    ] = None,
    seasonality: Annotated[
        int | None, typer.Option(help="How many rows of --train a season has.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    sort: Annotated[bool, typer.Option(help="Sort by key first, in memory.")] = False,
) -> None:
    """Score a file of forecasts without a server.

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
    chosen = _device(device)
    _check_scales(options, scale_col, train, seasonality)
    columns = id_col, time_col, target_col, cutoff_col, models, exclude, duplicates
    roles = Roles(*columns, weight_col, scale_col)
    source = open_source(file, text=roles.text, numbers=roles.numbers)
    with explained(file):
        layout = find_columns(source, roles)
        if faults := [*key_faults(layout.keys, (spec.name for spec in options.losses))]:
            raise TableError(*faults)
    _report_models(layout)
    tally = _Tally(layout.models, options, weighted=weight_col is not None)
    keys = pa.schema([source.schema.field(key) for key in layout.keys])
    schema = answer_schema(keys, options, pa.float64(), weighted=weight_col is not None)
    history = None if train is None else _history(train, layout, time_col, seasonality or 0)
    with open_output(output, schema) as write, explained(file), _progress() as progress:
        task = progress.add_task("rows", total=source.rows)
        for block in read_series(source, layout, sort=sort):
            answer = _score(block, layout, options, chosen, history)
            tally.add(answer)
            write(answer.cast(schema))
            progress.advance(task, block.rows)
        if not tally.series:
            raise TableError(("", "has no rows"))
    # As wide as it is, so that no digit is cut, and its texts as they are.
    console = Console(width=_UNBOUNDED, markup=False, emoji=False, highlight=False)
    with explained("standard output"):
        console.print(tally.table())


def _options(losses: str, missing: Missing, zero_division: ZeroDivision) -> ScoreOptions:
    try:
        specs = tuple(map(LossSpec.of, losses.split(",")))
        return ScoreOptions(specs, missing=missing, zero_division=zero_division)
    except ValueError as error:
        raise InvalidError(f"--losses: {error}") from error


def _one_file(files: list[Path]) -> Path:
    if len(files) > 1:
        raise InvalidError(
            f"{files[1]}: one file at a time; score each, or write them to one file first, as "
            "pyarrow.dataset.dataset([...]) and polars.scan_parquet([...]) can"
        )
    return files[0]


def _report_models(layout: FileColumns) -> None:
    with suppress(OSError):  # the scores matter more than standard error
        sys.stderr.write(printable(f"scored as models: {', '.join(layout.models)}") + "\n")
        if layout.left_out:
            sys.stderr.write(printable(f"left out: {listed(layout.left_out)}") + "\n")


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


def _check_scales(
    options: ScoreOptions, scale_col: str | None, train: Path | None, seasonality: int | None
) -> None:
    given = {"--scale-col": scale_col, "--train": train}
    sources = [flag for flag, value in given.items() if value is not None]
    if (train is None) != (seasonality is None):
        raise InvalidError("--train and --seasonality belong together")
    if len(sources) > 1:
        raise InvalidError("--scale-col and --train both say what the scales are; pass one")
    if sources and not options.scaled:
        raise InvalidError(f"{sources[0]}: none of the losses asked for takes it")
    if options.scaled and not sources:
        needed = " and ".join(options.scaled)
        raise InvalidError(f"--losses: {needed} must have scales; pass --scale-col or --train")


def _history(file: Path, layout: FileColumns, time: str, seasonality: int) -> History:
    """Read the columns of a history that say what scales are made of."""
    wanted = {*layout.keys, time, layout.target}
    source = open_source(
        file, text=lambda names: {*layout.keys, time} & {*names}, numbers=lambda _: {layout.target}
    )
    with explained(file):
        names = [name for name in source.schema.names if name in wanted]
        fields = [source.schema.field(name) for name in names]
        batches = [pa.Table.from_batches([batch]) for batch in source.read(names)]
        table = pa.concat_tables([pa.schema(fields).empty_table(), *batches])
        return History(table, layout.keys, time, layout.target, seasonality, *layout.keys[1:])


def _score(
    block: Block,
    layout: FileColumns,
    options: ScoreOptions,
    device: torch.device,
    history: History | None,
) -> pa.Table:
    scales = {}
    if block.scales is not None:
        scales = dict.fromkeys(options.scaled, block.scales)
    if history is not None:
        scales = {loss: history.scales(loss, block.groups, block.times) for loss in options.scaled}
    try:
        return score_models(
            *(block.groups, layout, block.values, options, device),
            weights=block.weights,
            scales=scales,
        )
    except MissingElementError as error:
        row = ""
        if block.first_row is not None:
            offset = block.groups.offsets[error.series] + error.position
            row = f" in row {block.first_row + offset}"
        fault = (
            f"series {spell_series(block.groups.keys, error.series)}: element {error.position} of "
            f"{error.column}{row} is missing or not finite (the first of {error.affected} such "
            "series read so far); pass --missing skip to leave such elements out"
        )
        raise TableError(("", fault)) from error


class _Tally:
    """Sums over all series, for each model."""

    def __init__(self, models: tuple[str, ...], options: ScoreOptions, *, weighted: bool) -> None:
        self.series = 0
        self._models = models
        self._losses = [spec.name for spec in options.losses]
        self._masked = [f"{name}_masked" for name in options.masked(weighted=weighted)]
        count = len(models)
        self._sums = {name: np.zeros(count) for name in self._losses}
        self._counts = {name: np.zeros(count, np.int64) for name in [*self._losses, *self._masked]}
        self._scored = np.zeros(count, np.int64)

    def add(self, answer: pa.Table) -> None:
        """Add rows of the answer, those of a series together."""
        shape = len(answer) // len(self._models), len(self._models)
        scored = np.zeros(shape, np.bool_)
        for name in self._losses:
            has_loss = answer[name].is_valid().to_numpy().reshape(shape)
            values = answer[name].to_numpy().reshape(shape)
            self._sums[name] += np.where(has_loss, values, 0).sum(axis=0)
            self._counts[name] += has_loss.sum(axis=0)
            scored |= has_loss
        for name in self._masked:
            self._counts[name] += answer[name].to_numpy().reshape(shape).sum(axis=0)
        self._scored += scored.sum(axis=0)
        self.series += shape[0]

    def table(self) -> Table:
        """Return one line a model: each loss as the mean over the series that have one."""
        table = Table(title="Mean loss over the series that have one")
        table.add_column("model", overflow="fold")
        masked = [name.replace("_masked", " masked") for name in self._masked]
        for heading in ("series", "scored", *self._losses, *masked):
            table.add_column(heading, justify="right")
        for m, model in enumerate(self._models):
            means = [
                f"{self._sums[name][m] / count:.6g}" if (count := self._counts[name][m]) else "-"
                for name in self._losses
            ]
            counts = [str(self._counts[name][m]) for name in self._masked]
            table.add_row(printable(model), str(self.series), str(self._scored[m]), *means, *counts)
        return table
