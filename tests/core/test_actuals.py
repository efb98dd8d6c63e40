"""Actual values from a table of their own, against a dict, and what cannot be compared."""

import datetime as dt
import itertools

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loss_scoring.core.table import Actuals, TableError, UnmatchedWarning, score_table

DAYS = [dt.datetime(2026, 1, day) for day in range(1, 5)]  # noqa: DTZ001 - without a zone
IDS = st.sampled_from(["a", "b", "", "007"])
keys = st.tuples(IDS, st.sampled_from(DAYS))


def texts(values, kind):
    plain = pa.array(values, pa.string())
    return plain.dictionary_encode() if kind == "dictionary" else plain.cast(kind)


def times(values, kind):
    stamps = pa.array(values, pa.timestamp("us"))
    return stamps.cast(kind)


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(keys, st.one_of(st.none(), st.floats(0, 9)), max_size=12),
    st.lists(keys, max_size=20),
    st.lists(st.integers(0, 20), max_size=2),
    st.tuples(*[st.sampled_from([pa.string(), pa.large_string(), "dictionary"])] * 2),
    st.tuples(
        *[st.sampled_from([pa.timestamp("s"), pa.timestamp("ns"), pa.date32(), pa.string()])] * 2
    ),
)
def test_against_a_dict(known, wanted, cuts, texts_as, times_as):
    ids, days = [key[0] for key in known], [key[1] for key in known]
    columns = {"unique_id": texts(ids, texts_as[0]), "ds": times(days, times_as[0])}
    actuals = Actuals(pa.table({**columns, "y": pa.array(known.values(), pa.float64())}))
    ids, days = [key[0] for key in wanted], [key[1] for key in wanted]
    columns = {"unique_id": texts(ids, texts_as[1]), "ds": times(days, times_as[1])}
    table = pa.table({**columns, "row": pa.array(range(len(wanted)), pa.int64())})
    bounds = sorted({0, *(min(cut, len(table)) for cut in cuts), len(table)})
    got = {}
    for start, stop in itertools.pairwise(bounds):
        joined = actuals.join(table.slice(start, stop - start))
        got |= dict(zip(joined["row"].to_pylist(), joined["y"].to_pylist(), strict=True))
    assert got == {row: known[key] for row, key in enumerate(wanted) if key in known}
    matches = actuals.matches
    assert (matches.matched, matches.without_actual) == (len(got), len(wanted) - len(got))
    assert matches.without_forecast == len({*known} - {*wanted})


def actual(ids, days, **more):
    return pa.table({"unique_id": ids, "ds": days, "y": [1.0] * len(ids)} | more)


@pytest.mark.parametrize(
    ("known", "wanted", "matched"),
    [
        (pa.array([1, 2]), pa.array([2.0, 3.0]), 1),  # pandas' integers beside a null
        (pa.array([1, 2], pa.uint8()), pa.array([2, 3], pa.int64()), 1),
        (pa.array([True, False]), pa.array([True, True]), 2),
        (pa.array([0.0, float("nan")]), pa.array([-0.0, float("nan")]), 2),
    ],
)
def test_ids_of_numbers(known, wanted, matched):
    actuals = Actuals(actual(known, [1, 1]))
    actuals.join(pa.table({"unique_id": wanted, "ds": [1, 1]}))
    assert actuals.matches.matched == matched


def test_zones_do_not_matter_where_both_have_one():
    paris = pa.array(DAYS[:2], pa.timestamp("us", "Europe/Paris"))
    utc = paris.cast(pa.timestamp("ms", "UTC"))
    actuals = Actuals(actual(["a", "a"], paris))
    assert actuals.join(pa.table({"unique_id": ["a", "a"], "ds": utc}))["y"].to_pylist() == [1, 1]


@pytest.mark.parametrize(
    ("known", "wanted", "expected"),
    [
        (pa.array(DAYS[:1], pa.timestamp("us", "UTC")), DAYS[:1], "cast one to the other"),
        ([1], ["1"], "is string in the forecasts and int64 in the actual values"),
        (DAYS[:1], ["tomorrow"], "'tomorrow'"),
        ([1], [1.5], "not all are whole numbers"),
        ([None], [1], "of the actual values holds nulls, the first in row 0"),
        ([1], pa.array([None], pa.int64()), "of the forecasts holds nulls, the first in row 0"),
        ([b"1"], [b"1"], "cast one to the other"),
    ],
)
def test_what_cannot_be_compared_is_refused(known, wanted, expected):
    table = actual(["a"], known)
    with pytest.raises(TableError, match="ds") as caught:
        Actuals(table).join(pa.table({"unique_id": ["a"], "ds": wanted}))
    assert expected in str(caught.value)


def test_a_key_twice_is_refused_with_its_rows():
    with pytest.raises(TableError, match="rows 1 and 3 of the actual values are both of unique_id"):
        Actuals(actual(["a", "b", "a", "b"], [1, 1, 2, 1])).join(actual(["a"], [1]).drop(["y"]))


def test_columns_must_be_there_once():
    table = actual(["a"], [1])
    for made, expected in (
        (lambda: Actuals(table.drop(["ds"])), "'ds' is absent in the actual values"),
        (lambda: Actuals(table, target="z"), "'z' is absent"),
        (lambda: Actuals(table, target="unique_id"), "must hold numbers"),
        (lambda: Actuals(table).join(table), "'y' is in the forecasts too"),
        (lambda: Actuals(table).join(table.drop(["y", "ds"])), "'ds' is absent in the forecasts"),
    ):
        with pytest.raises(TableError, match=expected):
            made()


def test_score_table_equals_that_of_the_merged_table():
    whole = pa.table(
        {
            "unique_id": ["a", "a", "b", "b"],
            "cutoff": [1, 1, 1, 1],
            "ds": [2, 3, 2, 3],
            "y": [1.0, 2.0, 3.0, None],
            "A": [2.0, 2.0, 5.0, 1.0],
        }
    )
    apart = whole.select(["unique_id", "ds", "y"])
    forecasts = whole.drop(["y"])
    got = score_table(forecasts, actuals=apart.take([3, 1, 0, 2]), missing="skip")
    assert got.equals(score_table(whole, missing="skip"))
    with pytest.warns(UnmatchedWarning, match="1 have none yet"):
        got = score_table(forecasts, actuals=apart.slice(1), missing="skip")
    assert got["length"].to_pylist() == [1, 2]
    with pytest.raises(TableError, match="the first of forecasts is unique_id='a', ds=2"):
        score_table(forecasts, actuals=actual(["c"], [2]))
    with pytest.raises(ValueError, match="on is for actuals"):
        score_table(whole, on=["ds"])
