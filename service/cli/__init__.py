"""The command line ``loss-scoring``."""

from loss_scoring.service import early_stop  # noqa: F401 - first, as what comes below takes seconds

# isort: split
import io
import sys
from typing import Annotated

import typer

from loss_scoring.service import __version__
from loss_scoring.service.cli.compile import compile_all
from loss_scoring.service.cli.losses import losses
from loss_scoring.service.cli.score import score
from loss_scoring.service.cli.serve import serve
from loss_scoring.service.errors import ServiceError

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command()(serve)
app.command()(score)
app.command()(losses)
app.command("compile")(compile_all)


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
    """Score forecasts: MAE, MAPE and sMAPE per series."""


def main() -> None:
    """Run the command line; what a user got wrong is told in words, with exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that its encoding lacks costs no scores
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (ServiceError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
