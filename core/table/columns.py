"""Which column of a table is what, and what may be wrong with that: one rule for all entries.

Unless models are named, a column of numbers in any type is a model, but for those that have another
role or a name that forecasting libraries give to something else: an index, a forecast step, a bound
of an interval, a quantile. Whatever is left out is reported with the reason. For the same reason a
column of text that is mostly numbers is an error: it is a model with a cell that cannot be read.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from loss_scoring.core.table.joining.cells import holds_numbers, holds_text, is_text, spell_type
from loss_scoring.core.table.joining.faults import TableError, absent_faults
from loss_scoring.core.table.joining.roles import (
    ALL_NUMBERS,
    NIXTLA,
    TEXT,
    ModelColumns,
    numbers_as_text,
    role_of,
    spell_left_out,
)
from loss_scoring.core.table.numbers import narrowest

Duplicates = Literal["error", "allow"]
"""What rows of one series with the same time are."""


def find_models(
    schema: pa.Schema, taken: Collection[str], *, exclude: Collection[str] = ()
) -> ModelColumns:
    """Return the columns of predictions where nobody names them.

    Args:
        schema: All columns.
        taken: Those that are named for something else: group, time, cutoff, target.
        exclude: Columns that are no models, by the caller's word.

    Raises:
        TableError: If a column to exclude is absent.

    Example:
        >>> schema = pa.schema({"ds": "int64", "A": "double", "A-lo-90": "double", "B": "int32"})
        >>> found = find_models(schema, {"unique_id", "ds", "y"})
        >>> found.models, found.left_out
        (('A', 'B'), (('A-lo-90', 'a bound of a prediction interval'),))
    """
    names = set(schema.names)
    if absent := [name for name in dict.fromkeys(exclude) if name not in names]:
        raise TableError(*absent_faults(absent, schema.names))
    passed = {*taken, *NIXTLA, *exclude}
    fields = (field for field in schema if field.name not in passed)
    return ModelColumns.of((field.name, _reason(field)) for field in fields)


def text_faults(
    table: pa.Table | pa.RecordBatch,
    named: Collection[str],
    left_out: Collection[str] = (),
    *,
    exclude: str = "exclude",
    unit: str = "row",
) -> Iterator[tuple[str, str]]:
    """Yield each column of text that should hold numbers, and what is wrong with it.

    Args:
        table: Rows to judge by.
        named: Columns that must hold numbers.
        left_out: Columns that nobody named (``ModelColumns.texts``). They are at fault if half of
            their cells read as numbers, blank ones not counted, and none has leading zeros, as
            codes have. Nor are categories that are all numbers, which somebody made on purpose.
        exclude: How the caller leaves a column out, for the message.
        unit: What a cell is to the caller.

    Example:
        >>> table = pa.table({"A": ["1100", "1,900"], "store": ["north", "5"], "note": ["x", "y"]})
        >>> dict(text_faults(table, [], ["A", "store", "note"])).keys()
        dict_keys(['A', 'store'])
    """
    for name in (*named, *left_out):
        places = table.schema.get_all_field_indices(name)
        if len(places) != 1 or not holds_text(type_ := table.schema.field(places[0]).type):
            continue
        detail = numbers_as_text(table.column(name), unit)
        if name in named:
            yield name, detail or f"must hold numbers, not {spell_type(type_)}"
        elif detail and not (pa.types.is_dictionary(type_) and detail.startswith(ALL_NUMBERS)):
            yield name, f"{detail}, or leave the column out by {exclude}"


def _reason(field: pa.Field) -> str:
    """Return why a column is no model, empty if it is a model."""
    if role := role_of(field.name):
        return role
    if holds_numbers(field.type):
        return ""
    return TEXT if holds_text(field.type) else f"holds {spell_type(field.type)}"


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
        weight: The column of what each element weighs, if there is one.
        scale: The column of what scaled losses of a series are divided by, if there is one.
    """

    keys: tuple[str, ...]
    target: str
    models: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    time: str | None = None
    weight: str | None = None
    scale: str | None = None

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns of targets and predictions, which decide the type of the elements."""
        return (self.target, *self.models)

    @property
    def doubles(self) -> tuple[str, ...]:
        """The columns of weights and scales, which are double whatever the elements are."""
        return tuple(name for name in (self.weight, self.scale) if name is not None)


def faults_of(schema: pa.Schema, layout: Layout) -> Iterator[tuple[str, str]]:
    """Yield each column that is not as it should be, and what is wrong with it.

    Text where numbers belong is left to ``text_faults``, which names the cell.
    """
    count = Counter(schema.names)
    named = Counter([*layout.keys, *layout.numbers, *layout.doubles])
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


def key_faults(keys: Iterable[str], losses: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each key that could not be told from a column of an answer with these losses."""
    of_losses = ((name, f"{name}_masked", f"{name}_gradient") for name in losses)
    taken = {"model", "length"}.union(*of_losses)
    for name in keys:
        if name in taken:
            yield name, "has the name of a column of the answer; rename it"


def _type_faults(field: pa.Field, *, is_key: bool) -> Iterator[tuple[str, str]]:
    name, type_ = field.name, field.type
    if not is_key:
        if not (holds_numbers(type_) or holds_text(type_)):
            yield name, f"must hold numbers, not {spell_type(type_)}"
        return
    if not _is_key(type_):
        wanted = "must hold text, numbers, dates or times to group by"
        yield (
            name,
            f"{wanted}, not {spell_type(type_)}; cast it to text, UUIDs and other objects as well",
        )


def find_time(schema: pa.Schema, time: str, layout: Layout) -> str | None:
    """Return the column of times by which repeated rows can be found, None if there is none.

    Raises:
        TableError: If a column is named, other than Nixtla's ``ds``, that is absent, appears
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
    raise TableError((time, f"{wanted}, not {spell_type(type_)}; cast it, or allow duplicates"))


def _without_models(layout: Layout) -> str:
    if not layout.left_out:
        return "there is no column of predictions: none is named, and no other holds numbers"
    left_out = spell_left_out(layout.left_out)
    return f"there is no column of predictions; left out: {left_out}; name the models"


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
