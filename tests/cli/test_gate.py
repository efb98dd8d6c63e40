"""The gate takes what ``score`` takes, and ends with 1 for a verdict alone."""

import os
import sys
from contextlib import redirect_stdout
from unittest import mock

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import cli

from loss_scoring.core.table import score_table
from loss_scoring.service.cli import check, main

ARIMA, ETS = "ARIMA(1,1,1)", "ETS(A,N,N)"
PAIR = ("--model", ARIMA, "--baseline", ETS)
FORECASTS = pa.table(
    {
        "unique_id": ["a", "a", "b", "b"],
        "ds": [3, 4, 3, 4],
        "y": [1.0, 2.0, 4.0, 8.0],
        "w": [1.0, 3.0, 0.0, 2.0],
        "s": [2.0, 2.0, 0.5, 0.5],
        ARIMA: [1.0, 5.0, 4.5, 7.0],
        ETS: [2.0, 2.5, 1.0, 4.0],
    }
)
HISTORY = pa.table(
    {"unique_id": ["a", "a", "b", "b"], "ds": [1, 2, 1, 2], "y": [0.0, 3.0, 1.0, 2.0]}
)


@pytest.fixture
def forecasts(tmp_path):
    path = tmp_path / "forecasts.csv"
    pa.csv.write_csv(FORECASTS, path)
    pa.csv.write_csv(HISTORY, tmp_path / "history.csv")
    return path


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "scores.parquet"
    made = score_table(
        FORECASTS, group_by=["unique_id"], models=[ARIMA, ETS], losses=["mae", "huber"]
    )
    pq.write_table(made, path)
    return path


def test_a_scaled_loss_without_scales_is_no_verdict(forecasts):
    status, out, err = cli("check", forecasts, *PAIR, "--loss", "mase")
    assert (status, out) == (2, "")
    assert err == "error: mase must have scales; pass --scale-col or --train\n"


@pytest.mark.parametrize(
    ("loss", "flags"),
    [
        ("mae", ("--weight-col", "w")),
        ("mase", ("--scale-col", "s")),
        ("rmsse", ("--train", "history.csv", "--seasonality", "1", "--weight-col", "w")),
        ("huber:delta=0.5", ()),
        (" huber:delta=0.5", ()),
    ],
)
def test_forecasts_are_judged_as_their_scores(forecasts, monkeypatch, loss, flags):
    monkeypatch.chdir(forecasts.parent)
    judged = cli("check", forecasts.name, *PAIR, "--loss", loss, *flags)
    models = ("--exclude", "w,s")
    assert cli("score", forecasts.name, "--losses", loss, *flags, *models, "-o", "s.csv")[0] == 0
    again = cli("check", "s.csv", *PAIR, "--loss", loss)
    assert judged[0] in (0, 1)
    assert judged[:2] == again[:2]


def test_parameters_that_scores_do_not_say_are_not_taken_for_granted(scores):
    flags = ("--model", ETS, "--max", "9", "--loss", "huber:delta=100")
    status, _, err = cli("check", scores, *flags)
    assert status == 0
    says = f"--loss huber:delta=100: {scores} does not say with which parameters it was scored"
    assert says in err


def test_groups_of_forecasts_are_judged_with_all_that_there_is_to_say(forecasts, tmp_path):
    pa.csv.write_csv(FORECASTS.select(["unique_id", "ds", "y"]).slice(0, 3), tmp_path / "y.csv")
    pa.csv.write_csv(FORECASTS.drop_columns("y"), tmp_path / "f.csv")
    flags = ("--actuals", tmp_path / "y.csv", "--by", "unique_id", "--loss", "mae")
    _, out, err = cli("check", tmp_path / "f.csv", *PAIR, *flags)
    assert out.count("unique_id=") == 2
    assert "3 rows of forecasts have an actual value, 1 have none yet" in err


@pytest.mark.parametrize("file", ["forecasts", "scores"])
def test_one_loss_is_compared_by(file, request):
    path = request.getfixturevalue(file)
    status, _, err = cli("check", path, *PAIR, "--loss", "huber:delta=1,mae")
    assert (status, err) == (2, "error: --loss huber:delta=1,mae: are several; pass one\n")


def test_a_model_that_is_absent_is_asked_for_by_the_flags_of_check(forecasts):
    status, _, err = cli("check", forecasts, "--model", "ARIMA(1,1,2)", "--max", "1")
    assert status == 2
    assert "name it by --model or --baseline; did you mean 'ARIMA(1,1,1)'?" in err


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        (("--actuals", "nowhere.parquet"), "--actuals"),
        (("--zero-division", "zero"), "--zero-division"),  # be it the default
        (("--id-col", "nope"), "--id-col"),
        (("--sort",), "--sort"),
        (("--missing", "skip"), "--missing"),
        (("--train", "x.csv", "--seasonality", "1"), "--train"),
        (("--device", "cpu"), "--device"),
    ],
)
def test_flags_of_forecasts_are_refused_for_scores(scores, flags, refused):
    status, out, err = cli("check", scores, *PAIR, "--loss", "mae", *flags)
    assert (status, out) == (2, "")
    assert err == f"error: {refused} is for forecasts; {scores} holds scores\n"


def test_flags_of_csv_files_are_for_scores_too(scores):
    csv = scores.with_suffix(".csv")
    table = pq.read_table(scores)
    pa.csv.write_csv(table, csv, pa.csv.WriteOptions(delimiter="|"))
    flags = (*PAIR, "--loss", "mae")
    assert cli("check", csv, *flags, "--delimiter", "|")[:2] == cli("check", scores, *flags)[:2]


def test_what_is_read_is_not_written_over(forecasts, scores):
    for file, other in ((scores, ()), (forecasts, ("--train", scores, "--seasonality", "1"))):
        before = scores.read_bytes()
        flags = (*PAIR, "--loss", "mase" if other else "mae", *other, "--junit", scores)
        status, _, err = cli("check", file, *flags)
        assert (status, scores.read_bytes()) == (2, before)
        assert err == f"error: {scores}: is a file to read; name another output\n"


def test_a_defect_is_no_verdict(scores, monkeypatch):
    def fail(*_, **__):
        raise KeyError("a defect")

    monkeypatch.setattr(check, "check_scores", fail)
    status, out, err = cli("check", scores, *PAIR, "--loss", "mae")
    assert (status, out) == (2, "")
    assert "KeyError" in err


@pytest.mark.parametrize("status", [0, 1])
def test_the_verdict_is_the_status_when_nobody_reads_it(scores, status):
    reader, writer = os.pipe()
    os.close(reader)
    limit = "100" if status == 0 else "0.001"
    argv = ["loss-scoring", "check", str(scores), *PAIR[:2], "--loss", "mae", "--max", limit]
    with (
        os.fdopen(writer, "w") as out,
        mock.patch.object(sys, "argv", argv),
        redirect_stdout(out),
        pytest.raises(SystemExit) as end,
    ):
        main()
    assert end.value.code == status


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (("--losses", "mase", "--train", "history.csv", "--seasonality", "0"), 2, "--seasonality"),
        (("--losses", "mae, smape"), 0, ""),
        (("--by", "tags"), 1, "column 'tags' cannot be compared"),
    ],
)
def test_score_says_in_a_line_what_is_wrong(tmp_path, flags, status, says):
    pq.write_table(FORECASTS.append_column("tags", pa.array([["x"]] * 4)), tmp_path / "f.parquet")
    found, _, err = cli("score", tmp_path / "f.parquet", "--models", "w,s", *flags)
    assert found == status
    assert says in err
    assert "Traceback" not in err
