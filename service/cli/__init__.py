"""The command line ``loss-scoring``."""

from service import early_stop  # noqa: F401 - first, as what comes below takes seconds

# isort: split
import sys

import typer

from service.cli.compile import compile_all
from service.cli.losses import losses
from service.cli.score import score
from service.cli.serve import serve
from service.errors import ServiceError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Score forecasts: MAE, MAPE and sMAPE per series.",
)
app.command()(serve)
app.command()(score)
app.command()(losses)
app.command("compile")(compile_all)


def main() -> None:
    """Run the command line; what a user got wrong is told in words, with exit status 2."""
    try:
        app()
    except ServiceError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
