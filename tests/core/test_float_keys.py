"""Keys that are floats, against pandas: 0.0 and -0.0 are one, and so is every NaN."""

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from loss_scoring.core.table import group_rows

NANS = np.array([0x7FF8 << 48, 0xFFF8 << 48, (0x7FF8 << 48) + 5], np.uint64).view(np.float64)
KEYS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324, np.inf, -np.inf, *NANS.tolist()])


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_float_keys_are_those_of_pandas(data):
    size = data.draw(st.integers(0, 12))
    kinds = data.draw(st.lists(st.sampled_from([np.float32, np.float64]), min_size=1, max_size=2))
    few = st.lists(KEYS, min_size=size, max_size=size)
    columns = {f"k{i}": np.array(data.draw(few), kind) for i, kind in enumerate(kinds)}
    batch = data.draw(st.integers(1, 12))
    table = pa.Table.from_batches(pa.table(columns).to_batches(batch), pa.table(columns).schema)
    groups = group_rows(table)
    order = np.arange(size) if groups.order is None else groups.order
    got = np.empty(size, np.int64)
    got[order] = np.repeat(np.arange(len(groups)), np.diff(groups.offsets))
    by = pd.DataFrame(columns).groupby(list(columns), dropna=False, sort=False)
    assert got.tolist() == by.ngroup().tolist()
    first = order[groups.offsets[:-1]]
    for name, column in columns.items():  # a key stands as it does in its first row, to the bit
        assert groups.keys[name].to_numpy().tobytes() == column[first].tobytes()
