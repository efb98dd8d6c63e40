"""Which columns are models where nobody names them: one table of cases for every entry.

A table of these rows: ``unique_id``, ``cutoff``, ``ds``, ``y``, a model ``A`` and the column of the
case. Its verdict is ``MODEL``; why it is left out; or, as ``Refused``, what the error says.
"""

import datetime as dt
import decimal
import string
from typing import NamedTuple

import pyarrow as pa

ROWS = 4
MODEL = "a model"
INDEX = "an index"
STEP = "a forecast step"
FOLD = "a fold of a cross-validation"
BOUND = "a bound of a prediction interval"
QUANTILE = "a quantile"
TEXT = "text"


class Refused(NamedTuple):
    """The column is an error, whose message holds all of this."""

    says: tuple[str, ...]


class Case(NamedTuple):
    """A column and what it is taken for."""

    name: str
    values: pa.Array
    verdict: str | Refused


NUMBERS = [1, 2, 3, 4]
_DOUBLE = pa.array(NUMBERS, pa.float64())


def _refused(row: int, cell: str) -> Refused:
    return Refused(("'Theta'", repr(cell), f"row {row}"))


NAMES = {
    INDEX: ["", "index", "Index", "level_0", "__index_level_0__", "__index_level_12__", "Unnamed: 0",
            "Unnamed: 0_level_1", "row_nr", "row_number", "row_index", "Unnamed: 0.1", "_c0", "...1",
            "__null_dask_index__", "row", "row_id", "rowid", "idx"],
    "an id": ["item_id", "series_id"],
    "a time": ["timestamp", "date", "Datetime", "time"],
    "a weight": ["weight", "sample_weight"],
    "an actual value": ["y_true", "actual", "target"],
    STEP: ["horizon", "Horizon", "h", "H", "step", "steps", "fh", "lead_time", "leadtime",
           "horizon_step", "forecast_step", "forecast_horizon", "step_ahead", "steps_ahead", "lead",
           "days_ahead", "hours_ahead", "h_step", "horizon_id", "step_id", "time_idx",
           "horizon_index", "lead_days", "ahead"],
    FOLD: ["fold", "cv_fold", "fold_id", "window", "split", "cv_split", "fold_idx", "fold_number"],
    BOUND: ["A-lo-90", "AutoETS-hi-99.5", "TimeGPT-lo-80", "yhat_lower", "yhat_upper", "A_lower",
            "lower", "upper_bound", "prediction_interval_lower_bound", "lower y", "A_upper_95",
            "Lo 80", "Hi.95", "A_lo_90", "A_lower90", "lower90", "A-low-90", "A_low", "A_high",
            "low", "high", "A-lo", "conf_low", ".conf_lo", "ci_low", "ci_high", "lwr", "upr",
            "lowerBound", "upper_ci"],
    "a standard error": ["mean_se", "standard_error", "std_err"],
    QUANTILE: ["TimeGPT-q-10", "timesfm-q-0.1", "NHITS_ql0.9", "0.1", "0.5", ".9", "q0.1", "q_0.1",
               "q10", "p10", "P90", "quantile_0.1", "A_q0.9", "A_p0.9", "A-q10", "yhat1 10.0%",
               "10%", "5.0%", "A.q10", "A_0.9", "A-0.9", "percentile_10", "A_0.1_quantile",
               "_quantile_0.1", "0.5_quantile", "quantile(0.1)", "q0_1"],
    MODEL: ["Naive", "AutoETS", "TimeGPT", "NHITS-median", "mean", "yhat", "yhat1", "predictions",
            "prediction", "step_forecast", "TBATS-h", "p", "q", "h2o", "arima_q2", "hi", "loess-10",
            "silo-90x", "1.5", "0.0", "1", "2024", "windowed", "indexed", "slower", "SARIMA_P12",
            "AR_p12", "XGB_p10", "Lower Complexity Model", "Theta_1.5", "forecast", "slow",
            "lead_model", "weighted", "silo90"],
}  # fmt: skip
"""What columns of doubles are by their names."""

_CASTS = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(),
          pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(9, 2),
          pa.decimal256(40, 2)]  # fmt: skip
_TYPES = {
    **{str(type_): _DOUBLE.cast(type_) for type_ in _CASTS},
    "null": pa.nulls(ROWS),
    "dictionary of int64": pa.array(NUMBERS, pa.int64()).dictionary_encode(),
    "dictionary of decimals": pa.DictionaryArray.from_arrays(
        [0, 1, 0, 1], pa.array([decimal.Decimal("1.5"), decimal.Decimal(2)])
    ),
    "runs": pa.RunEndEncodedArray.from_arrays([3, 4], pa.array([1.5, 2.0])),
}
_OTHERS = {
    "bool": pa.array([True, False] * 2),
    "date32[day]": pa.array([dt.date(2024, 1, 1)] * ROWS),
    "timestamp[us]": pa.array([dt.datetime(2024, 1, 1)] * ROWS),  # noqa: DTZ001
    "duration[us]": pa.array([dt.timedelta(1)] * ROWS),
    "list<item: int64>": pa.array([[1]] * ROWS, pa.list_(pa.field("item", pa.int64()))),
    "binary": pa.array([b"1"] * ROWS),
}
_TEXTS = [
    (["north", "south", "5", None], TEXT),
    (["a 1", "1 a", "-", ""], TEXT),
    (["nan", "nan", "NaN", "north"], TEXT),
    (["", " ", None, ""], TEXT),
    (["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"], TEXT),
    (["1e5x", "0x1F", "1_000", "\u0661"], TEXT),
    (["1100", "None", "1200", "1300"], _refused(1, "None")),
    (["1100", "<NA>", None, None], _refused(1, "<NA>")),
    (["-", "1.5", "-2", "+3e5"], _refused(0, "-")),
    (["1,900", "1.5", "2,000", "7"], _refused(0, "1,900")),
    (["1.5", "", "n/a", "n/a"], _refused(2, "n/a")),
    ([" 1.5", ".5 ", "-2.", "1E-3"], _refused(0, " 1.5")),
    ([None, "7", None, None], _refused(1, "7")),
    (["1,100", "1,900", "980", "2,000"], _refused(0, "1,100")),
    (["$1.50", "$2", "-$3", "US$ 4"], _refused(0, "$1.50")),
    (["12", "13%", "14 %", "15.5%"], _refused(1, "13%")),
    (["1 900", "1\u00a0900", "1\u202f900,5", "1'900"], _refused(0, "1 900")),
    (["1,5", "2,25", ",5", "-3,0"], _refused(0, "1,5")),
    (["1.234,5", "1.234.567", "7", "n/a"], _refused(0, "1.234,5")),
    (["\u22125", "\u22121.5", "7", "8"], _refused(0, "\u22125")),
    (["inf", "-inf", "Infinity", "inf"], _refused(0, "inf")),
    (["(1,100.50)", "(3)", "4", "north"], _refused(0, "(1,100.50)")),
    (["001", "002", "010", "120"], TEXT),
    (["120", "007", None, "340"], TEXT),
    (["12:30", "10.1.1.1", "1-2", "01.02.2024"], TEXT),
]

_CATEGORIES = pa.array(["1", "2", None, "1"]).dictionary_encode()

CASES = [
    Case("grade", _CATEGORIES, TEXT),
    *(Case(name, _DOUBLE, verdict) for verdict, names in NAMES.items() for name in names),
    *(Case("Theta", values, MODEL) for values in _TYPES.values()),
    *(Case("Theta", values, f"holds {name}") for name, values in _OTHERS.items()),
    *(Case("Theta", pa.array(texts, pa.string()), verdict) for texts, verdict in _TEXTS),
    *(
        Case("Theta", made, verdict)
        for texts, verdict in (_TEXTS[0], _TEXTS[6])
        for made in (
            pa.array(texts, pa.large_string()),
            pa.array(texts, pa.string_view()),
            pa.array(texts).dictionary_encode(),
        )
    ),
]


def table_of(case: Case) -> pa.Table:
    """Return a table with the column of a case."""
    columns = {
        "unique_id": ["a"] * ROWS,
        "cutoff": [7] * ROWS,
        "ds": NUMBERS,
        "y": [4.0, 5.0, 6.0, 7.0],
        "A": [1.0, 2.0, 3.0, 4.0],
    }
    if case.name in columns:
        raise ValueError(f"the name {case.name} is taken")
    return pa.table({**columns, case.name: case.values})


def name_of(case: Case) -> str:
    """Return the id of a case among tests."""
    verdict = case.verdict if isinstance(case.verdict, str) else "refused"
    shown = "".join(c if c in string.printable else "?" for c in str(case.values.to_pylist()))
    return f"{case.name} {case.values.type} {shown[:40]}: {verdict}"
