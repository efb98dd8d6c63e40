"""Flags that several commands have."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, Literal

import typer

from loss_scoring.core import ZeroDivision
from loss_scoring.core.table import Duplicates
from loss_scoring.service.cli.columns import Roles
from loss_scoring.service.cli.csv_files import CsvFormat
from loss_scoring.service.cli.inputs import Inputs
from loss_scoring.service.errors import UsageError


@dataclass(frozen=True)
class CsvFlags:
    """How CSV files are written."""

    delimiter: Annotated[
        str | None,
        typer.Option(
            help="Of CSV files, what is between columns: a character, or tab; default a comma, or "
            "what the first line has instead."
        ),
    ] = None
    decimal: Annotated[
        Literal[".", ","] | None,
        typer.Option(
            help="Of CSV files, what is before fractions; default a point, or a comma where the "
            "target has one."
        ),
    ] = None

    @property
    def csv(self) -> CsvFormat:
        """How CSV files are written."""
        return CsvFormat(self.delimiter, self.decimal)


@dataclass(frozen=True)
class FileFlags(CsvFlags):
    """How forecasts are read."""

    duplicates: Annotated[
        Duplicates, typer.Option(help="What two rows of a series with the same time are.")
    ] = "error"
    id_col: Annotated[str | None, typer.Option(help="Default unique_id, or id.")] = None
    time_col: Annotated[
        str,
        typer.Option(
            help="Tells repeated rows, horizons and, as a rule, which actual value is whose; never "
            "taken for a model."
        ),
    ] = "ds"
    target_col: Annotated[str | None, typer.Option(help="Default y, or target.")] = None
    cutoff_col: Annotated[
        str | None, typer.Option(help="Part of a series' key; default cutoff, if present.")
    ] = None
    actuals: Annotated[
        str | None,
        typer.Option(
            help="Where the actual values are, if apart: a file, an address, a pattern or a folder."
        ),
    ] = None
    on: Annotated[
        str | None,
        typer.Option(
            help="By which columns forecasts and actual values belong together, comma-separated; "
            "default those of ids and times."
        ),
    ] = None
    sort: Annotated[bool, typer.Option(help="Sort by key first, in memory.")] = False
    zero_division: Annotated[
        ZeroDivision, typer.Option(help="What an element without a finite quotient does.")
    ] = "zero"

    def inputs(self, *files: str) -> Inputs:
        """Return files of forecasts."""
        return Inputs(files, self.actuals, names_in(self.on) or (), self.csv)

    def roles(
        self,
        models: str | tuple[str, ...] | None = None,
        exclude: str | None = None,
        **more: Any,
    ) -> Roles:
        """Return which columns have which role."""
        named = self.id_col, self.time_col, self.target_col, self.cutoff_col
        return Roles(*named, models, exclude, self.duplicates, **more)


def refuse_flags_of(kind: type[FileFlags], context: typer.Context, reason: str) -> None:
    """Refuse flags on how forecasts are read; how CSV files are written is of any file.

    Raises:
        UsageError: If the command line has one, be it with its default.
    """
    names = {field.name for field in fields(kind)} - {field.name for field in fields(CsvFlags)}
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{parameter.opts[0]} {reason}")


def names_in(given: str | None) -> tuple[str, ...] | None:
    """Return the columns of --by or --on; ``model`` goes without saying."""
    if given is None:
        return None
    names = (name.strip() for name in given.split(","))
    return tuple(name for name in dict.fromkeys(names) if name and name != "model")


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer, in which a parameter of a dataclass is a flag for each field."""
    parameters, groups = [], {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if isinstance(kind := parameter.annotation, type) and is_dataclass(kind):
            groups[parameter.name] = kind
            parameters += [
                inspect.Parameter(
                    field.name, parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
                )
                for field in fields(kind)
            ]
        else:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))

    @wraps(command)
    def expanded(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {each.name: each.annotation for each in parameters}
    return expanded
