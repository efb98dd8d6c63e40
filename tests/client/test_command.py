"""``lossclient score`` against a real service: files in, scores out, and what it says if it cannot."""

import subprocess
import sys

import forecasts
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import lossclient
from lossclient.__main__ import main

KEPT = ["unique_id", "cutoff", "ds", "y", "Theta", "AutoETS"]


@pytest.fixture(scope="module")
def long():
    return pq.read_table(forecasts.LONG, columns=KEPT).slice(0, 300)


@pytest.fixture(scope="module")
def wanted(url, long):
    with lossclient.Client(url) as client:
        return client.score(long, missing="skip")


def write(table, path):
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        make = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
        with make(path, table.schema) as writer:
            writer.write_table(table)
    return str(path)


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix == ".csv":
        return pa.csv.read_csv(path)
    with pa.memory_map(str(path)) as file:
        return (pa.ipc.open_stream if path.suffix == ".arrows" else pa.ipc.open_file)(
            file
        ).read_all()


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".arrow", ".arrows"])
def test_a_file_becomes_the_scores_of_the_client(url, long, wanted, tmp_path, ending, capsys):
    file, output = write(long, tmp_path / f"in{ending}"), tmp_path / f"out{ending}"
    assert main(["score", file, "--url", url, "--missing", "skip", "-q", "-o", str(output)]) == 0
    scores = read(output)
    assert scores.column_names == wanted.column_names
    for name in ("model", "length", "mae", "mape", "smape", "smape_masked"):
        assert scores[name].to_pylist() == wanted[name].to_pylist()
    assert capsys.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"in{ending}", f"out{ending}"]


def test_without_a_torch_by_the_environment_to_standard_output(url, long, wanted, tmp_path):
    file = write(long, tmp_path / "in.parquet")
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from lossclient.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "score", file, "--missing", "skip", "--losses", "mae"],
        env={"LOSSCLIENT_URL": url, "LOSSCLIENT_API_KEY": "any-0123456789abcdef"},
        capture_output=True,
        check=True,
    )
    scores = pa.csv.read_csv(pa.BufferReader(done.stdout))
    assert scores["mae"].to_pylist() == wanted["mae"].to_pylist()
    assert done.stderr == b""


def test_ids_that_look_like_numbers_stay_text_and_what_is_left_out_is_said(url, tmp_path, capsys):
    file = tmp_path / "f.csv"
    file.write_text("unique_id,ds,y,A,A-lo-90\n007,1,1,3,0\n08,1,2,2,0\n")
    assert main(["score", str(file), "--url", url, "--losses", "mae"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == ['"007","A",1,2', '"08","A",1,0']
    assert "A-lo-90" in err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["f.csv"], 2, "name the service by --url or by the variable LOSSCLIENT_URL"),
        (["f.txt", "--url", "http://x"], 2, "f.txt: the ending must be one of .parquet .csv"),
        (["f.csv", "--url", "http://x", "-o", "g"], 2, "g: the ending must be one of"),
        (["f.csv", "--url", "http://x", "--missing", "drop"], 2, "invalid choice: 'drop'"),
        (["f.csv", "--url", "ftp://x"], 1, "base_url must be like http://host:port"),
        (["absent.csv", "--url", "http://x"], 1, "absent.csv"),
        (["broken.parquet", "--url", "http://x"], 1, "broken.parquet cannot be read"),
        (["f.csv", "--url", "http://127.0.0.1:1", "--deadline-s", "1"], 1, "127.0.0.1:1"),
        (["f.csv", "--url", "http://x", "--id-col", "store"], 1, "store"),
    ],
)
def test_faults_are_one_line_and_a_status(monkeypatch, tmp_path, capsys, arguments, status, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOSSCLIENT_URL", raising=False)
    (tmp_path / "f.csv").write_text("unique_id,ds,y,A\na,1,1,2\n")
    (tmp_path / "broken.parquet").write_text("PAR1")
    try:
        ended = main(["score", *arguments])
    except SystemExit as stop:
        ended = stop.code
    out, err = capsys.readouterr()
    assert (ended, out) == (status, "")
    assert says in err.splitlines()[-1]
    assert status == 2 or err.startswith("error: ")


def test_nothing_is_left_behind_where_the_output_cannot_be_written(url, tmp_path, capsys):
    file = tmp_path / "f.csv"
    file.write_text("unique_id,ds,y,A\na,1,1,2\n")
    output = tmp_path / "no/folder.csv"
    assert main(["score", str(file), "--url", url, "-o", str(output)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == [file]


def test_version_and_help(capsys):
    for arguments, says in ((["--version"], lossclient.__version__), (["-h"], "score a file")):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert says in capsys.readouterr().out
