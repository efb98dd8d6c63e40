"""Rows of one series at one time, against a dict; and keys in words, whatever times they hold."""

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loss_scoring.core.table import (
    RepeatedTimeError,
    TableError,
    find_repeats,
    group_rows,
    score_table,
    spell,
)

TIMES = {
    "int64": lambda few: pa.array(few, pa.int64()),
    "timestamp": lambda few: pa.array(few, pa.timestamp("ns", "no/zone")),
    "date": lambda few: pa.array(few, pa.int32()).view(pa.date32()),
    "string": lambda few: pa.array([x if x is None else f"t{x}" for x in few], pa.string()),
    "view": lambda few: pa.array([x if x is None else f"t{x}" for x in few], pa.string_view()),
    "dictionary": lambda few: pa.array(
        [x if x is None else str(x) for x in few]
    ).dictionary_encode(),
    "double": lambda few: pa.array([x if x != 2 else float("nan") for x in few], pa.float64()),
    "duration": lambda few: pa.array(few, pa.int64()).view(pa.duration("ns")),
    "decimal": lambda few: pa.array(
        [x if x is None else decimal.Decimal(x) for x in few], pa.decimal128(9, 2)
    ),
}


def by_dict(ids, times):
    seen, found = {}, []
    for row, key in enumerate(zip(ids, times, strict=True)):
        if key in seen and key[1] is not None:
            found.append((row, seen[key]))
        seen[key] = row
    return found


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(list(TIMES)),
    st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 5))), max_size=12),
    st.sampled_from(["as it comes", "by id", "by id and time"]),
)
def test_against_a_dict(kind, rows, order):
    if order == "by id":
        rows.sort(key=lambda row: row[0])
    elif order == "by id and time":
        rows.sort(key=lambda row: (row[0], row[1] is None, row[1] or 0))
    ids, times = [row[0] for row in rows], [row[1] for row in rows]
    groups = group_rows(pa.table({"id": pa.array(ids, pa.int8())}))
    repeats = find_repeats(pa.chunked_array([TIMES[kind](times)]), groups)
    assert list(zip(repeats.rows.tolist(), repeats.earlier.tolist(), strict=True)) == by_dict(
        ids, times
    )
    assert groups.keys["id"].take(pa.array(repeats.series)).to_pylist() == [
        ids[row] for row in repeats.rows
    ]


def table(**columns):
    day = [dt.datetime(2024, 1, 1 + i) for i in range(2)]  # noqa: DTZ001
    made = {"unique_id": ["a", "a"], "ds": day, "y": [1.0, 2.0], "A": [1.0, 4.0], **columns}
    return pa.table(made)


def test_a_table_joined_to_itself():
    twice = pa.concat_tables([table(), table()])
    with pytest.raises(RepeatedTimeError) as error:
        score_table(twice, group_by=["unique_id"])
    assert error.value.repeats.rows.tolist() == [2, 3]
    assert str(error.value) == (
        "column 'ds' is 2024-01-01T00:00:00 in rows 0 and 2 of the series unique_id='a' "
        "(the first of 2 such rows); does the table hold its rows twice, or is there another "
        "column, such as a cutoff, that tells series apart? Name it in group_by, or pass "
        "duplicates='allow'"
    )
    allowed = score_table(twice, group_by=["unique_id"], duplicates="allow", losses=["mae"])
    assert allowed.select(["length", "mae"]).to_pylist() == [{"length": 4, "mae": 1.0}]
    cutoffs = twice.append_column("cutoff", pa.array([1, 1, 2, 2]))
    assert score_table(cutoffs, losses=["mae"])["length"].to_pylist() == [2, 2]


def test_only_the_column_of_times_is_checked():
    same = table(ds=[1, 1])
    with pytest.raises(RepeatedTimeError):
        score_table(same, group_by=["unique_id"])
    renamed = same.rename_columns(["unique_id", "when", "y", "A"])
    with pytest.raises(RepeatedTimeError, match="column 'when' is 1 in rows 0 and 1"):
        score_table(renamed, group_by=["unique_id"], time="when")
    assert len(score_table(renamed, group_by=["unique_id"], exclude=["when"])) == 1
    assert len(score_table(same, group_by=["unique_id", "ds"])) == 1  # two rows of one key
    with pytest.raises(TableError, match="'wen' is absent; did you mean 'when'"):
        score_table(renamed, group_by=["unique_id"], time="wen")
    lists = table(ds=[[1], [1]])  # which are no times
    with pytest.warns(UserWarning, match="rows with the same 'ds' are not looked for"):
        assert len(score_table(lists, group_by=["unique_id"])) == 1
    allowed = score_table(lists, group_by=["unique_id"], duplicates="allow")
    assert len(allowed) == 1
    renamed = lists.rename_columns(["unique_id", "when", "y", "A"])
    with pytest.raises(TableError, match=r"'when' must hold times, .* not list<.*; cast it"):
        score_table(renamed, group_by=["unique_id"], time="when")
    with pytest.raises(ValueError, match="duplicates must be"):
        score_table(same, group_by=["unique_id"], duplicates="keep")


def test_repeated_durations_are_named():
    repeated = table(ds=pa.array([3, 3], pa.duration("ns")))
    with pytest.raises(RepeatedTimeError, match="'ds' is 3 ns in rows 0 and 1"):
        score_table(repeated, group_by=["unique_id"])


def test_a_long_key_is_cut():
    repeated = table(unique_id=["x" * 2000] * 2, ds=[1, 1])
    with pytest.raises(RepeatedTimeError, match=r"unique_id='x{100}'\.\.\. \("):
        score_table(repeated, group_by=["unique_id"])


def test_a_table_without_cutoffs_gets_a_hint():
    with pytest.raises(TableError, match=r"'cutoff' is absent; pass group_by=\['unique_id'\]"):
        score_table(table(ds=[1, 2]))


FAR = {
    pa.timestamp("s"): (2**40, "36812-"),
    pa.timestamp("ns"): (1, "1970-01-01T00:00:00.000000001"),
    pa.timestamp("us", "no/zone"): (2**61, "Z"),
    pa.timestamp("ms"): (7_258_118_400_000, "2200-01-01T00:00:00"),
    pa.date32(): (2**30, "-"),
    pa.date64(): (2**60, "-"),
    pa.time64("ns"): (1, "00:00:00.000000001"),
}


@pytest.mark.parametrize("type_", FAR, ids=str)
@pytest.mark.parametrize("role", ["cutoff", "ds"])
def test_times_that_python_does_not_hold_are_named(type_, role):
    number, part = FAR[type_]
    integer = pa.int32() if type_ == pa.date32() else pa.int64()
    times = pa.array([number, number], integer).view(type_)
    assert all(part in text for text in spell(pa.chunked_array([times])))
    made = table(**{"cutoff": [1, 1], role: times})
    if role == "cutoff":
        made = made.set_column(3, "A", pa.array([1.0, None]))
    with pytest.raises(TableError) as error:
        score_table(made)
    assert part in str(error.value)


def test_null_keys_are_spelled_as_none():
    for values in (
        pa.array([None, 1], pa.timestamp("s")),
        pa.array([None, 0.5]),
        pa.array([None, "a"]),
    ):
        assert spell(pa.chunked_array([values]))[0] is None
    assert spell(pa.chunked_array([np.array([np.nan, np.inf, 1.5])])) == ["NaN", "Infinity", 1.5]
