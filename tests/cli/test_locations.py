"""Addresses, standard input and output, and CSV files as other countries write them."""

import io
import subprocess
import sys

import forecasts
import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import cli
from conftest import LOSS_SCORING

from loss_scoring.service.cli.locations import find_remote, label_of, standard_input

FLAGS = ("--missing", "skip", "--losses", "mae", "--format", "csv")
TABLE = pa.table(
    {
        "unique_id": ["a", "a", "b"],
        "ds": ["1", "2", "1"],
        "y": [1.5, 2.25, 3.0],
        "A": [2.5, 2.0, 3.5],
    }
)


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/bucket", recursive=True)


@pytest.fixture
def pipes(monkeypatch):
    """Return a function that runs a command with bytes at standard input, and its answers."""

    def run(given: bytes, *arguments):
        standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        return cli(*arguments)

    yield run
    standard_input.cache_clear()


def as_stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def put(system, path: str, table: pa.Table) -> None:
    with system.open(path, "wb") as file:
        pq.write_table(table, file)


def test_files_at_addresses_are_those_of_this_machine(memory, tmp_path):
    table = pq.read_table(forecasts.LONG)
    for cutoff in pc.unique(table["cutoff"]):
        rows = table.filter(pc.equal(table["cutoff"], cutoff)).drop(["cutoff"])
        day = str(cutoff.as_py()).replace(":", "%3A")
        (tmp_path / f"cutoff={day}").mkdir()
        pq.write_table(rows, tmp_path / f"cutoff={day}" / "rows.parquet")
        put(memory, f"/bucket/cutoff={day}/rows.parquet", rows)
    memory.pipe("/bucket/_SUCCESS", b"")
    status, want, _ = cli("score", tmp_path, *FLAGS)
    assert status == 0
    for address in ("memory://bucket", "memory://bucket/*/*.parquet", "memory://bucket/cutoff*"):
        assert cli("score", address, *FLAGS)[:2] == (0, want)


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".csv.gz", ".arrow", ".arrows"])
def test_every_format_is_read_and_written_at_addresses(memory, tmp_path, ending):
    local = tmp_path / "forecasts.parquet"
    pq.write_table(TABLE, local)
    address = f"memory://bucket/forecasts{ending}"
    if ending.endswith((".csv", ".gz")):
        with (
            memory.open(address, "wb") as raw,
            pa.output_stream(raw, compression="gzip" if "gz" in ending else None) as file,
        ):
            pa.csv.write_csv(TABLE, file)
    else:
        with memory.open(address, "wb") as file:
            if ending == ".parquet":
                pq.write_table(TABLE, file)
            else:
                with (pa.ipc.new_file if ending == ".arrow" else pa.ipc.new_stream)(
                    file, TABLE.schema
                ) as writer:
                    writer.write_table(TABLE)
    assert cli("score", address, *FLAGS)[:2] == cli("score", local, *FLAGS)[:2]
    if not ending.endswith(".gz"):
        output = f"memory://bucket/scores{ending}"
        assert cli("score", local, *FLAGS, "-o", output)[0] == 0
        want = cli(
            "check", tmp_path / "forecasts.parquet", "--model", "A", "--loss", "mae", "--max", "1"
        )
        assert cli("check", output, "--model", "A", "--loss", "mae", "--max", "1")[:2] == want[:2]


@pytest.mark.parametrize(
    ("address", "status", "expected"),
    [
        ("memory://bucket/absent.parquet", 1, "memory://bucket/absent.parquet: No such file"),
        (
            "memory://bucket/*.parquet",
            1,
            "memory://bucket/*.parquet: no file that ends in .parquet",
        ),
        ("nowhere://bucket/f.parquet", 2, "nowhere://bucket/f.parquet: Protocol not known"),
    ],
)
def test_addresses_without_a_file_are_named(address, status, expected):
    code, out, err = cli("score", address)
    assert (code, out) == (status, "")
    assert expected in err


def test_a_library_that_is_absent_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    status, _, err = cli("score", "s3://bucket/f.parquet")
    assert status == 2
    assert "s3://bucket/f.parquet: Install s3fs" in err
    assert "pip install 'loss-scoring[remote]'" in err


def test_faults_of_a_library_name_the_file(monkeypatch, memory):
    put(memory, "/bucket/f.parquet", TABLE)
    monkeypatch.setattr(type(memory), "open", lambda *_args, **_kwargs: 1 / 0)
    (found,) = find_remote("memory://bucket/f.parquet", lambda _path: True)
    status, _, err = cli("score", "memory://bucket/f.parquet")
    assert found.file.label == "memory://bucket/f.parquet"
    assert (status, err) == (1, "error: memory://bucket/f.parquet: division by zero\n")


def test_standard_input_is_an_arrow_stream(pipes, tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(TABLE, path)
    want = cli("score", path, *FLAGS)
    assert pipes(as_stream(TABLE), "score", "-", *FLAGS) == want
    forecasts_, actuals = TABLE.drop(["y"]), TABLE.drop(["A"])
    pq.write_table(forecasts_, path)
    got = pipes(as_stream(actuals), "score", path, "--actuals", "-", *FLAGS)
    assert got[:2] == want[:2]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"", "standard input is empty"),
        (b"unique_id,y,A\na,1,2\n", "standard input: is not a complete Arrow file or stream"),
        (as_stream(TABLE)[:-200], "standard input: Expected to read"),
    ],
)
def test_other_things_at_standard_input_are_refused(pipes, given, expected):
    status, out, err = pipes(given, "score", "-")
    assert (status, out) == (1, "")
    assert expected in err


def test_a_pipeline_of_streams(tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(TABLE, path)
    assert cli("score", path, *FLAGS, "-o", tmp_path / "scores.parquet")[0] == 0
    command = [LOSS_SCORING, "score", "-", "-o", "-", "--losses", "mae"]
    done = subprocess.run(command, input=as_stream(TABLE), capture_output=True, check=True)
    with pa.ipc.open_stream(done.stdout) as reader:
        assert reader.read_all().equals(pq.read_table(tmp_path / "scores.parquet"))
    assert b"avg_rank" in done.stderr
    failed = subprocess.run(
        command, input=as_stream(TABLE.drop(["A"])), capture_output=True, check=False
    )
    assert (failed.returncode, failed.stdout) == (1, b"")


def csv_of(separator: str, decimal: str) -> str:
    rows = [TABLE.column_names, *map(dict.values, TABLE.to_pylist())]
    cells = [[str(cell).replace(".", decimal) for cell in row] for row in rows]
    quote = '"' if separator == decimal else ""
    return (
        "\n".join(separator.join(f"{quote}{cell}{quote}" for cell in row) for row in cells) + "\n"
    )


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_what_is_certain_of_a_csv_file_need_not_be_said(tmp_path, separator, decimal):
    path = tmp_path / "f.csv"
    path.write_text(csv_of(",", "."))
    _, want, _ = cli("score", path, *FLAGS)
    path.write_text(csv_of(separator, decimal))
    assert cli("score", path, *FLAGS)[:2] == (0, want)
    name = "tab" if separator == "\t" else separator
    said = "--delimiter", name, "--decimal", decimal
    assert cli("score", path, *FLAGS, *said)[:2] == (0, want)


def test_whole_numbers_do_not_tell_a_decimal_comma(tmp_path):
    forecasts_, actuals = tmp_path / "f.csv", tmp_path / "a.csv"
    forecasts_.write_text("unique_id;ds;A\na;1;2,5\n")
    actuals.write_text("unique_id;ds;y\na;1;2\n")
    command = "score", forecasts_, "--actuals", actuals, *FLAGS
    status, _, err = cli(*command)
    assert (status, "pass --decimal ," in err) == (1, True)
    status, out, _ = cli(*command, "--decimal", ",")
    assert (status, out.splitlines()[1][:10]) == (0, "mae,A,1,0.")
    assert (
        cli(
            "check", *command[1:4], "--model", "A", "--loss", "mae", "--max", "1", "--decimal", ","
        )[0]
        == 0
    )


def test_thousands_are_no_decimals(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("unique_id;y;A\na;1,500;1\nb;2,250;1\n")
    status, _, err = cli("score", path)
    assert (status, "'1,500' in row 0" in err) == (1, True)


@pytest.mark.parametrize(
    "address", ["ftp://me:secret@h/f.parquet", "HTTPS://me:secret@h/f?key=secret"]
)
def test_no_label_has_a_password(address):
    assert "secret" not in label_of(address)
