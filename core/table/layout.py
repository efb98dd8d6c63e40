"""Which column of a long table is what, and what may be wrong with that."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from loss_scoring.core.options import LOSSES
from loss_scoring.core.table.columns import (
    TableError,
    absent_faults,
    holds_numbers,
    holds_text,
    is_text,
    listed,
)
from loss_scoring.core.table.numbers import narrowest

Duplicates = Literal["error", "allow"]
"""What rows of one series with the same time are."""
_TAKEN = {
    "model",
    "length",
    *LOSSES,
    *(f"{name}_{column}" for name in LOSSES for column in ("masked", "gradient")),
}
"""Columns of the answer; one of the same name beside them could not be told from them."""


@dataclass(frozen=True)
class Layout:
    """Which column is what.

    Attributes:
        keys: The columns that together name a series.
        target: The column of actual values.
        models: The columns of predictions.
        left_out: Column and reason, of those that were taken for no models; see ``ModelColumns``.
        time: The column that no two rows of a series have the same value of; None if that is not
            to be checked.
    """

    keys: tuple[str, ...]
    target: str
    models: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    time: str | None = None

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns of numbers."""
        return (self.target, *self.models)


def faults_of(schema: pa.Schema, layout: Layout) -> Iterator[tuple[str, str]]:
    """Yield each column that is not as it should be, and what is wrong with it.

    Text where numbers belong is left to ``text_faults``, which names the cell.
    """
    count = Counter(schema.names)
    named = Counter([*layout.keys, *layout.numbers])
    if not layout.keys:
        yield "", "no column is named that tells series apart"
    if not layout.models:
        yield "", _without_models(layout)
    yield from absent_faults([name for name in named if not count[name]], schema.names)
    for name in named:
        if named[name] > 1 and count[name]:
            yield name, "is named more than once"
        elif count[name] > 1:
            yield name, "is in the table more than once"
        elif count[name]:
            yield from _type_faults(schema.field(name), is_key=name in layout.keys)


def _type_faults(field: pa.Field, *, is_key: bool) -> Iterator[tuple[str, str]]:
    name, type_ = field.name, field.type
    if not is_key:
        if not (holds_numbers(type_) or holds_text(type_)):
            yield name, f"must hold numbers, not {type_}"
        return
    if name in _TAKEN:
        yield name, "has the name of a column of the answer; rename it"
    if not _is_key(type_):
        wanted = "must hold text, numbers, dates or times to group by"
        yield name, f"{wanted}, not {type_}; cast it to text, UUIDs and other objects as well"


def find_time(schema: pa.Schema, time: str, layout: Layout) -> str | None:
    """Return the column of times by which repeated rows can be found, None if there is none.

    Raises:
        TableError: If a column is named, other than Nixtla's ``ds``, that is not there, is there
            more than once or has values that cannot be compared.
    """
    count = schema.names.count(time)
    if count == 0 and time != "ds":
        raise TableError(*absent_faults([time], schema.names))
    if count == 0 or time in layout.keys:
        return None
    type_ = schema.field(time).type if count == 1 else None
    if type_ is not None and (_is_key(type_) or pa.types.is_duration(type_)):
        return time
    if time == "ds" or (type_ is not None and pa.types.is_null(type_)):
        return None
    if type_ is None:
        raise TableError((time, "is in the table more than once"))
    wanted = "must hold times, or text or numbers, to find repeated rows by"
    raise TableError((time, f"{wanted}, not {type_}; cast it, or allow duplicates"))


def _without_models(layout: Layout) -> str:
    if not layout.left_out:
        return "there is no column of predictions: none is named, and no other holds numbers"
    return (
        f"there is no column of predictions; left out: {listed(layout.left_out)}; name the models"
    )


def element_type(schema: pa.Schema, layout: Layout) -> pa.DataType:
    """Return what to compute in: float if it holds the target and all models exactly, else double.

    Example:
        >>> schema = pa.schema({"y": "int16", "A": "float", "B": "int32"})
        >>> element_type(schema, Layout(("id",), "y", ("A",)))
        DataType(float)
        >>> element_type(schema, Layout(("id",), "y", ("A", "B")))
        DataType(double)
    """
    return narrowest(schema.field(name).type for name in layout.numbers)


def _is_key(type_: pa.DataType) -> bool:
    """Tell whether keys of a type are equal by value, also those that a dictionary codes."""
    if pa.types.is_dictionary(type_):
        return _is_key(type_.value_type) and not pa.types.is_floating(type_.value_type)
    kinds = (
        is_text,
        pa.types.is_integer,
        pa.types.is_boolean,
        pa.types.is_date,
        pa.types.is_timestamp,
        pa.types.is_time,
        pa.types.is_decimal,
        pa.types.is_float32,
        pa.types.is_float64,
    )
    return any(is_kind(type_) for is_kind in kinds)
