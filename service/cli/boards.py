"""What commands print: leaderboards and other tables, for people or for programs."""

import csv
import json
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from loss_scoring.core.table import Leaderboard, spell
from loss_scoring.service.cli.source import explained
from loss_scoring.service.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

Format = Literal["table", "json", "csv", "markdown"]
_UNBOUNDED = 1 << 16
_FORCED = {"FORCE_COLOR", "TTY_COMPATIBLE"}
"""Variables by which rich takes what is no terminal for one."""
QUIET = ContextVar("quiet", default=False)
"""Whether nothing but errors is to be said."""
MARK = " *"
"""Behind the name of a model that lacks series."""


def print_board(board: Leaderboard, form: Format | None, *, aside: bool = False) -> None:
    """Print a leaderboard to standard output, and what was left out to standard error.

    Args:
        board: What to print.
        form: How; by default a table at a terminal, and CSV elsewhere.
        aside: Whether it goes to standard error too, as a table by default.
    """
    if aside and QUIET.get():
        return
    stream = sys.stderr if aside else sys.stdout
    with explained("standard error" if aside else "standard output"):
        form = form or ("table" if aside or is_terminal(stream) else "csv")
        if form == "table":
            from rich.console import Console

            console = Console(
                stderr=aside, width=_UNBOUNDED, markup=False, emoji=False, highlight=False
            )
            console.print(_table(_marked(board)))
        else:
            stream.write(_WRITERS[form](board))
            stream.flush()
    say(*board.notes)


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal, or to be taken for one."""
    if not stream.isatty() and not _FORCED & os.environ.keys():
        return False  # without the import of rich
    from rich.console import Console

    return Console(file=stream).is_terminal


def write_out(text: str) -> None:
    """Write to standard output, all of it or an error that says why not."""
    with explained("standard output"):
        sys.stdout.write(text)
        sys.stdout.flush()


def say(*lines: str) -> None:
    """Write lines to standard error; if nobody reads them, the scores still matter."""
    if QUIET.get():
        return
    with suppress(OSError):
        sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))


def to_json(rows: Any) -> str:
    """Return what ``to_pylist`` gives, or plain values, as JSON."""
    return json.dumps(rows, indent=2, default=str, allow_nan=False) + "\n"


def finite(cell: Any) -> Any:
    """Return a value that JSON has: what is no finite number by the name that JavaScript gives."""
    if not isinstance(cell, float) or math.isfinite(cell):
        return cell
    return "NaN" if math.isnan(cell) else "Infinity" if cell > 0 else "-Infinity"


def _rows(board: Leaderboard) -> list[dict[str, Any]]:
    columns = {name: spell(board.table[name]) for name in board.table.column_names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json(board: Leaderboard) -> str:
    return to_json(_rows(board))


def _csv(board: Leaderboard) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(printable, board.table.column_names))
    for row in _rows(board):
        writer.writerow(printable(x) if isinstance(x, str) else x for x in row.values())
    return text.getvalue()


def _markdown(board: Leaderboard) -> str:
    lines = _marked(board).to_markdown().splitlines()
    return "".join(f"{printable(line)}\n" for line in lines)


_WRITERS: dict[str, Callable[[Leaderboard], str]] = {
    "json": _json,
    "csv": _csv,
    "markdown": _markdown,
}


def _marked(board: Leaderboard) -> Leaderboard:
    """Mark the models that have no loss of some series."""
    table = board.table
    if "num_failures" not in table.column_names:
        return board
    models, failures = table["model"].to_pylist(), table["num_failures"].to_pylist()
    marked = [
        f"{printable(model)}{MARK if count else ''}"
        for model, count in zip(models, failures, strict=True)
    ]
    place = table.column_names.index("model")
    return Leaderboard(table.set_column(place, "model", pa.array(marked)), board.notes)


def _table(board: Leaderboard) -> "Table":
    from rich.table import Table

    names, rows = board.shown()
    has_failures = "num_failures" in board.table.column_names
    failed = has_failures and pc.max(board.table["num_failures"]).as_py()
    caption = f"{MARK.strip()} has no loss of some series, which are left out for all models"
    table = Table(caption=caption if failed else None)
    for name in names:
        is_name = name in ("loss", "model")
        table.add_column(printable(name), justify="left" if is_name else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    return table
