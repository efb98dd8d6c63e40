"""``lossclient score`` against a real service: files in, scores out, and what it says if it cannot."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import forecasts
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import lossclient
from lossclient import __main__
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


def test_codes_are_text_as_loss_scoring_reads_them(url, tmp_path, capsys):
    file = tmp_path / "f.csv"
    rows = ("a,007,1,1,007,3,04", "a,7,1,2,008,2,05")
    file.write_text("\n".join(["unique_id,cutoff,ds,y,store,M,N", *rows, ""]))
    given = ["score", str(file), "--url", url, "--losses", "mae"]
    assert main([*given, "--exclude", "N"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == ['"a","007","M",1,2', '"a","7","M",1,0']
    assert err.startswith("scored as models: M; left out: 'store' (text)")
    assert main([*given, "--models", "M, N"]) == 0  # those that are named are numbers
    assert capsys.readouterr().out.splitlines()[2] == '"a","007","N",1,3'


def test_cutoffs_that_are_times_stay_times(url, tmp_path):
    file, output = tmp_path / "f.csv", tmp_path / "scores.parquet"
    file.write_text("unique_id,cutoff,ds,y,A\na,2026-01-01,2026-01-02,1,2\n")
    assert main(["score", str(file), "--url", url, "-o", str(output)]) == 0
    assert pq.read_schema(output).field("cutoff").type == pa.date32()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["a,5,1,1,2", ",5,1,1,2"], "column 'unique_id' is null in row 1"),
        (["a,05,1,1,2", "a,,1,1,2"], "column 'cutoff' is null in row 1"),
        (["a,2026-01-01,1,1,2", "a,,1,1,2"], "column 'cutoff' is null in row 1"),
        (["a,5,01,1,2", "a,5,,1,2"], "column 'ds' is null in row 1"),
        (["a,5,1,1,x", "a,5,2,1,2"], "column 'A' holds numbers, but 'x' in row 0 is text"),
    ],
)
def test_blank_keys_and_times_are_refused(tmp_path, capsys, rows, says):
    file = tmp_path / "f.csv"
    file.write_text("\n".join(["unique_id,cutoff,ds,y,A", *rows, ""]))
    assert main(["score", str(file), "--url", "http://x"]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("twice", ["unique_id", "ds", "note"])
def test_columns_of_one_name_are_an_error(tmp_path, capsys, twice):
    file = tmp_path / "f.csv"
    file.write_text(f"unique_id,ds,y,A,{twice},{twice}\na,1,1,2,03,04\n")
    assert main(["score", str(file), "--url", "http://x"]) == 1
    assert twice in capsys.readouterr().err


def test_blanks_after_commas_are_none_of_names(url, tmp_path, capsys):
    file = tmp_path / "f.csv"
    file.write_text("unique_id,ds,y,A, B,C\na,1,1,2,3,4\n")
    listed = ["--losses", "mae, smape", "--models", "A, B, C"]
    assert main(["score", str(file), "--url", url, *listed]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == '"unique_id","model","length","mae","smape","smape_masked"'
    assert [line.split(",")[1] for line in out[1:]] == ['"A"', '" B"', '"C"']


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


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "f.csv"
    file.write_text("unique_id,ds,y,A\na,1,1,2\n")
    return file


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("no/folder.csv", "there is no folder"),
        ("folder.csv", "is a folder; name a file"),
        ("f.csv", "is the file to read; name another output"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_scored(
    tmp_path, capsys, small, output, says
):
    (tmp_path / "folder.csv").mkdir()
    arguments = ["score", str(small), "--url", "http://127.0.0.1:1", "-o", str(tmp_path / output)]
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert says in err


def test_nothing_is_left_behind_where_the_output_cannot_be_written(
    url, tmp_path, small, monkeypatch
):
    def fill(_scores, path, _ending):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    def end(_scores, path, _ending):
        path.write_text("half")
        signal.raise_signal(signal.SIGTERM)

    arguments = ["score", str(small), "--url", url, "-o", str(tmp_path / "scores.csv")]
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(__main__, "_write", fill)
    assert main(arguments) == 1
    monkeypatch.setattr(__main__, "_write", end)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert list(tmp_path.iterdir()) == [small]


def test_another_thread_may_score_a_file(url, tmp_path, small):
    arguments = ["score", str(small), "--url", url, "-o", str(tmp_path / "scores.csv")]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, arguments).result() == 0


def test_two_writers_of_one_output_do_not_mix(url, tmp_path, small, monkeypatch):
    output, write = tmp_path / "scores.csv", __main__._write
    arguments = ["score", str(small), "--url", url, "-o", str(output)]

    def write_while_another_does(*given):
        monkeypatch.setattr(__main__, "_write", write)
        write(*given)
        assert main(arguments) == 0

    monkeypatch.setattr(__main__, "_write", write_while_another_does)
    assert main(arguments) == 0
    assert len(read(output)) == 1
    assert sorted(tmp_path.iterdir()) == sorted([small, output])


def test_version_and_help(capsys):
    for arguments, says in ((["--version"], lossclient.__version__), (["-h"], "score a file")):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert says in capsys.readouterr().out
