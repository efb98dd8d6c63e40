"""``loss-scoring score``: score a file without a server."""

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import typer

from loss_scoring.core import DEFAULT_LOSSES, LossSpec, Missing, ScoreOptions, ZeroDivision
from loss_scoring.core.machine import Device, choose_device
from loss_scoring.core.table import (
    History,
    Leaderboard,
    MissingElementError,
    ScoresInParts,
    TableError,
    answer_schema,
    key_faults,
    leaderboard,
    score_models,
    spell_left_out,
    spell_series,
)
from loss_scoring.service.cli.boards import QUIET, Format, is_terminal, print_board, say
from loss_scoring.service.cli.columns import FileColumns, Roles, find_columns
from loss_scoring.service.cli.csv_files import CsvFormat
from loss_scoring.service.cli.files import FORMATS
from loss_scoring.service.cli.flags import FileFlags, names_in
from loss_scoring.service.cli.inputs import Inputs, open_inputs
from loss_scoring.service.cli.locations import STANDARD, label_of
from loss_scoring.service.cli.outputs import find_output, open_output, refuse_overwriting
from loss_scoring.service.cli.series import Block, read_breakdown, read_series
from loss_scoring.service.cli.source import explained
from loss_scoring.service.errors import UsageError

RESAMPLES = 1000
DEFAULT = ",".join(DEFAULT_LOSSES)

LossesOption = Annotated[
    str, typer.Option(help="Comma-separated, with parameters as in huber:delta=1.5.")
]


@dataclass(frozen=True)
class ScoringFlags(FileFlags):
    """How forecasts are read and scored."""

    missing: Annotated[Missing, typer.Option(help="What a null, NaN or infinite element does.")] = (
        "error"
    )
    weight_col: Annotated[
        str | None, typer.Option(help="What each element weighs, finite and at least 0.")
    ] = None
    scale_col: Annotated[
        str | None,
        typer.Option(help="What mase and rmsse are divided by, the same in all rows of a series."),
    ] = None
    train: Annotated[
        str | None,
        typer.Option(
            help="Past values of the series, with the same columns, of which the scales of mase "
            "and rmsse are made; no row after a cutoff is used. Read whole."
        ),
    ] = None
    seasonality: Annotated[
        int | None, typer.Option(min=1, help="How many rows of --train a season has.")
    ] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto"

    def roles(
        self,
        models: str | tuple[str, ...] | None = None,
        exclude: str | None = None,
        **more: Any,
    ) -> Roles:
        """Return which columns have which role."""
        return super().roles(models, exclude, weight=self.weight_col, scale=self.scale_col, **more)

    def options(self, losses: str, flag: str) -> ScoreOptions:
        """Return what a flag says of the losses, and others of their elements."""
        return scoring_options(losses, self.missing, self.zero_division, flag)

    def scales(self, options: ScoreOptions, pooled: tuple[str, ...] | None) -> "Scales":
        """Return where scales are from.

        Raises:
            UsageError: If these flags and the losses do not belong together.
        """
        given = {"--scale-col": self.scale_col, "--train": self.train}
        sources = [flag for flag, value in given.items() if value is not None]
        needed = " and ".join(options.scaled)
        if (self.train is None) != (self.seasonality is None):
            raise UsageError("--train and --seasonality belong together")
        if len(sources) > 1:
            raise UsageError("--scale-col and --train both say what the scales are; pass one")
        if sources and not needed:
            raise UsageError(f"{sources[0]}: none of the losses asked for takes it")
        if needed and pooled is not None:
            raise UsageError(f"{needed} are of series; leave out --by")
        if needed and not sources:
            raise UsageError(f"{needed} must have scales; pass --scale-col or --train")
        return Scales(self.train, self.seasonality, self.csv)


def score(  # noqa: PLR0913, PLR0917 - one flag a choice
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Parquet, CSV or Arrow, long or nested form: files, patterns such as "
            "'forecasts/*.parquet', or folders, also with partitions such as cutoff=2026-01-01; "
            "here or at addresses such as s3://; - for an Arrow stream at standard input.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help=f"One row per series and model: {' '.join(FORMATS)}, here or at an address; - for "
            "an Arrow stream at standard output.",
        ),
    ] = None,
    losses: LossesOption = DEFAULT,
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
    by: Annotated[
        str | None,
        typer.Option(
            help="Pool elements by these columns instead of by series, comma-separated; horizon is "
            "the place of a row in its series by time. In memory."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="A model to compare the others with; gives a skill score and intervals."),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Default: a table at a terminal, csv elsewhere."),
    ] = None,
    engine: Annotated[
        Literal["ray"] | None,
        typer.Option(
            help="Where to score what outgrows this machine: Parquet files, on the cluster of "
            "RAY_ADDRESS, one GPU an actor where it has GPUs. -o is then a folder of Parquet files."
        ),
    ] = None,
    *,
    reading: ScoringFlags,
) -> None:
    """Score a file of forecasts without a server.

    The long form has the columns unique_id, cutoff (if any), ds, y and one a model, as Nixtla's
    cross_validation returns them; the nested form one row a series, with lists. Prints a
    leaderboard, of the series that all models have; -o writes one row per series and model.
    """
    options = reading.options(losses, "--losses")
    if models is not None and exclude is not None:
        raise UsageError("--exclude is for models that nobody names; leave them out of --models")
    if by is not None and baseline is not None:
        raise UsageError("--baseline compares models by series; leave out --by, or see check")
    if output is not None:
        refuse_overwriting(output, *files, reading.actuals, reading.train)
    pooled = names_in(by)
    roles = reading.roles(models, exclude, by=pooled or ())
    scales = reading.scales(options, pooled)
    inputs = reading.inputs(*files)
    names = [spec.name for spec in options.losses]
    resamples = RESAMPLES if baseline is not None else 0
    if engine is not None:
        if pooled is not None or reading.sort or reading.device != "auto":
            raise UsageError("--engine ray: leave out --by, --sort and --device")
        if STANDARD in {*files, output}:
            raise UsageError("--engine ray: reads and writes Parquet files, not standard streams")
        from loss_scoring.service.cli.on_ray import RayScoring

        on_ray = RayScoring(inputs, roles, options)
        _check_baseline(baseline, on_ray.layout)
        history = scales.read(on_ray.layout, roles.time)
        _report_models(on_ray.layout)
        print_board(on_ray.board(history, reading.seasonality, output, baseline, resamples), form)
        return
    target = None if output is None else find_output(output)
    scoring = Scoring(inputs, roles, options, reading.device, reading.sort, pooled, scales=scales)
    _check_baseline(baseline, scoring.layout)
    scores = ScoresInParts(scoring.layout.models)
    with open_output(target, scoring.schema) as write, closing(scoring.answers()) as answers:
        for answer in answers:
            write(answer)
            if pooled is None:
                scores.add(answer, names)
    if pooled is not None:
        board = Leaderboard(answer, tuple(scoring.notes))  # one group of all
    else:
        board = leaderboard(scores, names, baseline=baseline, n_resamples=resamples)
    print_board(board, form, aside=output == STANDARD)


class Scales(NamedTuple):
    """A history that the scales of scaled losses are made of."""

    train: str | None
    seasonality: int | None
    csv: CsvFormat

    def history(self, layout: FileColumns, time: str) -> History | None:
        """Read the history that scales are made of, if there is one."""
        if (table := self.read(layout, time)) is None or self.train is None:
            return None
        with explained(label_of(self.train)):
            season = self.seasonality or 0
            return History(table, layout.keys, time, layout.target, season, layout.cutoff)

    def read(self, layout: FileColumns, time: str) -> pa.Table | None:
        """Return the columns of the history, if there is one."""
        if self.train is None:
            return None
        source = open_inputs(
            [self.train],
            lambda names: {*layout.keys, time} & {*names},
            lambda _names: {layout.target},
            csv=self.csv,
        )
        with explained(label_of(self.train)):
            wanted = {*layout.keys, time, layout.target}
            names = [name for name in source.schema.names if name in wanted]
            fields = [source.schema.field(name) for name in names]
            batches = [pa.Table.from_batches([batch]) for batch in source.read(names)]
            return pa.concat_tables([pa.schema(fields).empty_table(), *batches])


class Scoring:
    """A file of forecasts that is being scored.

    By series; or ``by`` columns, each group of all series at once, or the parts of each series.

    Attributes:
        layout: Its columns.
        schema: Of the answers.
        notes: What there is to say of it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what the flags say
        self,
        inputs: Inputs,
        roles: Roles,
        options: ScoreOptions,
        device: str,
        sort: bool,
        by: tuple[str, ...] | None,
        *,
        parts: bool = False,
        scales: Scales | None = None,
    ) -> None:
        self._label, self._options, self._sort = str(inputs), options, sort
        self._device = _device(device)
        self._source, self._actuals = inputs.open(roles)
        with explained(self._label):
            self.layout = find_columns(self._source, roles)
            if faults := [*key_faults(self.layout.keys, (spec.name for spec in options.losses))]:
                raise TableError(*faults)
        _report_models(self.layout)
        self._history = scales and scales.history(self.layout, roles.time)
        self.notes: list[str] = []
        self._block: Block | None = None
        if by is None:
            keys = pa.schema([self._source.schema.field(key) for key in self.layout.keys])
        else:
            names = tuple(dict.fromkeys([*self.layout.keys, *by])) if parts else by
            with explained(self._label):
                self._block = read_breakdown(self._source, self.layout, names, roles.time)
            keys = self._block.groups.keys.schema
        weighted = roles.weight is not None
        self.schema = answer_schema(keys, options, pa.float64(), weighted=weighted)

    def answers(self) -> Generator[pa.Table]:
        """Yield one row a series, or group, and model.

        Raises:
            InvalidError: If there are no rows, or some cannot be scored.
        """
        read = self._source.rows and self._source.rows * len(self.layout.columns)
        with explained(self._label), _progress(read) as advance:
            rows = 0
            for block in self._blocks(advance):
                answer = _score(block, self.layout, self._options, self._device, self._history)
                yield answer.cast(self.schema)
                rows += block.rows
            if self._actuals is not None:
                say(str(self._actuals.check()))
            if not rows:
                raise TableError(("", "has no rows"))

    def _blocks(self, advance: Callable[[int], None]) -> Iterator[Block]:
        def read(columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
            for batch in self._source.read(columns, coded):
                advance(batch.num_rows * len(columns))
                yield batch

        if self._block is None:
            return read_series(replace(self._source, read=read), self.layout, sort=self._sort)
        self.notes += _incomplete(self._block, self.layout)
        return iter([self._block])


def _incomplete(block: Block, layout: FileColumns) -> Iterator[str]:
    """Yield which models lack elements: what is pooled is then not the same for all."""
    there = np.isfinite(block.values(layout.target))
    for model in layout.models:
        if count := int((there & ~np.isfinite(block.values(model))).sum()):
            yield f"{model} has no prediction for {count} of {int(there.sum())} elements"


def scoring_options(
    losses: str, missing: Missing, zero_division: ZeroDivision, flag: str
) -> ScoreOptions:
    """Return what a flag says of the losses, and others of their elements."""
    try:
        specs = tuple(LossSpec.of(loss.strip()) for loss in losses.split(","))
        return ScoreOptions(specs, missing=missing, zero_division=zero_division)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def _check_baseline(baseline: str | None, layout: FileColumns) -> None:
    if baseline is not None and baseline not in layout.models:
        known = ", ".join(layout.models)
        raise UsageError(f"--baseline {baseline}: is none of the models {known}")


def _report_models(layout: FileColumns) -> None:
    say(f"scored as models: {', '.join(layout.models)}")
    if layout.left_out:
        say(f"left out: {spell_left_out(layout.left_out)}")


def _device(name: str) -> Device:
    try:
        return choose_device(name)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"device {name!r}: {error}") from error


@contextmanager
def _progress(cells: int | None) -> Iterator[Callable[[int], None]]:
    """Show at a terminal how many cells are read, of so many; yield what advances it."""
    if QUIET.get() or not is_terminal(sys.stderr):
        yield lambda _cells: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("cells", total=cells)
        yield lambda cells: shown.advance(task, cells)


def _score(
    block: Block,
    layout: FileColumns,
    options: ScoreOptions,
    device: Device,
    history: History | None,
) -> pa.Table:
    scales = {}
    if block.scales is not None:
        scales = dict.fromkeys(options.scaled, block.scales)
    if history is not None:
        times = block.times and block.times()
        scales = {loss: history.scales(loss, block.groups, times) for loss in options.scaled}
    try:
        return score_models(
            *(block.groups, layout, block.values, options, str(device)),
            weights=block.weights,
            scales=scales,
        )
    except MissingElementError as error:
        row = ""
        place = block.groups.offsets[error.series] + error.position
        if block.first_row is not None:
            row = f" in row {block.first_row + place}"
        elif block.groups.order is not None:
            row = f" in row {block.groups.order[place]}"
        fault = (
            f"series {spell_series(block.groups.keys, error.series)}: element {error.position} of "
            f"{error.column}{row} is missing or not finite (the first of {error.affected} such "
            "series read so far); pass --missing skip to leave such elements out"
        )
        raise TableError(("", fault)) from error
