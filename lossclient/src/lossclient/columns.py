"""The role of each column of a frame, and which are models where none are named.

A column of numbers in any type is a model, unless it has another role or a name that forecasting
libraries give to something else: an index, a forecast step, a bound of an interval, a quantile.
Whatever is left out is reported with the reason, so that no model vanishes in silence; and text
that is mostly numbers is an error, as it is a model with a cell that could not be read. The service
and its command line have the same rule.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from lossclient.arguments import NAMES, are_names, require
from lossclient.cells import Cells, content, is_nested, numbers_in, texts_in
from lossclient.exceptions import InvalidInput
from lossclient.joining.faults import listed, suggestion
from lossclient.joining.roles import (
    ALL_NUMBERS,
    NIXTLA,
    TEXT,
    ModelColumns,
    numbers_as_text,
    role_of,
    spell_left_out,
)


@dataclass(frozen=True)
class Columns:
    """Which column is what, as `AsyncClient.score` has it."""

    id: str = "unique_id"
    time: str | None = "ds"
    target: str = "y"
    cutoff: str | None = "cutoff"
    models: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    weight: str | None = None
    scale: str | None = None
    by: Sequence[str] | None = None

    @property
    def doubles(self) -> dict[str, str]:
        """The columns of weights and scales, by their names on the wire."""
        named = {"weight": self.weight, "scale": self.scale}
        return {name: column for name, column in named.items() if column is not None}

    @property
    def keys(self) -> list[str]:
        """The columns that together name a series."""
        return [self.id] if self.cutoff is None else [self.id, self.cutoff]

    def __post_init__(self) -> None:
        for name in ("id", "target"):
            value = getattr(self, name)
            require(isinstance(value, str), f"{name}_col", "the name of a column", value)
        for name in ("time", "cutoff", "weight", "scale"):
            value = getattr(self, name)
            is_name = value is None or isinstance(value, str)
            require(is_name, f"{name}_col", "the name of a column, or None", value)
        models = self.models
        require(models is None or are_names(models), "models", f"{NAMES}, or None", models)
        require(are_names(self.exclude), "exclude", NAMES, self.exclude)
        require(self.by is None or are_names(self.by), "by", f"{NAMES}, or None", self.by)
        if self.models is not None and self.exclude:
            raise InvalidInput("exclude is for models that nobody names; leave it out of models")


def resolve(names: Sequence[str], columns: Columns) -> Columns:
    """Return the columns as they are in a frame.

    Raises:
        InvalidInput: If one is absent, or two are the same.
    """
    cutoff = columns.cutoff
    if cutoff not in names and cutoff == Columns.cutoff:
        cutoff = None
    roles = (columns.id, columns.time, columns.target, cutoff, *columns.doubles.values())
    named = [name for name in roles if name is not None]
    if twice := [name for name in named if named.count(name) > 1]:
        raise InvalidInput(
            f"two of id_col, time_col, target_col, cutoff_col, weight_col and scale_col are "
            f"{twice[0]!r}; each must be a column of its own"
        )
    models = None if columns.models is None else tuple(dict.fromkeys(columns.models))
    if models is not None and not models:
        raise InvalidInput("models is empty: name at least one column of predictions")
    for name in (*named, *(models or ()), *columns.exclude):
        if name not in names:
            unordered = "; time_col=None takes rows as they come" if name == columns.time else ""
            raise InvalidInput(
                f"no column {name!r} among {listed(names)}{unordered}{suggestion(name, names)}"
            )
    return replace(columns, cutoff=cutoff, models=models)


def find_models(
    names: Sequence[str], columns: Columns, cells: Callable[[str], Cells]
) -> ModelColumns:
    """Return the columns of predictions.

    Args:
        names: Of all columns.
        columns: As `resolve` returns them.
        cells: Returns the content of a column.

    Raises:
        InvalidInput: If text should be numbers, or no model is left.

    Example:
        >>> content = {"A": ["1.5"], "h": [1], "note": ["x"], "B": [2]}
        >>> arrays = {name: pa.chunked_array([cells]) for name, cells in content.items()}
        >>> find_models(list(content), Columns(exclude=["A"]), arrays.__getitem__)
        ModelColumns(models=('B',), left_out=(('h', 'a forecast step'), ('note', 'text')))
    """
    if columns.models is not None:
        return ModelColumns(tuple(columns.models))
    roles = {columns.id, columns.time, columns.target, columns.cutoff, *columns.doubles.values()}
    passed = {*roles, *NIXTLA, *columns.exclude, *(columns.by or ())}
    found = ModelColumns.of((name, _reason(name, cells)) for name in names if name not in passed)
    if not found.models:
        left_out = f"; left out: {spell_left_out(found.left_out)}; name the models"
        left_out = left_out if found.left_out else ""
        raise InvalidInput(f"no column of predictions among {listed(names)}{left_out}")
    return found


def numbers_of(name: str, cells: Cells) -> pa.ChunkedArray:
    """Return a column that must hold numbers.

    Raises:
        InvalidInput: If it holds anything else.
    """
    numbers = numbers_in(cells)
    if numbers is not None:
        return numbers
    holds, hint = content(cells), ""
    if (texts := texts_in(cells)) is not None:
        if fault := _numbers_as_text(texts):
            raise InvalidInput(f"column {name!r} {fault}")
        holds = ", ".join(
            ["text", *(repr(text[:64]) for text in texts.drop_null()[:1].to_pylist())]
        )
    elif is_nested(cells):
        hint = "; a row is one element of a series: explode the lists"
    raise InvalidInput(f"column {name!r} must hold numbers, not {holds}{hint}")


def _reason(name: str, cells: Callable[[str], Cells]) -> str:
    """Return why a column is no model, empty if it is one."""
    if role := role_of(name):
        return role
    column = cells(name)
    if numbers_in(column) is not None:
        return ""
    texts = texts_in(column)
    if texts is None:
        return f"holds {content(column)}"
    fault = _numbers_as_text(texts)
    is_category = isinstance(column, pa.ChunkedArray) and pa.types.is_dictionary(column.type)
    if fault and not (is_category and fault.startswith(ALL_NUMBERS)):  # those are wanted
        raise InvalidInput(f"column {name!r} {fault}, or leave the column out by exclude")
    return TEXT


def _numbers_as_text(texts: pa.ChunkedArray) -> str | None:
    return numbers_as_text(texts.combine_chunks().dictionary_encode(), "row")
