"""Where tables are printed."""

from rich.console import Console

_TABLE_WIDTH = 120


def table_console() -> Console:
    """Return standard output, wide enough for a table where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, _TABLE_WIDTH))
