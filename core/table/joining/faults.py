"""What is wrong with the columns and keys of a table."""

import difflib
from collections.abc import Collection, Iterator

HINT = (
    "does the table hold its rows twice, or is there another column, such as a cutoff, that tells "
    "series apart?"
)
_MAX_COMPARED = 100
_SHOWN = 20
"""Names in a message, before the rest is counted."""


class TableError(ValueError):
    """Columns or keys of a table break the rules.

    Attributes:
        faults: The column, empty where it is none in particular, and what is wrong with it.
    """

    def __init__(self, *faults: tuple[str, str]) -> None:
        self.faults = faults
        super().__init__(
            "; ".join(f"column {name!r} {detail}" if name else detail for name, detail in faults)
        )


def absent_faults(absent: Collection[str], names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield each absent column, the first few with a name that is close to it."""
    for i, name in enumerate(absent):
        yield name, "is absent" + (suggestion(name, names) if i < _SHOWN else "")


def listed(names: Collection[object]) -> str:
    """Return names for a message: the first few, and how many more there are."""
    shown = ", ".join(map(str, list(names)[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def suggestion(name: str, names: Collection[str]) -> str:
    """Return a question for the name that was meant, empty if none is close.

    Example:
        >>> suggestion("unique_ids", ["unique_id", "y"])
        "; did you mean 'unique_id'?"
    """
    compared = (known for known in list(names)[:_MAX_COMPARED] if len(known) <= 64)
    folded = {known.casefold(): known for known in compared}
    close = difflib.get_close_matches(name[:64].casefold(), folded, 1)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""
