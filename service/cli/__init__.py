"""The command line ``loss-scoring``."""

from loss_scoring.service import early_stop  # noqa: F401 - first, as what comes below takes seconds

# isort: split
import io
import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loss_scoring.core import LOSSES
from loss_scoring.service import __version__
from loss_scoring.service.cli.check import check
from loss_scoring.service.cli.compile import compile_all
from loss_scoring.service.cli.files import explained
from loss_scoring.service.cli.score import score
from loss_scoring.service.cli.serve import serve
from loss_scoring.service.errors import ServiceError, printable

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command()(serve)
app.command()(score)
app.command()(check)
app.command("compile")(compile_all)

_TABLE_WIDTH = 120
"""Where standard output is no terminal."""


@app.command()
def losses() -> None:
    """List the losses, their parameters and formulas (y target, p prediction, T elements)."""
    table = Table("name", "loss of a series", "gradient of an element")
    table.add_column("parameters", overflow="fold", min_width=len("block_denom_grad=true"))
    for loss in LOSSES.values():
        parameters = "\n".join(
            f"{name}={str(parameter.default).lower()}\n({parameter.bounds})"
            for name, parameter in loss.parameters.items()
        )
        texts = (f"{loss.title}:\n{loss.formula}", loss.gradient, parameters)
        table.add_row(loss.name, *map(escape, texts))
    console = Console()
    wide = None if console.is_terminal else max(console.width, _TABLE_WIDTH)
    with explained("standard output"):
        console.print(table, width=wide)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"loss-scoring {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """Score forecasts: one loss or several per series."""


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a name that its encoding lacks must not cost the scores
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (ServiceError, OSError) as error:
        _end(str(error))
    except MemoryError as error:  # before a file was opened
        _end(f"not enough memory: {error}")


def _end(fault: str) -> NoReturn:
    sys.stderr.write(f"error: {printable(fault)}\n")
    sys.exit(2)
