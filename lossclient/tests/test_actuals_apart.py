"""Actual values in a frame of their own: as if they were in the forecasts."""

import asyncio
import subprocess
import sys

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from fake_service import respond

from lossclient import AsyncClient, Client, InvalidInput, UnmatchedWarning

URL = "http://service.test"
FORECASTS = pd.DataFrame(
    {
        "unique_id": ["a", "a", "b", "a", "a", "c", "b"],
        "ds": pd.to_datetime([f"2026-01-0{day}" for day in (1, 2, 1, 2, 1, 2, 2)]),
        "cutoff": pd.to_datetime([f"2025-12-{day}" for day in (31, 31, 31, 30, 30, 31, 31)]),
        "Naive": [1.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.5],
    },
    index=[5, 5, 4, 3, 2, 1, 0],
)
ACTUALS = pd.DataFrame(
    {
        "unique_id": ["b", "a", "a", "d"],
        "ds": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-01", "2026-01-01"]),
        "y": [3.5, 2.0, 1.5, 9.0],
    }
)
COUNTS = (
    "5 rows of forecasts have an actual value, 2 have none yet; 1 actual values are without a "
    "forecast"
)
KINDS = {
    "pandas": lambda df: df,
    "pandas index": lambda df: df.set_index(["unique_id", "ds"]),
    "pandas arrow": lambda df: df.convert_dtypes(dtype_backend="pyarrow"),
    "polars": pl.from_pandas,
    "pyarrow": lambda df: pa.Table.from_pandas(df, preserve_index=False),
}


TRANSPORT = httpx.MockTransport(lambda request: respond(None, request))


@pytest.fixture
def client():
    with Client(URL, transport=TRANSPORT) as made:
        yield made


@pytest.mark.parametrize("forecasts", KINDS)
@pytest.mark.parametrize("actuals", KINDS)
def test_as_if_they_were_in_the_forecasts(client, forecasts, actuals):
    merged = FORECASTS.merge(ACTUALS, on=["unique_id", "ds"])
    want = client.score(merged, losses=["mae"], gradients=True)
    given = KINDS[forecasts](FORECASTS), KINDS[actuals](ACTUALS)
    with pytest.warns(UnmatchedWarning, match=COUNTS) as warned:
        got = client.score(given[0], losses=["mae"], gradients=True, actuals=given[1])
    assert warned[0].filename == __file__
    if isinstance(got, pl.DataFrame | pa.Table):
        got = got.to_pandas()
    by = ["unique_id", "cutoff"]
    want, got = (frame.sort_values(by).reset_index(drop=True) for frame in (want, got))
    assert got["length"].tolist() == [2, 2, 1]
    for name in ("length", "mae"):
        assert got[name].tolist() == want[name].tolist()
    for mine, theirs in zip(got["mae_gradient"], want["mae_gradient"], strict=True):
        assert np.array_equal(mine, theirs)


def test_the_counts_and_rules_are_those_of_score_table():
    from loss_scoring.core.table import score_table

    forecasts, actuals = (
        pa.Table.from_pandas(frame, preserve_index=False) for frame in (FORECASTS, ACTUALS)
    )
    with pytest.warns(UserWarning, match=COUNTS):
        table = score_table(forecasts, actuals=actuals, losses=["mae"])
    assert table["length"].to_pylist() == [2, 1, 2]
    for wrong, says in (
        ({"actuals": pa.concat_tables([actuals, actuals])}, "are both of unique_id='b'"),
        ({"actuals": actuals.drop(["y"])}, "column 'y' is absent in the actual values"),
        (
            {"actuals": actuals.rename_columns(["unique_id", "date", "y"])},
            "'ds' is absent in the act",
        ),
        ({"actuals": actuals, "on": ["unique_id", "day"]}, "'day' is absent in the"),
        ({"actuals": actuals.slice(3)}, "no row of forecasts has an actual value; the first of"),
        (
            {"actuals": actuals.set_column(1, "ds", actuals["ds"].cast(pa.timestamp("us", "UTC")))},
            "'ds' is timestamp.* in the forecasts and timestamp.*tz=UTC.* in the actual",
        ),
        ({"on": ["unique_id"]}, "on is for actuals"),
    ):
        with pytest.raises(ValueError, match=says):
            score_table(forecasts, **wrong)
        with Client(URL, transport=TRANSPORT) as client, pytest.raises(InvalidInput, match=says):
            client.score(forecasts, **wrong)
    both = forecasts.append_column("y", forecasts["Naive"])
    with Client(URL, transport=TRANSPORT) as client:
        with pytest.raises(InvalidInput, match="'y' is in the forecasts too"):
            client.score(both, actuals=actuals)
        with pytest.raises(InvalidInput, match="on must be a list of names"):
            client.score(forecasts, actuals=actuals, on="unique_id")
        with pytest.raises(InvalidInput, match="on must name the columns"):
            client.score(forecasts, actuals=actuals, time_col=None)


def test_rows_are_those_of_the_callers_frame(client):
    twice = pd.concat([FORECASTS.iloc[5:], FORECASTS.iloc[:1], FORECASTS.iloc[:1]])
    with pytest.raises(InvalidInput, match=r"series 'a' .* twice, in rows 2 and 3"):
        client.score(twice, actuals=ACTUALS)
    with pytest.raises(InvalidInput, match="column 'cutoff' is null in row 2"):
        client.score(FORECASTS.iloc[:3:-1].assign(cutoff=None), actuals=ACTUALS)


def test_all_matched_in_tasks_and_without_a_time():
    actuals = pa.table({"unique_id": ["a", "b", "c"], "y": [1, 2, 3]})

    async def main():
        async with AsyncClient(
            URL, transport=httpx.MockTransport(lambda request: respond(None, request))
        ) as client:
            return await client.score(
                FORECASTS,
                losses=["mae"],
                actuals=actuals,
                on=["unique_id"],
                cutoff_col=None,
                duplicates="allow",
            )

    assert asyncio.run(main())["mae"].tolist() == [2.125, 3.25, 3.0]


def test_it_needs_no_torch():
    code = (
        "import sys, pandas as pd, lossclient;"
        "from lossclient.frames import read_actuals;"
        "read_actuals(pd.DataFrame({'i': ['a'], 'y': [1]}), ['i'], 'y');"
        "assert not {'torch', 'loss_scoring.core', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
