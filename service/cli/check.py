"""``loss-scoring check``: the gate, by exit status."""

import os
import sys
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree as ET

import pyarrow as pa
import typer

from loss_scoring.core.table import (
    Check,
    CheckError,
    Leaderboard,
    ScoresError,
    ScoresInParts,
    WorseError,
)
from loss_scoring.core.table import check as check_scores
from loss_scoring.service.cli.boards import finite, print_board, say, to_json, write_out
from loss_scoring.service.cli.csv_files import CsvFormat
from loss_scoring.service.cli.flags import names_in, refuse_flags_of
from loss_scoring.service.cli.inputs import open_inputs
from loss_scoring.service.cli.locations import label_of
from loss_scoring.service.cli.outputs import refuse_overwriting
from loss_scoring.service.cli.score import RESAMPLES, Scoring, ScoringFlags
from loss_scoring.service.cli.source import explained
from loss_scoring.service.errors import InvalidError, UsageError, printable

WORSE, NOT_COMPARABLE = 1, 3
"""Exit status; 0 if all is passed, and 2 for usage, data that cannot be read and failures."""


def check(  # noqa: PLR0913, PLR0917 - one flag a choice
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FORECASTS|SCORES",
            help="Forecasts, as of score, or what score has written by -o.",
        ),
    ],
    model: Annotated[str, typer.Option(help="The model to judge.")],
    baseline: Annotated[
        str | None, typer.Option(help="The model that it must not be worse than.")
    ] = None,
    loss: Annotated[str, typer.Option(help="What to compare by.")] = "smape",
    max_: Annotated[
        float | None, typer.Option("--max", help="The greatest mean loss allowed.")
    ] = None,
    min_relative_improvement: Annotated[
        float | None, typer.Option(help="The least (baseline - loss) / baseline, as 0.02.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Judge groups of series by themselves: columns, comma-separated, or horizon."
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(help="Fail only if a whole bootstrap interval, as of 0.95, is worse."),
    ] = None,
    max_missing: Annotated[
        float, typer.Option(help="The greatest share of series that the model may lack.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option(help="Print a table of Markdown.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file as well.")] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Draws of the bootstrap.")] = RESAMPLES,
    *,
    reading: ScoringFlags,
) -> None:
    """Tell whether a model may replace another: exit status 0 if so.

    Compares mean losses over the series that model and baseline share; without a threshold the
    model must be no worse. Exit status: 0 passed, 1 worse, 2 usage, data that cannot be read or
    another failure, 3 not comparable, as too many series are missing or none is left.
    """
    if as_json and markdown:
        raise UsageError("--json and --markdown exclude each other")
    if junit is not None:
        refuse_overwriting(str(junit), file, reading.actuals, reading.train)
    names = names_in(by) or ()
    columns = reading.inputs(file).forecasts().schema.names
    if "model" in columns:
        refuse_flags_of(ScoringFlags, context, f"is for forecasts; {label_of(file)} holds scores")
        spec, loss = loss, column_of(loss, columns)
        if ":" in spec and spec != loss:
            say(f"--loss {spec}: {label_of(file)} does not say with which parameters it was scored")
        scores, keys = read_file_of_scores(file, (loss, *names), reading.csv)
    else:
        spec, loss = loss, column_of(loss)
        models = (model,) if baseline is None else (model, baseline)
        scores, keys = _scored(file, models, spec, names, reading)
    status = 0
    try:
        rows = check_scores(
            scores,
            model=model,
            baseline=baseline,
            loss=loss,
            max=max_,
            min_relative_improvement=min_relative_improvement,
            by=names,
            keys=keys,
            confidence=confidence,
            max_missing=max_missing,
            n_resamples=resamples,
        )
    except CheckError as error:
        rows, status = error.rows, WORSE if isinstance(error, WorseError) else NOT_COMPARABLE
    except ScoresError as error:
        raise InvalidError(f"{label_of(file)}: {error}") from error
    except ValueError as error:
        raise InvalidError(str(error)) from error
    if junit is not None:
        with explained(junit):
            junit.write_bytes(_junit(file, rows))
    _print(rows, status, as_json=as_json, markdown=markdown)
    if status:
        raise typer.Exit(status)


def read_file_of_scores(
    file: str, columns: Sequence[str] | None, csv: CsvFormat
) -> tuple[pa.Table, list[str]]:
    """Read what ``score`` has written; text left of the models stays text.

    Args:
        file: The file.
        columns: Those to read beside the keys and the model; None for all but gradients.
        csv: How it is written, if it is a CSV file.

    Returns:
        The rows, and the columns that together name a series.

    Raises:
        InvalidError: If it has no column ``model``, or another is absent.
    """

    def keys_in(names: Any) -> list[str]:
        return list(names[: names.index("model")]) if "model" in names else []

    source = open_inputs([file], lambda names: [*keys_in(names), "model"], csv=csv)
    label = label_of(file)
    names = source.schema.names
    keys = keys_in(names)
    if columns is None:
        columns = [name for name in names[len(keys) :] if not name.endswith("_gradient")]
    wanted = dict.fromkeys([*keys, "model", *columns])
    if absent := [name for name in wanted if name not in names]:
        raise InvalidError(f"{label}: no column {absent[0]!r} among {', '.join(names)}")
    with explained(label):
        schema = pa.schema([source.schema.field(name) for name in wanted])
        return pa.Table.from_batches(source.read(list(wanted)), schema), keys


def column_of(loss: str, columns: Collection[str] = ()) -> str:
    """Return the column of scores that holds a loss: one of those, or its name without parameters.

    Raises:
        UsageError: If there are several losses.
    """
    if loss in columns:
        return loss
    if "," in loss:
        raise UsageError(f"--loss {loss}: are several; pass one")
    return loss.partition(":")[0].strip()


def _scored(
    file: str, models: tuple[str, ...], loss: str, by: tuple[str, ...], reading: ScoringFlags
) -> tuple[pa.Table | ScoresInParts, list[str]]:
    """Score a file of forecasts; return it as ``read_file_of_scores`` does."""
    options = reading.options(loss, "--loss")
    inputs, roles, pooled = reading.inputs(file), reading.roles(models, by=by), by or None
    scoring = Scoring(
        *(inputs, roles, options, reading.device, reading.sort, pooled),
        parts=True,
        scales=reading.scales(options, pooled),
    )
    scores = ScoresInParts(scoring.layout.models)
    with closing(scoring.answers()) as answers:
        for answer in answers:
            if not by:
                scores.add(answer, [options.losses[0].name])
    say(*scoring.notes)
    return (answer, list(scoring.layout.keys)) if by else (scores, [])


def _print(rows: tuple[Check, ...], status: int, *, as_json: bool, markdown: bool) -> None:
    if sys.stdout is None:  # it is closed; the status is the verdict all the same
        return
    try:
        if as_json:
            write_out(to_json({"status": status, "rules": [_plain(row) for row in rows]}))
        elif markdown:
            print_board(Leaderboard(_table(rows)), "markdown")
        else:
            write_out("".join(f"{printable(str(row))}\n" for row in rows))
    except BrokenPipeError:  # nobody reads it; the status is the verdict all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(row: Check) -> dict[str, Any]:
    """Return a row for JSON."""
    fields = {name: finite(cell) for name, cell in vars(row).items()}
    group = {name: finite(value) for name, value in row.group.items()}
    return fields | {"group": group}


def _table(rows: tuple[Check, ...]) -> pa.Table:
    """Return rows as they are shown, with the bounds beside what they bound."""
    columns: dict[str, list[Any]] = {
        "verdict": [row.verdict for row in rows],
        "rule": [row.rule for row in rows],
        **{name: [str(row.group[name]) for row in rows] for name in rows[0].group},
        "series": [row.n for row in rows],
        "missing": [row.num_failures for row in rows],
        "loss": [row.loss for row in rows],
        "baseline": [row.baseline for row in rows],
        "value": [row.value for row in rows],
        "value_lower": [row.lower for row in rows],
        "value_upper": [row.upper for row in rows],
        "limit": [row.limit for row in rows],
    }
    return pa.table(columns)


def _junit(file: str, rows: tuple[Check, ...]) -> bytes:
    """Return a suite with a case a rule and group."""
    suites = ET.Element("testsuites")
    suite = ET.SubElement(suites, "testsuite", name="loss-scoring check")
    for row in rows:
        label = "".join(f", {name}={value}" for name, value in row.group.items())
        case = ET.SubElement(
            suite, "testcase", classname=printable(label_of(file)), name=printable(row.rule + label)
        )
        line = printable(str(row))
        if row.verdict in ("worse", "not comparable"):
            kind = "failure" if row.verdict == "worse" else "error"
            ET.SubElement(case, kind, message=line, type=row.verdict)
        ET.SubElement(case, "system-out").text = line
    for name, kind in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        suite.set(name, str(len(list(suite.iter(kind)))))
    return bytes(ET.tostring(suites, "utf-8", xml_declaration=True))
