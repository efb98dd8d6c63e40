"""Where tables are printed."""

from rich.console import Console
from rich.table import Table

_TABLE_WIDTH = 120
_UNBOUNDED = 1 << 16


def table_console() -> Console:
    """Return standard output, wide enough for a table where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, _TABLE_WIDTH))


def print_whole(table: Table) -> None:
    """Print a table as wide as it is, so that no digit is cut, and its texts as they are."""
    Console(width=_UNBOUNDED, markup=False, emoji=False, highlight=False).print(table)
