"""What is printed is whole and readable in any encoding and width, and wherever it goes."""

import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import cli
from conftest import LOSS_SCORING

MODEL = "[red]Prévision 二[/red] :smile:"


@pytest.fixture
def forecasts(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text(f"unique_id,ds,y,{MODEL},{'long' * 40}\na,1,1e-9,123456.7,-1e-300\n", "utf-8")
    return path


def score(path, **environment):
    command = [LOSS_SCORING, "score", path, "--losses", "mae", "--format", "table"]
    return subprocess.run(command, capture_output=True, check=False, env=os.environ | environment)


@pytest.mark.parametrize(
    ("environment", "encoding"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "ascii"),
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii"),
        ({"PYTHONIOENCODING": "utf-8", "COLUMNS": "20"}, "utf-8"),
        ({"PYTHONIOENCODING": "utf-8", "COLUMNS": "1", "TERM": "dumb"}, "utf-8"),
    ],
)
def test_scores_are_whole_in_any_encoding_and_width(forecasts, environment, encoding):
    done = score(forecasts, **environment)
    assert done.returncode == 0, done.stderr
    name = MODEL.encode(encoding, "backslashreplace").decode(encoding)
    (row,) = (line for line in done.stdout.decode(encoding).splitlines() if name in line)
    assert row.replace("|", "│").split("│")[3:6] == [" 1 ", " 123457 ", " 123457 "]
    assert ("long" * 40).encode() in done.stdout
    assert name in done.stderr.decode(encoding)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(forecasts):
    command = [LOSS_SCORING, "score", forecasts]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 2)
        assert b"No space left" in done.stderr
        done = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, check=False)
    assert b"123456." in done.stdout


def test_the_version_is_that_of_the_package():
    done = subprocess.run([LOSS_SCORING, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"loss-scoring {version('loss-scoring')}\n"


def test_programs_can_read_what_the_service_says_of_itself(client):
    status, out, err = cli("losses", "--json")
    assert (status, err, json.loads(out)) == (0, "", client.get("/losses").json())
    status, out, err = cli("openapi")
    assert (status, err, json.loads(out)) == (0, "", client.get("/openapi.json").json())


@pytest.mark.parametrize("command", [(), ("score",), ("serve",), ("check",), ("losses",)])
def test_help_has_a_short_name(command):
    status, out, _ = cli(*command, "-h")
    assert status == 0
    assert " Usage: " in out


def test_quiet_leaves_errors(forecasts):
    assert cli("-q", "score", forecasts)[::2] == (0, "")
    status, out, err = cli("--quiet", "score", forecasts.with_name("absent.csv"))
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert cli("score", forecasts)[2].startswith("scored as models: ")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("score",), 2),
        (("score", "FILE", "--no-such-flag"), 2),
        (("score", "FILE", "--losses", "r2"), 2),
        (("no-such-command",), 2),
        (("score", "absent.csv"), 1),
        (("check", "absent.csv", "--model", "A"), 2),  # its 1 says that a model is worse
        (("--no-color", "check", "absent.csv", "--model", "A"), 2),
    ],
)
def test_exit_statuses(forecasts, arguments, status):
    given = [str(forecasts) if part == "FILE" else part for part in arguments]
    assert cli(*given)[:2] == (status, "")


def test_shells_can_complete():
    done = subprocess.run(
        [LOSS_SCORING],
        env=os.environ
        | {
            "_LOSS_SCORING_COMPLETE": "complete_bash",
            "COMP_WORDS": "loss-scoring sc",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["score"]


STRANGE = "x\x1b]0;title\x07\x9b2J\u202e\nerror: forged"
SHOWN = r"x\x1b]0;title\x07\x9b2J\u202e\nerror: forged"


@pytest.mark.parametrize("form", ["table", "csv", "markdown"])
def test_a_stranger_moves_no_cursor_and_ends_no_line(tmp_path, form):
    path = tmp_path / "f.parquet"
    columns = {"unique_id": [STRANGE], "y": [1.0], STRANGE: [2.0], "horizon": [1], "q\x1b": [True]}
    pq.write_table(pa.table(columns), path)
    status, out, err = cli("score", path, "--format", form)
    assert (status, err.splitlines()[0]) == (0, f"scored as models: {SHOWN}")
    assert SHOWN in out
    assert (out + err).replace("\n", "").isprintable()
    assert "\nerror:" not in err


def test_errors_show_a_strangers_ids_and_names_of_files(tmp_path):
    path = tmp_path / "f\x1b[2J\n.parquet"
    columns = {"unique_id": [STRANGE], "y": [1.0], STRANGE: [None]}
    schema = pa.schema([("unique_id", pa.string()), ("y", pa.float64()), (STRANGE, pa.float64())])
    pq.write_table(pa.table(columns, schema), path)
    status, _, err = cli("score", path)
    assert status == 1
    assert err.count("\n") == 2
    assert err.replace("\n", "").isprintable()
    assert SHOWN in err
    assert r"f\x1b[2J\n.parquet" in err
