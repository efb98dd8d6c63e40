"""The command line ``loss-scoring``."""

from loss_scoring.service import early_stop  # noqa: F401 - first, as what comes below takes seconds

# isort: split
import io
import json
import os
import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from loss_scoring.core import LOSSES
from loss_scoring.service.cli.boards import QUIET
from loss_scoring.service.cli.flags import with_flags
from loss_scoring.service.cli.source import explained
from loss_scoring.service.errors import ServiceError, UsageError, printable

_MODULES = {
    "serve": "serve",
    "score": "score",
    "check": "check",
    "report": "report",
    "compile": "compile_all",
}
"""Commands with a module of their own, and their functions."""


class _Commands(TyperGroup):
    """Imports the module of a command when it is asked for: serve alone takes as long as score."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*_MODULES, *(name for name in super().list_commands(ctx) if name not in _MODULES)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _MODULES and cmd_name not in self.commands:
            module = import_module(f"{__name__}.{cmd_name}")
            alone = typer.Typer(add_completion=False)
            alone.command(cmd_name)(with_flags(getattr(module, _MODULES[cmd_name])))
            self.commands[cmd_name] = typer.main.get_command(alone)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.list_commands(ctx):  # all are known to the one who suggests another
            for name in _MODULES:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_TABLE_WIDTH = 120
"""Where standard output is no terminal."""


@app.command()
def losses(
    as_json: Annotated[
        bool, typer.Option("--json", help="As GET /losses answers, for programs.")
    ] = False,
) -> None:
    """List the losses, their parameters and formulas (y target, p prediction, T elements)."""
    if as_json:
        from loss_scoring.service.api.routes import list_losses

        with explained("standard output"):
            typer.echo(json.dumps(list_losses(), indent=2))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

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


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the service, as GET /openapi.json answers."""
    from loss_scoring.service.app import openapi_document
    from loss_scoring.service.settings import Settings

    with explained("standard output"):
        settings = Settings()  # type: ignore[call-arg] # of the environment
        typer.echo(json.dumps(openapi_document(settings), indent=2))


def _print_version(wanted: bool) -> None:
    if wanted:
        from loss_scoring.service import __version__

        typer.echo(f"loss-scoring {__version__}")
        raise typer.Exit


def _be_quiet(wanted: bool) -> None:
    QUIET.set(wanted)


def _omit_colors(wanted: bool) -> None:
    if wanted:
        os.environ["NO_COLOR"] = "1"


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "-q", "--quiet", callback=_be_quiet, help="Nothing on standard error but errors."
        ),
    ] = False,
    no_color: Annotated[
        bool,
        typer.Option(
            "--no-color",
            callback=_omit_colors,
            is_eager=True,
            help="No colours, as with the variable NO_COLOR.",
        ),
    ] = False,
) -> None:
    """Score forecasts: one loss or several per series."""


def main() -> None:
    """Run the command line; a fault is one line on standard error.

    The exit status is 0, 1 if it cannot be done, or 2 if the command line makes no sense; that of
    check, whose 1 is a verdict, is 2 for either, and for a defect of this program too.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a name that its encoding lacks must not cost the scores
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UsageError as error:
        _end(str(error), 2)
    except (ServiceError, OSError) as error:
        _end(str(error), _status_of_failure())
    except MemoryError as error:  # before a file was opened
        _end(f"not enough memory: {error}", _status_of_failure())
    except Exception as error:  # a defect, which Python would end with 1
        if (status := _status_of_failure()) == 1:
            raise
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(status)


class _WithoutPandas:
    """Finds no pandas: pyarrow imports it, where it is installed, to ask whether a value is its.

    That takes a quarter of a second, and nothing that is scored or served here is of pandas.
    """

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("the command line does without", name=name)


def run() -> None:
    """Run the command line in a process of its own."""
    if not any(word.startswith("--engine") for word in sys.argv):  # Ray does not do without
        sys.meta_path.insert(0, _WithoutPandas)
    main()


def _status_of_failure() -> int:
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    return 2 if command == "check" else 1


def _end(fault: str, status: int) -> NoReturn:
    sys.stderr.write(f"error: {printable(fault)}\n")
    sys.exit(status)
