"""Which column of a long table is what, and what may be wrong with that."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa

from core.options import LOSSES

_INTERVAL = re.compile(r".*-(lo|hi)-\d+(\.\d+)?")
"""A bound of a prediction interval, as Nixtla names them."""
_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas leaves of a frame's index."""
_NO_MODELS = ("unique_id", "ds", "cutoff", "y")
"""Nixtla's id, time, cutoff and target; no predictions, even where others stand for them."""
_TAKEN = {
    "model",
    "length",
    *LOSSES,
    *(f"{name}_{column}" for name in LOSSES for column in ("masked", "gradient")),
}
"""Columns of the answer; one of the same name beside them could not be told from them."""


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


@dataclass(frozen=True)
class Layout:
    """Which column is what.

    Attributes:
        keys: The columns that together name a series.
        target: The column of actual values.
        models: The columns of predictions.
    """

    keys: tuple[str, ...]
    target: str
    models: tuple[str, ...]

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns of numbers."""
        return (self.target, *self.models)


def find_models(schema: pa.Schema, taken: Collection[str]) -> tuple[str, ...]:
    """Return the columns of predictions where nobody names them: the one rule of all entries.

    They are those of floats or integers (not booleans, decimals, dates or times), but for what is
    taken, ``unique_id``, ``ds``, ``cutoff`` and ``y``, prediction intervals, and pandas' index.

    Args:
        schema: All columns.
        taken: Those that are named for something else: group, time, cutoff, target.

    Example:
        >>> schema = pa.schema({"ds": "int64", "A": "double", "A-lo-90": "double", "B": "int32"})
        >>> find_models(schema, {"unique_id", "ds", "y"})
        ('A', 'B')
    """
    return tuple(
        field.name
        for field in schema
        if (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
        and field.name not in taken
        and field.name not in _NO_MODELS
        and not _INTERVAL.fullmatch(field.name)
        and not _INDEX.fullmatch(field.name)
    )


def faults_of(schema: pa.Schema, layout: Layout) -> Iterator[tuple[str, str]]:
    """Yield each column that is not as it should be, and what is wrong with it."""
    stands = Counter(schema.names)
    named = Counter([*layout.keys, *layout.numbers])
    if not layout.keys:
        yield "", "no column is named that tells series apart"
    if not layout.models:
        yield "", "there is no column of predictions: none is named, and no other holds numbers"
    for name in named:
        if named[name] > 1:
            yield name, "is named more than once"
        elif stands[name] != 1:
            yield name, "stands more than once" if stands[name] else "is absent"
        elif name in layout.keys:
            type_ = schema.field(name).type
            if name in _TAKEN:
                yield name, "has the name of a column of the answer; rename it"
            if not _is_key(type_):
                yield name, f"must hold text, numbers, dates or times to group by, not {type_}"
        elif not holds_numbers(type_ := schema.field(name).type):
            yield name, f"must hold numbers, not {type_}"


def element_type(schema: pa.Schema, layout: Layout) -> pa.DataType:
    """Return what to compute in: float if the target and all models are, double otherwise."""
    types = {schema.field(name).type for name in layout.numbers}
    return pa.float32() if types == {pa.float32()} else pa.float64()


def holds_numbers(type_: pa.DataType) -> bool:
    """Tell whether a column of this type can be scored; one of nulls only is all missing."""
    kinds = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null)
    return any(is_kind(type_) for is_kind in kinds)


def is_text(type_: pa.DataType) -> bool:
    """Tell whether a column of this type holds text."""
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(type_) for is_kind in kinds)


def _is_key(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return is_text(type_.value_type) or bool(pa.types.is_integer(type_.value_type))
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
