"""The command line over columns in every dress that files have: text, categories, runs, numbers."""

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import cli

from loss_scoring.service.cli.files import open_source

IDS = ["b", "b", "a", "a", "c"]
ROWS = {"ds": [1, 2, 1, 2, 1], "y": [1.0, 2.0, 3.0, 4.0, 5.0], "m": [2.0, 3.0, 5.0, 6.0, 8.0]}
MAE = {"b": 1.0, "a": 2.0, "c": 3.0}
INDEX_TYPES = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
INDEX_TYPES += [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view()]


def categories(ids, index, text):
    names = sorted(set(ids))
    indices = pa.array([names.index(one) for one in ids], index)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, text))


IDS_OF = {
    **{str(text): lambda ids, text=text: pa.array(ids, text) for text in TEXT_TYPES},
    **{
        f"{index} of {text}": lambda ids, index=index, text=text: categories(ids, index, text)
        for index in INDEX_TYPES
        for text in TEXT_TYPES
    },
    "runs": lambda ids: pa.RunEndEncodedArray.from_arrays(
        pa.array(range(1, len(ids) + 1), pa.int32()), pa.array(ids)
    ),
}


def long_parts(make):
    """Return two tables, whose ids have different dictionaries where they have any."""
    return [
        pa.table({"unique_id": make(IDS[a:b])} | {name: ROWS[name][a:b] for name in ROWS})
        for a, b in ((0, 3), (3, 5))
    ]


def nested_parts(make):
    sides = {"y": [[1.0, 2.0], [3.0, 4.0], [5.0]], "m": [[2.0, 3.0], [5.0, 6.0], [8.0]]}
    return [
        pa.table({"unique_id": make(["b", "a", "c"][a:b])} | {s: sides[s][a:b] for s in sides})
        for a, b in ((0, 2), (2, 3))
    ]


def write_parts(path, parts):
    schema = parts[0].schema
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, schema) as writer:
            for part in parts:
                writer.write_table(part)
        return
    new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with new(path, schema) as writer:
        for part in parts:
            writer.write_table(part)


def write(path, table):
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        write_parts(path, [table])


READ = {
    ".parquet": pq.read_table,
    ".csv": pyarrow.csv.read_csv,
    ".arrow": lambda path: pa.ipc.open_file(path).read_all(),
    ".feather": lambda path: pa.ipc.open_file(path).read_all(),
    ".ipc": lambda path: pa.ipc.open_file(path).read_all(),
    ".arrows": lambda path: pa.ipc.open_stream(path).read_all(),
}


def check_scores(path, output, *flags):
    status, _, err = cli("score", path, "--losses", "mae", "-o", output, *flags)
    assert status == 0, err
    scores = READ[output.suffix](output)
    assert dict(zip(*scores.select(["unique_id", "mae"]).to_pydict().values(), strict=True)) == MAE


def writable(ending, kind):
    """Tell whether Arrow can write the parts of a file, of which each has a dictionary."""
    return " of " not in kind or (
        ending == ".arrows" or (ending == ".parquet" and "view" not in kind)
    )


@pytest.mark.parametrize("parts", [long_parts, nested_parts])
@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (ending, kind)
        for ending in (".parquet", ".arrow", ".arrows")
        for kind in IDS_OF
        if writable(ending, kind) and (ending, kind) != (".parquet", "runs")
    ],
)
def test_ids_are_read_in_every_type(tmp_path, ending, parts, kind):
    write_parts(tmp_path / f"f{ending}", parts(IDS_OF[kind]))
    check_scores(tmp_path / f"f{ending}", tmp_path / "o.csv")
    flags = ["--sort"] if parts is long_parts else []
    check_scores(tmp_path / f"f{ending}", tmp_path / "o.parquet", *flags)


@pytest.mark.parametrize("written", READ)
@pytest.mark.parametrize("kind", ["string_view", "int8 of string", "uint64 of string_view", "runs"])
def test_ids_are_written_in_every_format(tmp_path, kind, written):
    table = pa.table({"unique_id": IDS_OF[kind](IDS), **ROWS})
    with pa.ipc.new_file(tmp_path / "f.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    for flags in ([], ["--sort"]):
        check_scores(tmp_path / "f.arrow", tmp_path / f"o{written}", *flags)


BAD_CELLS = ["-", ".", "1,900", "1_000", "5%", "x"]


@pytest.mark.parametrize("rows_before", [1, 200])
@pytest.mark.parametrize("cell", BAD_CELLS)
def test_a_bad_cell_of_a_csv_is_named_in_whatever_block(tmp_path, monkeypatch, cell, rows_before):
    monkeypatch.setattr("loss_scoring.service.cli.csv_files._CSV_BLOCK_BYTES", 256)
    path = tmp_path / "f.csv"
    rows = "a,1,2,3\n" * rows_before + f'a,1,2,"{cell}"\na,1,2,3\n'
    path.write_text(f"unique_id,y,Naive,Theta\n{rows}")
    for flags in ([], ["--models", "Theta"], ["--target-col", "Theta"]):
        status, out, err = cli("score", path, *flags)
        assert (status, out) == (1, "")
        expected = (
            f"{path}: column 'Theta' holds numbers, but {cell!r} in row {rows_before} is text"
        )
        assert expected in err
    status, out, err = cli("score", path, "--exclude", "Theta")
    assert (status, err) == (0, "scored as models: Naive\n")


@pytest.mark.parametrize("rows_before", [1, 200])
@pytest.mark.parametrize("cell", ["", "None", "<NA>", "NA", "n/a", "nan", "null", " ", "   "])
def test_a_null_of_a_csv_is_a_missing_element(tmp_path, monkeypatch, cell, rows_before):
    monkeypatch.setattr("loss_scoring.service.cli.csv_files._CSV_BLOCK_BYTES", 256)
    path, output = tmp_path / "f.csv", tmp_path / "o.parquet"
    path.write_text("unique_id,y,Theta\n" + "a,1,3\n" * rows_before + f"b,1,{cell}\n")
    status, _, err = cli("score", path)
    assert status == 1
    assert f"series unique_id='b': element 0 of Theta in row {rows_before} is missing" in err
    assert cli("score", path, "--missing", "skip", "-o", output)[0] == 0
    assert pq.read_table(output)["mae"].to_pylist() == [2.0, None]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["", "", "7.5"], "scored as models: m, late"),
        (["", "", ""], "scored as models: m, late"),
        (["", "", "north"], "left out: 'late' (text)"),
        (
            ["", "", "1", "2", "1,900"],
            "column 'late' holds numbers, but '1,900' in row 184 is text",
        ),
        (["", "", "north", "1", "south"], "left out: 'late' (text)"),
    ],
)
def test_a_column_without_a_value_in_the_first_block(tmp_path, monkeypatch, cells, expected):
    monkeypatch.setattr("loss_scoring.service.cli.csv_files._CSV_BLOCK_BYTES", 256)
    path = tmp_path / "f.csv"
    rows = [f'a,1,2,"{cell}"\n' if cell else "a,1,2,\n" for cell in [""] * 180 + cells]
    path.write_text("unique_id,y,m,late\n" + "".join(rows))
    assert expected in cli("score", path, "--missing", "skip")[2]


def test_what_pandas_writes_beside_the_forecasts_is_no_model(tmp_path):
    path = tmp_path / "f.csv"
    pd.DataFrame({"unique_id": ["a", "a"], **{k: v[:2] for k, v in ROWS.items()}}).to_csv(path)
    for flags in ([], ["--id-col", "unique_id"]):
        status, _, err = cli("score", path, *flags)
        assert (status, err) == (0, "scored as models: m\nleft out: '' (an index)\n")


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_numbers_in_every_type_are_models(tmp_path, ending):
    path, output = tmp_path / f"f{ending}", tmp_path / "o.csv"
    kinds = {
        "half": pa.array([1, 2, 3, 4, 5], pa.float16()),
        "small": pa.array([1, 2, 3, 4, 5], pa.uint8()),
        "decimal": pa.array([decimal.Decimal(n) for n in range(1, 6)]),
        "category": categories([1, 2, 3, 4, 5], pa.uint32(), pa.int64()),
        "null": pa.nulls(5),
    }
    write_parts(path, [pa.table({"unique_id": IDS, **ROWS, **kinds})])
    status, _, err = cli("score", path, "--missing", "skip", "--losses", "mae", "-o", output)
    assert (status, err.splitlines()[0]) == (
        0,
        "scored as models: m, half, small, decimal, category, null",
    )
    scores = pyarrow.csv.read_csv(output).select(["model", "mae"]).to_pydict()
    assert scores["mae"] == [x for mae in MAE.values() for x in (mae, 0, 0, 0, 0, None)]


def test_text_that_is_mostly_numbers_is_refused_in_parquet_too(tmp_path):
    path = tmp_path / "f.parquet"
    for make in (pa.array, lambda cells: pa.array(cells).dictionary_encode()):
        cells = make([None, "1", "2", "3", "None"])
        pq.write_table(pa.table({"unique_id": IDS, **ROWS, "Theta": cells}), path, row_group_size=1)
        status, _, err = cli("score", path)
        assert status == 1
        assert f"{path}: column 'Theta' holds numbers" in err
        assert cli("score", path, "--exclude", "Theta")[0] == 0


def test_unread_columns_of_any_type_are_allowed(tmp_path):
    note = pa.StringArray.from_buffers(
        1, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")
    )
    unread = [note, note, pa.array([{"x": 1.0}]), pa.array([b"1" * 16], pa.uuid()), pa.array([[1]])]
    names = ["note", "note", "struct", "uuid", "list"]
    table = pa.table(
        [pa.array(["a"]), pa.array([1.0]), pa.array([2.0]), *unread],
        names=["unique_id", "y", "m.x", *names],
    )
    for ending in (".arrow", ".arrows"):
        write_parts(tmp_path / f"f{ending}", [table])
        status, _, err = cli("score", tmp_path / f"f{ending}", "--models", "m.x")
        assert (status, err) == (0, "scored as models: m.x\n")
    pq.write_table(table.append_column("m", [[{"x": 1.0}]]), tmp_path / "f.parquet")
    assert cli("score", tmp_path / "f.parquet", "--models", "m.x")[0] == 0
    (tmp_path / "f.csv").write_bytes(b"unique_id,y,m,n,n,,\na,1,2,\xff,x,,\n")
    status, _, err = cli("score", tmp_path / "f.csv")
    assert (status, err.splitlines()[0]) == (0, "scored as models: m")


@pytest.mark.parametrize(
    ("cutoff", "text"),
    [
        (pa.scalar(32_503_680_000, pa.timestamp("s")), "3000-01-01T00:00:00"),
        (pa.scalar(-62_135_596_800_000_000, pa.timestamp("us")), "0001-01-01T00:00:00"),
        (pa.scalar(1, pa.timestamp("ns")), "1970-01-01T00:00:00.000000001"),
        (pa.scalar(500_000_000_000, pa.timestamp("s")), "17814-05-16T00:53:20"),
        (pa.scalar(0, pa.timestamp("us", "Europe/Berlin")), "1970-01-01T00:00:00Z"),
        (pa.scalar(0, pa.timestamp("us", "Mars/Olympus")), "1970-01-01T00:00:00Z"),
        (pa.scalar(1, pa.time64("ns")), "00:00:00.000000001"),
        (pa.scalar(dt.date(2024, 1, 31)), "2024-01-31"),
    ],
)
def test_cutoffs_of_any_time_are_named(tmp_path, cutoff, text):
    path = tmp_path / "f.parquet"
    cutoffs = pa.repeat(cutoff, 3)
    sides = {"y": [1.0, 2.0, 3.0], "m": [1.0, None, 3.0]}
    pq.write_table(pa.table({"unique_id": ["a", "a", "b"], "cutoff": cutoffs, **sides}), path)
    assert (
        f"{path}: series unique_id='a', cutoff={text}: element 1 of m in row 1 is missing"
        in cli("score", path)[2]
    )
    pq.write_table(pa.table({"unique_id": ["a", "b", "a"], "cutoff": cutoffs, **sides}), path)
    assert (
        f"{path}: the rows of series unique_id='a', cutoff={text} are not together"
        in cli("score", path)[2]
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ([[1.0, 2.0], None, [3.0]], "column 'm' is null in series unique_id='b'"),
        ([[1.0, 2.0], [], []], "column 'm' is empty in series unique_id='b'; unique_id='c'"),
        (
            [[1.0, 2.0], [1.0, 2.0], [3.0]],
            "column 'm' differs from y in length in series unique_id='b'",
        ),
        ([[1.0, 2.0], [None], [3.0]], "series unique_id='b': element 0 of m is missing"),
    ],
)
def test_nested_series_are_named_by_their_ids(tmp_path, model, expected):
    path = tmp_path / "f.parquet"
    pq.write_table(
        pa.table({"unique_id": ["a", "b", "c"], "y": [[1.0, 2.0], [3.0], [4.0]], "m": model}), path
    )
    assert f"{path}: {expected}" in cli("score", path)[2]


def test_a_message_names_twenty_series_and_counts_the_others(tmp_path):
    path = tmp_path / "f.parquet"
    ids = [str(n) for n in range(30)]
    pq.write_table(
        pa.table(
            {"unique_id": ids, "y": [[1.0]] * 30, "m": [[]] * 30},
            pa.schema(
                {"unique_id": "string", "y": pa.list_(pa.float64()), "m": pa.list_(pa.float64())}
            ),
        ),
        path,
    )
    assert "unique_id='19' and 10 more" in cli("score", path)[2]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float16(), pa.decimal128(5, 2)])
def test_nested_series_of_any_numbers(tmp_path, kind):
    path, output = tmp_path / "f.arrow", tmp_path / "o.csv"
    y = pa.array([[1, 2], [3]], pa.list_(kind))
    write_parts(path, [pa.table({"unique_id": ["a", "b"], "y": y, "m": [[2.5, 3.5], [3.0]]})])
    assert cli("score", path, "--losses", "mae", "-o", output)[0] == 0
    assert pyarrow.csv.read_csv(output)["mae"].to_pylist() == [1.5, 0.0]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".arrow"])
@pytest.mark.parametrize("batch_rows", [2, 1000])
def test_the_same_row_twice_is_refused_by_id_and_time(tmp_path, monkeypatch, ending, batch_rows):
    monkeypatch.setattr("loss_scoring.service.cli.csv_files._CSV_BLOCK_BYTES", 16 * batch_rows)
    monkeypatch.setattr(open_source, "__defaults__", (batch_rows, lambda _names: ()))
    path, output = tmp_path / f"f{ending}", tmp_path / "o.parquet"
    columns = {"unique_id": list("aabbbc"), "ds": [1, 2, 1, 2, 1, 7]}
    numbers = {"y": [1.0] * 6, "m": [2.0] * 6}
    table = pa.table(columns | numbers)
    write(path, table)
    status, out, err = cli("score", path)
    time = "'1'" if ending == ".csv" else "1"
    expected = (
        f"{path}: column 'ds' is {time} in rows 2 and 4 of series unique_id='b' (the first of 1"
    )
    assert (status, out) == (1, "")
    assert expected in err
    assert "--duplicates allow" in err
    assert cli("score", path, "--duplicates", "allow", "-o", output)[0] == 0
    assert pq.read_table(output)["length"].to_pylist() == [2, 3, 1]
    write(path, pa.concat_tables([table.slice(0, 2), table.slice(5), table.slice(0, 2)]))
    fault = f"is {time} in rows 0 and 3 of series unique_id='a'"
    assert fault in cli("score", path, "--sort")[2]


def test_a_cutoff_by_another_name_is_a_key_once_it_is_named(tmp_path):
    path = tmp_path / "f.parquet"
    folds = pa.array([1, 1, 2, 2], pa.timestamp("us"))
    sides = {"y": [1.0, 2.0, 3.0, 4.0], "m": [2.0, 2.0, 2.0, 2.0]}
    columns = {"unique_id": ["a"] * 4, "origin": folds, "ds": [1, 2, 2, 3]}
    pq.write_table(pa.table(columns | sides), path)
    assert "such as a cutoff" in cli("score", path)[2]
    assert cli("score", path, "--cutoff-col", "origin")[0] == 0


@pytest.mark.parametrize("times", ["list", "struct", "absent", "null", "repeated"])
def test_times_that_cannot_be_compared_refuse_nothing(tmp_path, times):
    path = tmp_path / "f.arrow"
    column = {
        "list": pa.array([[1]] * 5),
        "struct": pa.array([{"x": 1}] * 5),
        "null": pa.array([None] * 5, pa.int64()),
        "repeated": pa.array([1] * 5),
    }
    table = pa.table({"unique_id": IDS, "y": ROWS["y"], "m": ROWS["m"]})
    for _ in range({"absent": 0, "repeated": 2}.get(times, 1)):
        table = table.append_column("ds", column[times])
    write(path, table)
    assert cli("score", path)[0] == 0


def test_empty_times_of_a_csv_are_not_the_same(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("unique_id,ds,y,m\na,,1,2\na,,1,2\n")
    assert cli("score", path)[0] == 0
    assert "did you mean 'ds'" in cli("score", path, "--time-col", "dss")[2]
