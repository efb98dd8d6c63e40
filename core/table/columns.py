"""Which column of a table is what, and what may be wrong with that: one rule for all entries.

Unless models are named, a column of numbers in any type is a model, but for those that have another
role or a name that forecasting libraries give to something else: an index, a forecast step, a bound
of an interval, a quantile. Whatever is left out is reported with the reason. For the same reason a
column of text that is mostly numbers is an error: it is a model with a cell that cannot be read.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from loss_scoring.core.table.joining.cells import holds_numbers, is_text, spell_type
from loss_scoring.core.table.joining.faults import TableError, absent_faults
from loss_scoring.core.table.numbers import narrowest

Duplicates = Literal["error", "allow"]
"""What rows of one series with the same time are."""
_ROLES = ("unique_id", "ds", "cutoff", "y")
"""Nixtla's id, time, cutoff and target; no predictions, even where others have these roles."""
_DECIMAL = r"(?>\d+(\.\d+)?)"
"""Atomic, as a name of many of them would be divided in exponentially many ways."""
_LEVEL = r"0?\.0*[1-9]\d*"
"""A number strictly between 0 and 1."""
_AFTER = r"(.*[-_ .])?"
"""What may come before, most often the name of a model."""
_NAMES = {
    "an index": r"|index|idx|level_\d+|__index_level_\d+__|__null_dask_index__"
    r"|unnamed: \d+(\.\d+)*(_level_\d+)?|_c\d+|\.{3}\d+|row|row_?(id|nr|num|number|index|names?)",
    "an id": r"(item|series)_id",
    "a time": r"timestamp|date|datetime|time",
    "a weight": r"(sample_)?weights?",
    "an actual value": r"y_(true|actual)|actuals?|target|ground_truth",
    "a forecast step": r"fh|lead_?time|(days?|hours?|minutes?|weeks?|months?|periods?)_ahead|ahead"
    r"|((forecast|prediction)_)?(h|horizon|steps?|lead)"
    r"|(h|horizon|steps?|lead|time|forecast|prediction)_(step|horizon|id|idx|index|number)"
    r"|(h|steps?)_ahead|lead_(days|hours|minutes|weeks|months|steps?)",
    "a fold of a cross-validation": r"((cv_)?(fold|split)|window)(_(id|idx|index|number))?",
    "a bound of a prediction interval": rf"{_AFTER}(lo|low|hi|high|lower|upper)[-_ .]?{_DECIMAL}%?"
    r"|.*[-_ .](lo|hi)|(.*[-_ .])?(low|high|lwr|upr)"
    rf"|{_AFTER}(lower|upper)([-_ .]?(bound|limit|ci|pi)|[-_ .]{_DECIMAL}%?)*"
    r"|(lower|upper) (y|yhat|target|value|mean|forecast|prediction)",
    "a standard error": rf"se|{_AFTER}(mean_se|std_?err(or)?|standard_error)|se[._]fit",
    "a quantile": rf"{_LEVEL}|.+[-_ ]0\.0*[1-9]\d*|{_AFTER}{_DECIMAL}%"
    rf"|(q|p|quantile|percentile)[-_]?\d\d?(\.\d+)?|.+-q-{_DECIMAL}|.+_ql{_DECIMAL}"
    rf"|{_AFTER}(q|p|quantile|percentile)[-_ (]?{_LEVEL}\)?"
    rf"|{_AFTER}(q|quantile|percentile)[-_]?(\d\d(\.\d+)?|0_\d+)"
    rf"|{_AFTER}{_LEVEL}[-_ ](q|quantile|percentile)",
}
"""What a column is that has one of these names, in the libraries' own spelling: pandas, polars,
sktime, Nixtla, TimeGPT, AutoGluon, Chronos, GluonTS, Prophet, NeuralProphet, skforecast."""
_PATTERNS = {kind: re.compile(names, re.IGNORECASE) for kind, names in _NAMES.items()}
_BLANK = r"(?i)^\s*(nan|na|n/a|<na>|nat|none|null|[-.?]+)?\s*$"
"""A cell of text without a value, which says nothing about the others."""
_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_CODE = r"^\s*0\d+\s*$"
"""A cell that would lose a leading zero as a number: where there is one, a column holds codes."""
_WRITTEN = (
    r"(?i)^\s*\(?[-+\x{2212}]?\s*([a-z]{0,2}\p{Sc}\s*)?[-+\x{2212}]?"
    r"(inf(inity)?|(\d+[.,]?\d*|[.,]\d+"
    r"|\d{1,3}(,\d{2,3})*,\d{3}(\.\d*)?|\d{1,3}(\.\d{3})+(,\d*)?"
    r"|\d{1,3}(['\x{2019}_\s\x{a0}\x{2009}\x{202f}]\d{3})+([.,]\d*)?)(e[-+]?\d+)?)"
    r"[\s\x{a0}\x{202f}]*(%|\p{Sc})?\s*\)?\s*$"
)
"""A number as people write it: with a currency, a percent sign, a comma, or thousands apart."""
_ALL_NUMBERS = "holds numbers as text"
_TEXT = "text"


class LeftOutWarning(UserWarning):
    """Columns that were neither named nor excluded are not scored."""


@dataclass(frozen=True)
class ModelColumns:
    """The columns of predictions, and what was taken for none.

    Attributes:
        models: Columns of predictions, in the order of the table.
        left_out: Column and reason, in the order of the table; those that have another role or
            were excluded are not listed.
    """

    models: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns that were left out as text; ``text_faults`` tells whether they should be."""
        return tuple(name for name, reason in self.left_out if reason == _TEXT)

    def __str__(self) -> str:
        """Return what is scored and what is not, for a message."""
        scored = f"scored as models: {', '.join(self.models)}"
        return f"{scored}; left out: {listed(self.left_out)}" if self.left_out else scored


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
    passed = {*taken, *_ROLES, *exclude}
    reasons = {i: _reason(field) for i, field in enumerate(schema) if field.name not in passed}
    return ModelColumns(
        tuple(schema.field(i).name for i, reason in reasons.items() if not reason),
        tuple((schema.field(i).name, reason) for i, reason in reasons.items() if reason),
    )


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
        detail = _numbers_as_text(table.column(name), unit)
        if name in named:
            yield name, detail or f"must hold numbers, not {spell_type(type_)}"
        elif detail and not (pa.types.is_dictionary(type_) and detail.startswith(_ALL_NUMBERS)):
            yield name, f"{detail}, or leave the column out by {exclude}"


def holds_codes(texts: pa.ChunkedArray) -> bool:
    """Tell whether there is a cell that would lose a leading zero as a number, such as 007."""
    return any(_matches(chunk, _CODE).true_count for chunk in texts.chunks)


def listed(left_out: Collection[tuple[str, str]]) -> str:
    """Return columns and why they were left out, for a message."""
    return ", ".join(f"{name!r} ({reason})" for name, reason in left_out)


def holds_text(type_: pa.DataType) -> bool:
    """Tell whether a column of this type holds text, be it coded by a dictionary."""
    return is_text(type_.value_type if pa.types.is_dictionary(type_) else type_)


def _reason(field: pa.Field) -> str:
    """Return why a column is no model, empty if it is a model."""
    for kind, pattern in _PATTERNS.items():
        if pattern.fullmatch(field.name):
            return kind
    if holds_numbers(field.type):
        return ""
    return _TEXT if holds_text(field.type) else f"holds {spell_type(field.type)}"


def _numbers_as_text(column: pa.ChunkedArray | pa.Array, unit: str) -> str | None:
    """Return what is wrong with text of which half or more reads as numbers, else None."""
    numbers = cells = rows = 0
    number: tuple[int, str] | None = None  # the first cell that is a number
    other: tuple[int, str] | None = None  # the first that is not
    for texts in getattr(column, "chunks", [column]):
        if _matches(texts, _CODE).true_count:
            return None
        numbers += _matches(texts, _WRITTEN).true_count
        cells += len(texts) - texts.null_count - _matches(texts, _BLANK).true_count
        is_number = _matches(texts, _NUMBER)
        number = number or _first(texts, is_number, rows)
        other = other or _first(texts, pc.and_not(_matches(texts, r"\S"), is_number), rows)
        rows += len(texts)
    if not numbers or 2 * numbers < cells:
        return None
    if other is not None:
        return (
            f"holds numbers, but {other[1]!r} in {unit} {other[0]} is text; "
            "convert it to a number or a null"
        )
    row, cell = number or (0, "")  # there is one, as no text is other
    return f"{_ALL_NUMBERS}, {cell!r} in {unit} {row}; convert it"


def _matches(texts: pa.Array, pattern: str) -> pa.BooleanArray:
    """Tell which texts match; each entry of a dictionary is matched once."""
    if pa.types.is_dictionary(texts.type):
        return _matches(texts.dictionary, pattern).take(texts.indices)
    if pa.types.is_string_view(texts.type):  # which Arrow cannot match
        texts = texts.cast(pa.large_string())
    return pc.match_substring_regex(texts, pattern)


def _first(texts: pa.Array, matches: pa.BooleanArray, rows: int) -> tuple[int, str] | None:
    place = matches.index(True).as_py()
    return None if place < 0 else (rows + place, texts[place].as_py()[:64])


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
