"""Which columns are models where nobody names them: the same for every entry."""

import json
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_columns import CASES, MODEL, Case, Refused, name_of, table_of
from typer.testing import CliRunner

from loss_scoring.core import ScoreOptions
from loss_scoring.core.table import LeftOutWarning, TableError, score_table
from loss_scoring.service.cli import app
from loss_scoring.service.codecs.arrow import long
from loss_scoring.service.codecs.options import columns_from_query
from loss_scoring.service.codecs.request import Limits
from loss_scoring.service.errors import Faults, InvalidError, UnreadableError
from loss_scoring.service.limits.budget import MemoryBudget, Reservation


def by_table(table, _path, **columns):
    """Return the models, and the warning of what was left out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        models = score_table(table, missing="skip", **columns)["model"].to_pylist()
    assert {one.category for one in caught} <= {LeftOutWarning}
    assert all(one.filename == __file__ for one in caught)
    return models, "".join(str(one.message) for one in caught)


def by_wire(table, _path, **columns):
    """Return the models, and what was left out as JSON."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    faults = Faults()
    query = {"group_columns": "unique_id,cutoff", **{f"{k}_column": v for k, v in columns.items()}}
    named = columns_from_query(list(query.items()), faults)
    faults.check()
    body = memoryview(sink.getvalue())
    options = ScoreOptions(missing="skip")
    memory = Reservation(MemoryBudget(1 << 24), "")
    request = long.decode(body, options, named, Limits(1 << 20, 99), memory)
    left_out = request.layout.left_out
    return list(request.layout.models), json.dumps(dict(left_out)) if left_out else ""


def by_command(table, path, **columns):
    """Return the models, and the line on stderr."""
    with pa.ipc.new_file(path / "f.arrow", table.schema) as writer:
        writer.write_table(table)
    flags = [part for k, v in columns.items() for part in (f"--{k}-col", v)]
    arguments = ["score", str(path / "f.arrow"), "-o", str(path / "o.parquet"), *flags]
    result = CliRunner().invoke(app, [*arguments, "--missing", "skip"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    said = [
        line
        for line in result.stderr.splitlines(keepends=True)
        if "series are compared" not in line
    ]
    return pq.read_table(path / "o.parquet")["model"].to_pylist(), "".join(said)


each_entry = pytest.mark.parametrize("entry", [by_table, by_wire, by_command])


@pytest.mark.parametrize("case", CASES, ids=name_of)
@each_entry
def test_models_are_found_by_one_rule(entry, case: Case, tmp_path):
    table = table_of(case)
    if isinstance(case.verdict, Refused):
        with pytest.raises((TableError, InvalidError)) as error:
            entry(table, tmp_path)
        printed = str(error.value)
        if entry is by_wire:
            assert [one.pointer for one in error.value.errors] == [f"/{case.name}"]
            printed = f"{case.name!r} {printed}"
        assert all(part in printed for part in case.verdict.says), printed
        return
    models, left_out = entry(table, tmp_path)
    if case.verdict == MODEL:
        assert models == ["A", case.name]
        assert left_out in {"", f"scored as models: A, {case.name}\n"}
    else:
        assert models == ["A"]
        assert case.name in left_out
        assert case.verdict in left_out


@each_entry
def test_columns_with_another_role_are_no_models(entry, tmp_path):
    table = table_of(Case("sales", pa.array([1.0, 2.0, 3.0, 4.0]), MODEL))
    table = table.append_column("step", table["ds"])
    named = {"time": "step", "target": "sales"}
    assert entry(table, tmp_path, **named)[0] == ["A"]  # nor are ds and y, which nobody named
    assert entry(table, tmp_path)[0] == ["A", "sales"]


def test_integers_are_scored_as_doubles():
    rows = {"y": pa.array([4, 1], pa.int32()), "A": pa.array([2**53 + 1, 3], pa.int64())}
    kinds = {"B": pa.array([1.1, 2.2], pa.float32())}
    table = pa.table({"unique_id": ["a", "b"], "cutoff": [1, 1], **rows, **kinds})
    scores = score_table(table, losses=["mae"], gradients=True)
    assert scores["model"].to_pylist() == ["A", "B"] * 2
    assert scores["mae"].to_pylist()[0] == 2.0**53 - 4
    assert scores["mae"].to_pylist()[3] == float(np.float32(2.2)) - 1
    assert scores.schema.field("mae_gradient").type == pa.large_list(pa.float64())


def test_lists_of_numbers_are_the_models_of_a_nested_file(tmp_path):
    lists = {name: [[1.0, 2.0]] for name in ("y", "A", "A-lo-90", "ds")}
    others = {"n": [2.0], "store": ["5"], "texts": [["north", "south"]]}
    table = pa.table({"unique_id": ["a"], **lists, "whole": [[1, 2]], **others})
    models, printed = by_command(table, tmp_path)
    assert models == ["A", "whole"]
    assert printed.splitlines()[1] == (
        "left out: 'A-lo-90' (a bound of a prediction interval), 'n' (holds double, not lists), "
        "'store' (text), 'texts' (holds list<item: string>)"
    )


def run(path, *flags):
    result = CliRunner().invoke(app, ["score", str(path), *flags])
    if isinstance(result.exception, InvalidError | UnreadableError):  # which the entry point prints
        return 1, str(result.exception)
    assert result.exception is None, result.exception
    return result.exit_code, result.stderr


def test_codes_of_a_csv_file_are_text(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("unique_id,ds,y,A,store,B\n1,1,007,1,001,3\n1,2,5,1,120,4\n")
    assert run(path) == (0, "scored as models: A, B\nleft out: 'store' (text)\n")
    assert run(path, "--models", "store,B") == (0, "scored as models: store, B\n")


def test_categories_that_are_all_numbers_are_text(tmp_path):
    columns = {"unique_id": ["a"] * 2, "ds": [1, 2], "y": [1.0, 2.0], "A": [1.0, 2.0]}
    category = pa.array(["1", "2"]).dictionary_encode()
    pq.write_table(pa.table({**columns, "grade": category}), tmp_path / "f.parquet")
    printed = "scored as models: A\nleft out: 'grade' (text)\n"
    assert run(tmp_path / "f.parquet") == (0, printed)


def test_lists_of_text_that_is_mostly_numbers_are_refused(tmp_path):
    path = tmp_path / "f.parquet"
    lists = {"y": [[1.0, 2.0], [3.0]], "A": [[1.0, 2.0], [3.0]], "B": [["1", "2"], ["1,900"]]}
    pq.write_table(pa.table({"unique_id": ["a", "b"], **lists}), path)
    status, printed = run(path)
    assert status == 1
    assert "column 'B' holds numbers, but '1,900' in element 2 is text" in printed
    assert "by --exclude" in printed
    assert run(path, "--exclude", "B") == (0, "scored as models: A\n")


@pytest.mark.parametrize(
    ("ids", "rows"), [("abb", "1 and 2"), ("aba", "0 and 2"), ("abcab", "0 and 3")]
)
@pytest.mark.parametrize("batch_rows", [1, 100])
def test_a_series_that_comes_twice_in_a_nested_file_is_refused(
    tmp_path, monkeypatch, ids, rows, batch_rows
):
    monkeypatch.setattr("loss_scoring.service.cli.files.BATCH_ROWS", batch_rows)
    path = tmp_path / "f.parquet"
    lists = [[1.0, 2.0]] * len(ids)
    pq.write_table(pa.table({"unique_id": list(ids), "y": lists, "A": lists}), path)
    status, printed = run(path)
    assert status == 1
    assert f"rows {rows} are both series unique_id=" in printed
    assert run(path, "--duplicates", "allow") == (0, "scored as models: A\n")


@pytest.mark.parametrize(
    "flags", [("--exclude", "nope"), ("--models", "A,nope"), ("--time-col", "nope")]
)
def test_an_absent_column_is_named_with_its_flag(tmp_path, flags):
    path = tmp_path / "f.csv"
    path.write_text("unique_id,ds,y,A\n1,1,7,1\n")
    status, printed = run(path, *flags)
    assert status == 1
    assert f"no column 'nope' among unique_id, ds, y, A; name it by {flags[0]}" in printed


@pytest.mark.parametrize("block", [24, 1 << 20])
def test_blank_rows_at_the_end_of_a_csv_file_are_ignored(tmp_path, monkeypatch, block):
    monkeypatch.setattr("loss_scoring.service.cli.csv_files._CSV_BLOCK_BYTES", block)
    path = tmp_path / "f.csv"
    rows = "unique_id,ds,y,A\na,1,2,3\na,2,3,4\n"
    path.write_text(rows + ",,,\n" * 20)
    assert run(path) == (0, "scored as models: A\n")
    path.write_text(rows + ",,,\n" * 20 + "b,1,2,3\n")
    status, printed = run(path)
    assert (status, "column 'unique_id' holds nulls, the first in row 2" in printed) == (1, True)


def test_utf_16_is_named(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("unique_id,ds,y,A\na,1,2,3\n", encoding="utf-16")
    status, printed = run(path)
    assert (status, "is in UTF-16; convert it to UTF-8" in printed) == (1, True)
