"""What names and cells of columns say of their roles: one rule for service, tables and client."""

import re
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from .faults import listed

NIXTLA = ("unique_id", "ds", "cutoff", "y")
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
_BLANK = r"(?i)^[\s\x{a0}]*(nan|na|n/a|<na>|nat|none|null|[-.?]+)?[\s\x{a0}]*$"
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
ALL_NUMBERS = "holds numbers as text"
TEXT = "text"
"""Why a column is left out that is no number as text."""


class LeftOutWarning(UserWarning):
    """Columns were taken for no models, where none were named or excluded."""


@dataclass(frozen=True)
class ModelColumns:
    """The columns of predictions, and what was taken for none.

    Attributes:
        models: Columns of predictions, in the order of the table, or as they are named.
        left_out: Column and reason, in the order of the table; those that have another role or
            were excluded are not listed.
    """

    models: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[tuple[str, str]]) -> Self:
        """Return what columns are of which it is known why each is no model, empty if it is."""
        pairs = list(reasons)
        models = tuple(name for name, reason in pairs if not reason)
        return cls(models, tuple(pair for pair in pairs if pair[1]))

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns that were left out as text."""
        return tuple(name for name, reason in self.left_out if reason == TEXT)

    def __str__(self) -> str:
        """Return what is scored and what is not, for a message."""
        scored = f"scored as models: {listed(self.models)}"
        return f"{scored}; left out: {spell_left_out(self.left_out)}" if self.left_out else scored

    def warn(self, stacklevel: int) -> None:
        """Warn of what was left out, if anything was."""
        if self.left_out:
            way_out = "name columns by models= or leave them out by exclude= to silence this"
            warnings.warn(f"{self}; {way_out}", LeftOutWarning, stacklevel=stacklevel + 1)


def spell_left_out(left_out: Collection[tuple[str, str]]) -> str:
    """Return columns and why they were left out, for a message."""
    return listed([f"{name!r} ({reason})" for name, reason in left_out])


def role_of(name: str) -> str | None:
    """Return what a column of this name is where it is no model, None if its name does not say.

    Example:
        >>> role_of("A-lo-90"), role_of("A")
        ('a bound of a prediction interval', None)
    """
    return next((role for role, names in _PATTERNS.items() if names.fullmatch(name)), None)


def holds_codes(texts: pa.ChunkedArray) -> bool:
    """Tell whether there is a cell that would lose a leading zero as a number, such as 007."""
    return any(_matches(chunk, _CODE).true_count for chunk in texts.chunks)


def numbers_as_text(column: pa.ChunkedArray | pa.Array, unit: str) -> str | None:
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
        other = other or _first(texts, pc.and_not(_matches(texts, r"[^\s\x{a0}]"), is_number), rows)
        rows += len(texts)
    if not numbers or 2 * numbers < cells:
        return None
    if other is not None:
        return (
            f"holds numbers, but {other[1]!r} in {unit} {other[0]} is text; "
            "convert it to a number or a null"
        )
    row, cell = number or (0, "")  # there is one, as no text is other
    return f"{ALL_NUMBERS}, {cell!r} in {unit} {row}; convert it"


def _matches(texts: pa.Array, pattern: str) -> pa.BooleanArray:
    """Tell which texts match; each entry of a dictionary is matched once."""
    if pa.types.is_dictionary(texts.type):
        return _matches(texts.dictionary, pattern).take(texts.indices)
    if pa.types.is_string_view(texts.type):  # which Arrow cannot match
        texts = texts.cast(pa.large_string())
    return pc.match_substring_regex(texts, pattern)


def _first(texts: pa.Array, matches: pa.BooleanArray, rows: int) -> tuple[int, str] | None:
    row = matches.index(True).as_py()
    return None if row < 0 else (rows + row, texts[row].as_py()[:64])
