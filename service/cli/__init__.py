"""The command line ``loss-scoring``."""

import typer

from service.cli.serve import serve

app = typer.Typer(no_args_is_help=True)
app.command()(serve)


@app.callback()
def _root() -> None:
    """Score forecasts."""


def main() -> None:
    """Run the command line."""
    app()
