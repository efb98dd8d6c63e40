from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossclient.cells import keys_in
from lossclient.joining.groups import group_rows, sort_by_time

rows = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 2), st.integers(-3, 3)), max_size=40
)


def group(keys, time):
    groups = group_rows(pa.table(keys, [f"key {i}" for i in range(len(keys))]))
    return groups if time is None else sort_by_time(pa.chunked_array([time]), groups)


def columns(table):
    ids, cutoffs, times = zip(*table, strict=True) if table else ((), (), ())
    return (
        pa.array(ids, pa.string()),
        pa.array(cutoffs, pa.int32()),
        pa.array(times, pa.int64()),
    )


@given(rows)
def test_groups_are_those_of_pandas(table):
    *keys, time = columns(table)
    groups = group(keys, time)
    frame = pd.DataFrame(table, columns=["id", "cutoff", "time"])
    wanted = [
        part.sort_values("time", kind="stable").index.tolist()
        for _, part in frame.groupby(["id", "cutoff"], sort=False)
    ]
    order = np.arange(len(table)) if groups.order is None else groups.order
    found = np.split(order, groups.offsets[1:-1]) if table else []
    assert [part.tolist() for part in found] == wanted
    assert [table[row][:2] for row in groups.first] == [table[part[0]][:2] for part in wanted]


@given(rows)
def test_without_time_rows_stay_in_their_order(table):
    *keys, _ = columns(table)
    groups = group(keys, None)
    order = np.arange(len(table)) if groups.order is None else groups.order
    for part in np.split(order, groups.offsets[1:-1]):
        assert (np.diff(part) > 0).all()


@given(rows)
def test_what_is_sorted_is_not_moved(table):
    *keys, time = columns(sorted(table))
    assert group(keys, time).order is None


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.timestamp("ns"), [3, 1, 2]),
        (pa.timestamp("us", "Europe/Rome"), [3, 1, 2]),
        (pa.date32(), [3, 1, 2]),
        (pa.date64(), [3 * 86_400_000, 86_400_000, 2 * 86_400_000]),
        (pa.uint8(), [3, 1, 2]),
        (pa.int64(), [3, -1, 2]),
        (pa.float64(), [0.5, -1.0, 0.25]),
        (pa.float16(), [0.5, -1.0, 0.25]),
        (pa.binary_view(), [b"c", b"a", b"b"]),
        (pa.bool_(), [True, False, False]),
        (pa.decimal32(5, 2), [Decimal("3.1"), Decimal(-1), Decimal(2)]),
        (pa.time64("ns"), [3, 1, 2]),
        (pa.duration("s"), [3, -1, 2]),
        (pa.string(), ["2026-03", "2026-01", "2026-02"]),
        (pa.string_view(), ["c", "a", "b"]),
        (pa.dictionary(pa.int32(), pa.string()), ["c", "a", "b"]),
    ],
)
def test_any_type_orders_time(kind, values):
    whole = pa.array(values, kind)
    time = pa.chunked_array([whole.slice(0, 1), whole.slice(1)])
    assert group([pa.array(["x", "x", "x"])], keys_in(time)).order.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    "ids",
    [
        pa.chunked_array([pa.array(["b"]), pa.array(["a", "b"])]),
        pa.chunked_array(
            [pa.array(["b"]).dictionary_encode(), pa.array(["a", "b"]).dictionary_encode()]
        ),
        pa.chunked_array([pa.array(["b", "a", "b"], pa.string_view())]),
        pa.chunked_array([pa.array(["b", "a", "b"], pa.large_string())]),
        pa.chunked_array([pc.run_end_encode(pa.array(["b", "a", "b"]))]),
        pa.chunked_array([[7, 3, 7]]),
    ],
)
def test_any_type_names_series(ids):
    groups = group([keys_in(ids)], None)
    assert groups.order.tolist() == [0, 2, 1]
    assert groups.offsets.tolist() == [0, 2, 3]
