"""The role of each column of a frame, and which are models where none are named.

A column of numbers in any type is a model, unless it has another role or a name that forecasting
libraries give to something else: an index, a forecast step, a bound of an interval, a quantile.
Whatever is left out is reported with the reason, so that no model vanishes in silence; and text
that is mostly numbers is an error, as it is a model with a cell that could not be read. The service
and its command line have the same rule.
"""

import difflib
import re
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from lossclient.arguments import NAMES, are_names, require
from lossclient.cells import Cells, content, is_nested, numbers_in, texts_in
from lossclient.exceptions import InvalidInput

_ROLES = ("unique_id", "ds", "cutoff", "y")
"""Nixtla's id, time, cutoff and target; no predictions, even where others are used instead."""
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
"""What a column is that has one of these names, in the spelling of pandas, polars, sktime, Nixtla,
AutoGluon, Chronos, GluonTS, Prophet, NeuralProphet and skforecast."""
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
_SHOWN = 20
"""Names in a message, before the rest is counted."""
_COMPARED = 100
"""Names that are compared with one that is absent."""


class LeftOutWarning(UserWarning):
    """Columns were taken for no models, where none were named or excluded."""


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


@dataclass(frozen=True)
class ModelColumns:
    """The columns of predictions, and what was taken for none.

    Attributes:
        models: In the order of the frame, or as they are named.
        left_out: Column and reason, in the order of the frame; not of those that have another role
            or are excluded.
    """

    models: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"scored as models: {_first_of(self.models)}; left out: {self.reasons()}"

    def warn(self, stacklevel: int) -> None:
        if self.left_out:
            way_out = "name columns by models= or leave them out by exclude= to silence this"
            warnings.warn(f"{self}; {way_out}", LeftOutWarning, stacklevel=stacklevel)

    def reasons(self) -> str:
        return _first_of([f"{name!r} ({reason})" for name, reason in self.left_out])


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
                f"no column {name!r} among {_first_of(names)}{unordered}{_suggestion(name, names)}"
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
    passed = {*roles, *_ROLES, *columns.exclude, *(columns.by or ())}
    reasons = {name: _reason(name, cells) for name in names if name not in passed}
    models = tuple(name for name, reason in reasons.items() if not reason)
    found = ModelColumns(models, tuple((name, why) for name, why in reasons.items() if why))
    if not models:
        left_out = f"; left out: {found.reasons()}; name the models" if found.left_out else ""
        raise InvalidInput(f"no column of predictions among {_first_of(names)}{left_out}")
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
        _refuse_numbers_as_text(name, texts)
        holds = ", ".join(
            ["text", *(repr(text[:64]) for text in texts.drop_null()[:1].to_pylist())]
        )
    elif is_nested(cells):
        hint = "; a row is one element of a series: explode the lists"
    raise InvalidInput(f"column {name!r} must hold numbers, not {holds}{hint}")


def _reason(name: str, cells: Callable[[str], Cells]) -> str:
    """Return why a column is no model, empty if it is one."""
    for kind, pattern in _PATTERNS.items():
        if pattern.fullmatch(name):
            return kind
    column = cells(name)
    if numbers_in(column) is not None:
        return ""
    texts = texts_in(column)
    if texts is None:
        return f"holds {content(column)}"
    is_category = isinstance(column, pa.ChunkedArray) and pa.types.is_dictionary(column.type)
    way_out = ", or leave the column out by exclude"
    _refuse_numbers_as_text(name, texts, way_out, is_category=is_category)
    return "text"


def _refuse_numbers_as_text(
    name: str, texts: pa.ChunkedArray, way_out: str = "", *, is_category: bool = False
) -> None:
    """Raise if half or more of the cells read as numbers, blank ones not counted.

    Cells with leading zeros are codes, as in 007, and categories that are all numbers are wanted.
    """
    distinct = pc.value_counts(texts.drop_null())
    values, counts = distinct.field("values"), distinct.field("counts")
    are_numbers = pc.match_substring_regex(values, _NUMBER)
    have_values = pc.invert(pc.match_substring_regex(values, _BLANK))
    numbers = pc.sum(counts.filter(pc.match_substring_regex(values, _WRITTEN))).as_py() or 0
    if not numbers or 2 * numbers < pc.sum(counts.filter(have_values)).as_py():
        return
    if pc.any(pc.match_substring_regex(values, _CODE)).as_py():
        return
    others = values.filter(
        pc.and_not(pc.not_equal(pc.utf8_trim_whitespace(values), ""), are_numbers)
    )
    if is_category and not len(others):
        return
    shown = others if len(others) else values.filter(are_numbers)
    row = pc.is_in(texts, shown).index(pa.scalar(True)).as_py()  # noqa: FBT003
    cell = repr(texts[row].as_py()[:64])
    if len(others):
        raise InvalidInput(
            f"column {name!r} holds numbers, but {cell} in row {row} is text; "
            f"convert it to a number or a null{way_out}"
        )
    raise InvalidInput(
        f"column {name!r} holds numbers as text, {cell} in row {row}; convert it{way_out}"
    )


def _first_of(texts: Sequence[str]) -> str:
    rest = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + rest


def _suggestion(name: str, names: Collection[str]) -> str:
    folded = {other.casefold(): other for other in list(names)[:_COMPARED]}
    close = difflib.get_close_matches(name.casefold(), folded, 1)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""
