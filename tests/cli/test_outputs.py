"""What is written appears whole or not at all, whoever else writes and whatever fails."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import cli
from conftest import LOSS_SCORING

from loss_scoring.service.cli import outputs
from loss_scoring.service.cli.files import FORMATS
from loss_scoring.service.cli.outputs import find_output, open_output
from loss_scoring.service.errors import UnreadableError

SCHEMA = pa.schema([("a", pa.int64())])


def rows(*values):
    return pa.table({"a": values}, SCHEMA)


def values_in(path):
    return pyarrow.csv.read_csv(path)["a"].to_pylist()


@pytest.fixture
def forecasts(tmp_path):
    path = tmp_path / "f.parquet"
    ids = [str(n) for n in range(2000)]
    columns = {
        "unique_id": ids,
        "ds": [1] * 2000,
        "y": [1.0] * 2000,
        "A": [0.1 * n for n in range(2000)],
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_the_last_whole_file_wins(tmp_path):
    path = tmp_path / "out.csv"
    with open_output(find_output(str(path)), SCHEMA) as write:
        write(rows(1, 2))
        with open_output(find_output(str(path)), SCHEMA) as write_other:
            write_other(rows(3))
            assert not path.exists()
        assert values_in(path) == [3]
        write(rows(4))
    assert values_in(path) == [1, 2, 4]
    assert list(tmp_path.iterdir()) == [path]


def test_no_planted_link_is_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(outputs.secrets, "token_hex", lambda _size: "foretold")
    (tmp_path / ".foretold.part").symlink_to(victim)
    with pytest.raises(UnreadableError, match=r"out\.csv: File exists"):  # noqa: SIM117
        with open_output(find_output(str(tmp_path / "out.csv")), SCHEMA):
            raise AssertionError("it is open")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("end", [KeyError, MemoryError, GeneratorExit])
def test_an_exception_leaves_nothing_behind(tmp_path, ending, end):
    output = open_output(find_output(str(tmp_path / f"out{ending}")), SCHEMA)
    with pytest.raises(end), output as write:  # noqa: PT012
        write(rows(1))
        raise end
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(tmp_path, request, number):
    # Whoever started the tests may ignore it, as nohup and shells do for what runs behind them.
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    original = signal.signal(number, default)
    request.addfinalizer(lambda: signal.signal(number, original))
    with (  # noqa: PT012
        pytest.raises((SystemExit, KeyboardInterrupt)) as ended,
        open_output(find_output(str(tmp_path / "out.parquet")), SCHEMA) as write,
    ):
        write(rows(1))
        signal.raise_signal(number)
    if number != signal.SIGINT:
        assert ended.value.code == 128 + number
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) is default


def test_what_nohup_ignores_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with open_output(find_output(str(tmp_path / "out.csv")), SCHEMA) as write:
            signal.raise_signal(signal.SIGHUP)
            write(rows(1))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert values_in(tmp_path / "out.csv") == [1]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".arrow"])
def test_a_full_disk_is_said_of_the_output(forecasts, ending):
    output = forecasts.with_name(f"out{ending}")
    done = subprocess.run(
        [LOSS_SCORING, "score", forecasts, "-o", output],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"scored as models: A\nerror: {output}: File too large\n"
    assert list(forecasts.parent.iterdir()) == [forecasts]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("command", [["score", "FILE"], ["losses"]])
def test_a_full_disk_is_said_of_standard_output(forecasts, command):
    command = [str(forecasts) if part == "FILE" else part for part in command]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [LOSS_SCORING, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.endswith("error: standard output: No space left on device\n")


def test_a_fault_of_the_input_is_said_of_it_alone(tmp_path):
    path, output = tmp_path / "f.csv", tmp_path / "out.csv"
    path.write_text("unique_id,ds,y,A\na,1,1,\n")
    status, _, err = cli("score", path, "-o", output)
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: {path}: series ")
    assert str(output) not in err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        pa.ArrowMemoryError("malloc of size 9 failed"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_want_of_memory_is_no_fault_of_the_file(forecasts, error, monkeypatch):
    def fail(*_arguments):
        raise error

    monkeypatch.setattr(sys.modules["loss_scoring.service.cli.score"], "_score", fail)
    status, _, err = cli("score", forecasts)
    assert status == 1
    assert err.splitlines()[-1] == f"error: {forecasts}: not enough memory: {error}"


def test_other_errors_are_raised(forecasts, monkeypatch):
    def fail(*_arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(sys.modules["loss_scoring.service.cli.score"], "_score", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli("score", forecasts)
