"""Several files, patterns, folders with partitions, compressed CSV, and actual values apart."""

import gzip
import subprocess

import forecasts
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import cli
from conftest import LOSS_SCORING

FLAGS = ("--missing", "skip", "--format", "csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The answer for the file as it is."""
    output = tmp_path_factory.mktemp("whole") / "scores.parquet"
    assert cli("score", forecasts.LONG, *FLAGS, "-o", output)[0] == 0
    return pq.read_table(output)


def series_of(table: pa.Table, first: int, last: int) -> pa.Table:
    ids = pc.unique(table["unique_id"]).slice(first, last - first)
    return table.filter(pc.is_in(table["unique_id"], ids))


def test_several_files_and_patterns_are_one(tmp_path, whole):
    table = pq.read_table(forecasts.LONG)
    count = len(pc.unique(table["unique_id"]))
    cuts = [0, 3, 5, count]
    for i in range(3):
        part = series_of(table, cuts[i], cuts[i + 1])
        if i == 1:
            part = part.cast(part.schema.set(2, pa.field("ds", pa.timestamp("ns"))))
        pq.write_table(part, tmp_path / f"part-{i}.parquet")
    output = tmp_path / "scores.parquet"
    names = [tmp_path / f"part-{i}.parquet" for i in range(3)]
    for given in (names, [tmp_path / "part-*.parquet"], [tmp_path]):
        assert cli("score", *given, *FLAGS, "-o", output)[0] == 0
        assert pq.read_table(output).equals(whole)
        output.unlink()


def test_partitions_are_columns(tmp_path, whole):
    table = pq.read_table(forecasts.LONG)
    for cutoff in pc.unique(table["cutoff"]):
        day = str(cutoff.as_py()).replace(":", "%3A")
        folder = tmp_path / "data" / f"cutoff={day}"
        folder.mkdir(parents=True)
        rows = table.filter(pc.equal(table["cutoff"], cutoff)).drop(["cutoff"])
        pq.write_table(rows, folder / "rows.parquet")
    (tmp_path / "data" / "_SUCCESS").write_text("")
    output = tmp_path / "scores.parquet"
    assert cli("score", tmp_path / "data", *FLAGS, "-o", output)[0] == 0
    got = pq.read_table(output)
    assert got.schema.names == whole.schema.names
    cutoffs = whole["cutoff"].cast(pa.string())
    assert len(got) == len(whole)
    by = [("unique_id", "ascending"), ("cutoff", "ascending"), ("model", "ascending")]
    want = whole.set_column(1, "cutoff", cutoffs).sort_by(by)
    got = got.sort_by(by)
    for name in ("unique_id", "model", "mae", "mape", "smape"):
        assert got[name].equals(want[name])
    assert (
        cli("score", tmp_path / "data" / "*" / "*.parquet", *FLAGS)[1:]
        == cli("score", tmp_path / "data", *FLAGS)[1:]
    )


def test_partitions_of_whole_numbers(tmp_path):
    for cutoff in ("1", "2", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / f"cutoff={cutoff}").mkdir()
        rows = pa.table({"unique_id": ["a"], "y": [1.0], "m": [2.0]})
        pq.write_table(rows, tmp_path / f"cutoff={cutoff}" / "f.parquet")
    status, _, err = cli("score", tmp_path)
    assert (status, "'cutoff' holds nulls" in err) == (1, True)
    (tmp_path / "cutoff=__HIVE_DEFAULT_PARTITION__" / "f.parquet").unlink()
    assert cli("score", tmp_path, "-o", tmp_path.parent / "o.parquet")[0] == 0
    assert pq.read_table(tmp_path.parent / "o.parquet")["cutoff"].to_pylist() == [1, 2]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_compressed_csv(tmp_path, ending):
    plain, packed = tmp_path / "f.csv", tmp_path / f"f.csv.{ending}"
    plain.write_text("unique_id,ds,y,m\n007,1,1,2\nb,1,4,5\n")
    with pa.output_stream(str(packed)) as file:
        file.write(plain.read_bytes())
    assert packed.read_bytes() != plain.read_bytes()
    outputs = [tmp_path / "one.csv", tmp_path / "other.csv"]
    for path, output in zip((plain, packed), outputs, strict=True):
        assert cli("score", path, "-o", output)[0] == 0
    assert outputs[0].read_text() == outputs[1].read_text()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"unique_id": [1], "y": [1.0], "m": [2.0]}, "column 'unique_id' is int64 here and string"),
        ({"unique_id": ["b"], "y": [1.0]}, "column 'm' is absent, which other files have"),
        ({"unique_id": ["a"], "y": [1.0], "m": [2.0]}, None),
    ],
)
def test_files_must_fit_together(tmp_path, other, expected):
    first, second = tmp_path / "1.parquet", tmp_path / "2.parquet"
    pq.write_table(pa.table({"unique_id": ["a", "c"], "y": [1.0, 1], "m": [2.0, 2]}), first)
    pq.write_table(pa.table(other), second)
    status, _, err = cli("score", first, second)
    assert status == 1
    assert (expected or "the rows of series unique_id='a' are not together") in err
    if expected:
        assert "2.parquet" in err


def test_actual_values_apart_in_a_real_process(tmp_path, whole):
    table = pq.read_table(forecasts.LONG)
    rows = table.select(["unique_id", "ds", "y"]).to_pandas().drop_duplicates(["unique_id", "ds"])
    actuals = pa.Table.from_pandas(rows, preserve_index=False)
    pq.write_table(table.drop(["y"]), tmp_path / "forecasts.parquet")
    pq.write_table(actuals, tmp_path / "actuals.parquet")
    with gzip.open(tmp_path / "actuals.csv.gz", "wb") as file:
        pyarrow.csv.write_csv(actuals, file)
    for name in ("actuals.parquet", "actuals.csv.gz"):
        output = tmp_path / "scores.parquet"
        command = [LOSS_SCORING, "score", tmp_path / "forecasts.parquet", *FLAGS, "-o", output]
        done = subprocess.run(
            [*command, "--actuals", tmp_path / name], capture_output=True, text=True, check=True
        )
        assert f"{len(table)} rows of forecasts have an actual value, 0 have none" in done.stderr
        assert pq.read_table(output).equals(whole)


def test_what_has_no_actual_value_is_counted(tmp_path):
    forecast, actual = tmp_path / "f.csv", tmp_path / "a.csv"
    forecast.write_text("unique_id,ds,m\n007,2026-01-01,2\n007,2026-01-02,2\nb,2026-01-01,5\n")
    actual.write_text("unique_id,ds,y\n007,2026-01-01,1\nc,2026-01-01,4\n")
    status, out, err = cli("score", forecast, "--actuals", actual, "--losses", "mae")
    assert status == 0
    assert "1 rows of forecasts have an actual value, 2 have none yet; 1 actual values are" in err
    assert out.splitlines()[1].startswith("mae,m,1,1.0,")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--actuals", "twice.csv"], "rows 0 and 1 of the actual values are both of unique_id='a'"),
        (["--actuals", "other.csv"], "no row of forecasts has an actual value; the first of"),
        (["--actuals", "absent.csv"], "absent.csv: No such file"),
        (["--actuals", "f.csv"], "f.csv: column 'y' is absent"),
        (["--on", "ds"], "--on is for --actuals"),
        (["--actuals", "other.csv", "--on", "unique_id,when"], "column 'when' is absent"),
    ],
)
def test_mistakes_with_actual_values_are_explained(tmp_path, monkeypatch, flags, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.csv").write_text("unique_id,ds,m\na,1,2\n")
    (tmp_path / "twice.csv").write_text("unique_id,ds,y\na,1,1\na,1,1\n")
    (tmp_path / "other.csv").write_text("unique_id,ds,y\nb,1,1\n")
    status, out, err = cli("score", "f.csv", *flags)
    assert (status, out) == (2 if "--on is" in expected else 1, "")
    assert expected in err
    assert "Traceback" not in err


def test_a_gate_over_actual_values_apart(tmp_path):
    (tmp_path / "f.csv").write_text("unique_id,ds,m,n\na,1,2,3\nb,1,2,3\n")
    (tmp_path / "a.csv").write_text("unique_id,ds,y\na,1,2\nb,1,2\n")
    given = ["check", tmp_path / "f.csv", "--actuals", tmp_path / "a.csv", "--loss", "mae"]
    assert cli(*given, "--model", "m", "--baseline", "n")[0] == 0
    assert cli(*given, "--model", "n", "--baseline", "m")[0] == 1
