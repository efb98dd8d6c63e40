"""The command line over columns in every dress that files have: text, categories, runs, numbers."""

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import cli

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
    check_scores(tmp_path / f"f{ending}", tmp_path / "o.parquet", "--sort")


@pytest.mark.parametrize("written", READ)
@pytest.mark.parametrize("kind", ["string_view", "int8 of string", "uint64 of string_view", "runs"])
def test_ids_are_written_in_every_format(tmp_path, kind, written):
    table = pa.table({"unique_id": IDS_OF[kind](IDS), **ROWS})
    with pa.ipc.new_file(tmp_path / "f.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    for flags in ([], ["--sort"]):
        check_scores(tmp_path / "f.arrow", tmp_path / f"o{written}", *flags)
