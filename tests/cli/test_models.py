"""Which columns are models where nobody names them: the same for every entry."""

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from core import ScoreOptions
from core.table import score_table
from service.cli import app
from service.codecs import long
from service.codecs.arrow_stream import check_of
from service.codecs.options import columns_from_query
from service.errors import Faults


def by_table(table, _path, **columns):
    return score_table(table, **columns)["model"].to_pylist()


def by_wire(table, _path, **columns):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    faults = Faults()
    query = {"group_columns": "unique_id,cutoff", **{f"{k}_column": v for k, v in columns.items()}}
    named = columns_from_query(list(query.items()), faults)
    faults.check()
    body = memoryview(sink.getvalue())
    check = check_of(body, 1 << 20)
    return list(
        long.decode(body, ScoreOptions(), named, check=check, max_elements=99).layout.models
    )


def by_command(table, path, **columns):
    pq.write_table(table, path / "f.parquet")
    flags = [part for k, v in columns.items() for part in (f"--{k}-col", v)]
    arguments = ["score", str(path / "f.parquet"), "-o", str(path / "o.parquet"), *flags]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return pq.read_table(path / "o.parquet")["model"].to_pylist()


each_entry = pytest.mark.parametrize("entry", [by_table, by_wire, by_command])


def frame(**columns):
    return pa.table({"unique_id": ["a"], "cutoff": [7], "ds": [1], "y": [4], **columns})


@each_entry
def test_floats_and_integers_are_models(entry, tmp_path):
    table = frame(
        A=[1.0],
        one=pa.array([1.5], pa.float32()),
        whole=pa.array([2], pa.uint8()),
        half=pa.array([1.0], pa.float16()),
        flag=[True],
        price=[decimal.Decimal(3)],
        day=[dt.date(2024, 1, 1)],
        at=[dt.datetime(2024, 1, 1, tzinfo=dt.UTC)],
        took=[dt.timedelta(1)],
        note=["x"],
        empty=pa.nulls(1),
        **{"A-lo-90": [1.0], "whole-hi-99.5": [1], "__index_level_0__": [0]},
    )
    assert entry(table, tmp_path) == ["A", "one", "whole", "half"]


@each_entry
def test_what_is_named_otherwise_is_none(entry, tmp_path):
    table = frame(A=[1], step=[3], actual=[2.0])
    named = {"time": "step", "target": "actual"}
    assert entry(table, tmp_path, **named) == ["A"]  # nor are ds and y, which nobody named
    assert entry(table, tmp_path) == ["A", "step", "actual"]


def test_integers_are_scored_as_doubles():
    rows = {"y": pa.array([4, 1], pa.int32()), "A": pa.array([2**53 + 1, 3], pa.int64())}
    kinds = {"B": pa.array([1.1, 2.2], pa.float32())}
    table = pa.table({"unique_id": ["a", "b"], "cutoff": [1, 1], **rows, **kinds})
    scores = score_table(table, losses=["mae"], gradients=True)
    assert scores["model"].to_pylist() == ["A", "B"] * 2
    assert scores["mae"].to_pylist()[0] == 2.0**53 - 4
    assert scores["mae"].to_pylist()[3] == float(np.float32(2.2)) - 1
    assert scores.schema.field("mae_gradient").type == pa.large_list(pa.float64())


def test_lists_of_floats_are_the_models_of_a_nested_file(tmp_path):
    lists = {name: [[1.0, 2.0]] for name in ("y", "A", "A-lo-90", "ds")}
    table = pa.table({"unique_id": ["a"], **lists, "whole": [[1, 2]], "n": [2.0]})
    assert by_command(table, tmp_path) == ["A"]
