"""Which column of a frame is what."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from lossclient.arguments import Rule, check, is_names, is_text, or_none
from lossclient.exceptions import InvalidInput

_NO_MODEL = re.compile(r"unique_id|ds|cutoff|y|__index_level_\d+__|.*-(lo|hi)-\d+(\.\d+)?")
"""Numbers, but not forecasts: Nixtla's own columns, also where others are named for them, pandas'
index, and bounds of prediction intervals. It is the service's rule as well."""

Frame = nw.DataFrame[Any]

MODELS = Rule("a list of names of columns", is_names)
_COLUMN = Rule("the name of a column", is_text)
_RULES = {
    "id_col": _COLUMN,
    "time_col": or_none(_COLUMN),
    "target_col": _COLUMN,
    "cutoff_col": or_none(_COLUMN),
    "models": or_none(MODELS),
}


@dataclass(frozen=True)
class Columns:
    """Which column is what.

    Attributes:
        id: Names a series.
        time: Orders its rows; None takes them as they come.
        target: The actual values.
        cutoff: Names a series together with the id; ignored where it is the default and absent.
        models: The columns of predictions; None takes all others of floats and integers (not
            decimals nor booleans) that are not prediction intervals (``-lo-90``, ``-hi-90``).

    Raises:
        InvalidInput: If one is no name, or no list of them.
    """

    id: str = "unique_id"
    time: str | None = "ds"
    target: str = "y"
    cutoff: str | None = "cutoff"
    models: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check({name: getattr(self, name.removesuffix("_col")) for name in _RULES}, _RULES)


def resolve(frame: Frame, columns: Columns) -> Columns:
    """Return the columns as they are in a frame, all models named.

    Raises:
        InvalidInput: If one is not there, two are the same, or no model is left.
    """
    schema = frame.schema
    cutoff = columns.cutoff
    if cutoff not in schema and cutoff == Columns.cutoff:
        cutoff = None
    roles = (columns.id, columns.time, columns.target, cutoff)
    named = [name for name in roles if name is not None]
    if twice := [name for name in named if named.count(name) > 1]:
        raise InvalidInput(
            f"two of id_col, time_col, target_col and cutoff_col are {twice[0]!r}; "
            "each must be a column of its own"
        )
    models = columns.models
    if models is None:
        models = [
            name
            for name, type_ in schema.items()
            if (type_.is_integer() or type_.is_float())
            and name not in named
            and not _NO_MODEL.fullmatch(name)
        ]
        if not models:
            raise InvalidInput(f"no column of predictions among {', '.join(schema)}")
    models = tuple(dict.fromkeys(models))
    if not models:
        raise InvalidInput("models is empty: name at least one column of predictions")
    for name in (*named, *models):
        if name not in schema:
            raise InvalidInput(f"no column {name!r} among {', '.join(schema)}")
    return Columns(columns.id, columns.time, columns.target, cutoff, models)
