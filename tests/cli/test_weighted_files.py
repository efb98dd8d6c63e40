"""Weights, scales and histories of files, against ``score_table``."""

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from commands import cli

from loss_scoring.core.table import score_table

LONG = pa.table(
    {
        "unique_id": ["007"] * 3,
        "cutoff": [9, 9, 10],
        "ds": [10, 11, 11],
        "y": [7.0, 9.0, 9.0],
        "Naive": [7.0, 7.0, 7.0],
        "w": [1.0, 3.0, 0.0],
        "s": [2.0, 2.0, 1.5],
    }
)
NESTED = pa.table(
    {
        "unique_id": ["a", "b"],
        "y": [[2.0, 2.0], [3.0]],
        "A": [[1.0, 4.0], [3.0]],
        "w": [[3, 1], [0]],
        "s": [2.0, 0.0],
    }
)
HISTORY = pa.table(
    {"unique_id": ["007"] * 6, "ds": range(6, 12), "y": [3.0, 5.0, 4.0, 7.0, 7.0, 9.0]}
)


def written(folder, table, name):
    path = folder / name
    (pc.write_csv if path.suffix == ".csv" else pq.write_table)(table, path)
    return path


def scored(folder, table, name, *arguments):
    output = folder / "scores.parquet"
    status, _, error = cli("score", written(folder, table, name), "-o", output, *arguments)
    assert status == 0, error
    return pq.read_table(output)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_long_file(tmp_path, ending):
    columns = {"weight_col": "w", "scale_col": "s", "losses": ["mae", "mase"]}
    arguments = ("--losses", "mae,mase", "--weight-col", "w", "--scale-col", "s")
    got = scored(tmp_path, LONG, f"long.{ending}", *arguments)
    want = score_table(LONG, **columns)
    assert got.drop_columns("cutoff").equals(want.drop_columns("cutoff"))
    assert got["mae"].to_pylist() == [1.5, None]
    assert got["mae_masked"].to_pylist() == [0, 1]


def test_a_nested_file(tmp_path):
    arguments = ("--losses", "mae,mase", "--weight-col", "w", "--scale-col", "s")
    got = scored(tmp_path, NESTED, "nested.parquet", *arguments)
    assert got["mae"].to_pylist() == [1.25, None]
    assert got["mase"].to_pylist() == [0.625, None]
    assert got["mase_masked"].to_pylist() == [0, 1]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("keys", [["unique_id", "cutoff"], ["unique_id"]])
def test_a_history(tmp_path, ending, keys):
    table = LONG.drop_columns(["w", "s"])
    table = table if len(keys) > 1 else table.slice(1).drop_columns("cutoff").slice(0, 1)
    train = written(tmp_path, HISTORY, f"history.{ending}")
    arguments = ("--losses", "mase,rmsse", "--train", train, "--seasonality", "1")
    got = scored(tmp_path, table, f"long.{ending}", *arguments)
    options = {"losses": ["mase", "rmsse"], "train_df": HISTORY, "seasonality": 1}
    want = score_table(table, group_by=keys, **options)
    for name in ("mase", "rmsse", "mase_masked"):
        assert got[name].to_pylist() == want[name].to_pylist()
    assert got["mase"].null_count == 0, "text of numbers is in the order of the numbers"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--losses", "mase"], "mase must have scales; pass --scale-col or --train"),
        (["--losses", "mae", "--scale-col", "s"], "--scale-col: none of the losses asked for"),
        (["--losses", "mase", "--train", "x.csv"], "--train and --seasonality belong together"),
        (["--weight-col", "v"], "no column 'v' among"),
        (["--weight-col", "y"], "'y' is named more than once"),
        (["--losses", "mase", "--scale-col", "w"], "a series has one scale"),
    ],
)
def test_what_is_refused(tmp_path, arguments, fault):
    status, _, error = cli("score", written(tmp_path, LONG, "long.parquet"), *arguments)
    assert status != 0
    assert fault in " ".join(error.split())
