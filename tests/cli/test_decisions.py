"""Leaderboards, breakdowns and the gate from a shell."""

import csv
import io
import json
import os
import pty
import subprocess
import xml.etree.ElementTree as ET

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from commands import cli
from conftest import LOSS_SCORING, ROOT
from junitparser import Error, Failure, JUnitXml

from loss_scoring.core.table import check, leaderboard, score_table

EXAMPLE = ROOT / "examples/data/forecasts.parquet"
BOTH = ("--model", "Theta", "--baseline", "SeasonalNaive")


@pytest.fixture(scope="module")
def scores():
    return score_table(pq.read_table(EXAMPLE), missing="skip")


def score(*flags):
    status, out, err = cli("score", EXAMPLE, "--missing", "skip", *flags)
    assert status == 0, err
    return out, err


def gate(*flags, file=EXAMPLE):
    skip = ("--missing", "skip") if file == EXAMPLE else ()
    return cli("check", file, *skip, *flags)


def test_the_board_that_is_printed_is_that_of_the_scores(scores):
    out, err = score("--format", "json", "--baseline", "SeasonalNaive")
    want = leaderboard(scores, ["mae", "mape", "smape"], baseline="SeasonalNaive")
    assert json.loads(out) == want.table.to_pylist()
    assert err.splitlines()[1:] == list(want.notes)
    assert want.notes == (
        "mae, mape, smape: 30 of 326 series are compared; CrostonSBA has none for 216, AutoETS has none for 80",
    )


def test_csv_is_what_a_program_gets(scores):
    out, _ = score("--losses", "smape")
    rows = list(csv.DictReader(io.StringIO(out)))
    want = leaderboard(scores, n_resamples=0).table.to_pylist()
    assert [row["model"] for row in rows] == [row["model"] for row in want]
    assert [float(row["mean"]) for row in rows] == [row["mean"] for row in want]


def test_models_that_lack_series_are_marked():
    for form in ("table", "markdown"):
        out, _ = score("--format", form, "--losses", "smape")
        for model in ("CrostonSBA *", "AutoETS *", "Theta  ", "SeasonalNaive  "):
            assert model.replace("  ", " ") in out
        assert "Theta *" not in out


def test_a_terminal_gets_a_table():
    parent, child = pty.openpty()
    command = [LOSS_SCORING, "score", EXAMPLE, "--missing", "skip", "--losses", "mae"]
    with subprocess.Popen(command, stdout=child, stderr=subprocess.DEVNULL) as run:
        os.close(child)
        shown = b""
        while True:
            try:
                part = os.read(parent, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(parent)
    assert run.returncode == 0
    assert "│ mae  │ Theta" in shown.decode()
    assert "* has no loss of some series" in shown.decode()


def test_elements_pooled_by_columns(scores, tmp_path):
    output = tmp_path / "by.parquet"
    models = ("--models", "Theta,AutoETS")
    out, err = score("--by", "model,horizon", *models, "--format", "json", "-o", output)
    table = pq.read_table(EXAMPLE)
    want = score_table(table, by="horizon", predictions=["Theta", "AutoETS"], missing="skip")
    assert pq.read_table(output).equals(want)
    assert json.loads(out) == want.to_pylist()
    assert "AutoETS has no prediction for 2040 of 6540 elements" in err


def test_times_of_a_csv_file_are_ordered_by_what_they_mean(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("unique_id,ds,y,A,shop\na,10,0,2,x\na,9,0,1,x\nb,1,0,1,y\n")
    status, out, _ = cli("score", path, "--by", "horizon", "--losses", "mae")
    assert (status, out.splitlines()[1:]) == (0, ["1,A,2,1.0", "2,A,1,2.0"])
    status, out, _ = cli("score", path, "--by", "shop", "--losses", "mae")
    assert (status, out.splitlines()[1:]) == (0, ["x,A,2,1.5", "y,A,1,1.0"])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--by", "shops"), "'shops' is absent"),
        (("--by", "horizon", "--baseline", "Theta"), "leave out --by"),
        (
            ("--baseline", "Nobody"),
            "--baseline Nobody: is none of the models SeasonalNaive, AutoETS",
        ),
    ],
)
def test_wrong_flags_of_score(flags, says):
    status, out, err = cli("score", EXAMPLE, "--missing", "skip", *flags)
    assert (status, out) == (1 if "shops" in flags else 2, "")
    assert says in err


def test_a_missing_element_is_named_by_its_row_also_where_elements_are_pooled(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("unique_id,ds,y,A\na,2,0,2\na,1,,1\n")
    status, _, err = cli("score", path, "--by", "horizon")
    assert status == 1
    assert "element 0 of y in row 1 is missing or not finite" in err


def test_rows_of_one_time_are_refused_also_where_elements_are_pooled(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("unique_id,ds,y,A\na,1,0,2\na,1,0,1\n")
    assert "in rows 0 and 1 of series unique_id='a'" in cli("score", path, "--by", "horizon")[2]
    assert cli("score", path, "--by", "horizon", "--duplicates", "allow")[0] == 0


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ((*BOTH, "--loss", "mae"), 0),
        (BOTH, 1),
        ((*BOTH, "--confidence", "0.95"), 0),
        ((*BOTH, "--confidence", "0.95", "--min-relative-improvement", "0.1"), 1),
        (("--model", "Theta", "--max", "0.2"), 0),
        (("--model", "Theta", "--max", "0.1"), 1),
        (("--model", "AutoETS", "--baseline", "SeasonalNaive"), 3),
        (("--model", "AutoETS", "--baseline", "SeasonalNaive", "--max-missing", "0.3"), 1),
        ((*BOTH, "--by", "horizon"), 1),
        ((*BOTH, "--loss", "mae", "--by", "unique_id"), 1),
        (("--model", "Theta"), 2),
        (("--model", "Thet", "--max", "1"), 2),
        ((*BOTH, "--loss", "rmsle"), 2),
        ((*BOTH, "--max-missing", "7"), 2),
        ((*BOTH, "--json", "--markdown"), 2),
        (("--baseline", "Theta"), 2),
    ],
)
def test_the_exit_status_is_the_verdict(flags, status, scores, tmp_path):
    found, out, err = gate(*flags)
    assert found == status, err
    assert bool(out) == (status != 2)
    path = tmp_path / "scores.csv"
    pa.csv.write_csv(scores, path)
    if "horizon" not in flags:  # which scores of whole series do not know
        again, printed, _ = gate(*flags, file=path)
        assert (again, printed) == (status, out)


def test_data_that_cannot_be_scored_is_no_verdict():
    status, out, err = cli("check", EXAMPLE, *BOTH)
    assert (status, out) == (2, "")
    assert "pass --missing skip" in err


def test_json_has_every_rule(scores):
    status, out, _ = gate(*BOTH, "--loss", "mae", "--max", "100", "--confidence", "0.9", "--json")
    (first, second) = check(
        scores, model="Theta", baseline="SeasonalNaive", loss="mae", max=100, confidence=0.9
    )
    assert json.loads(out) == {"status": 0, "rules": [vars(first), vars(second)]}
    assert status == 0


def test_markdown_is_a_table():
    _, out, _ = gate(*BOTH, "--by", "horizon", "--markdown")
    lines = out.splitlines()
    assert len(lines) == 30
    assert lines[0].startswith("| verdict | rule | horizon | series |")
    assert lines[3].startswith("| worse | smape of Theta no worse than that of SeasonalNaive | 2 |")


def test_junit_is_read_by_others(tmp_path):
    path = tmp_path / "gate.xml"
    status, out, _ = gate(*BOTH, "--by", "horizon", "--junit", path)
    assert status == 1
    (suite,) = JUnitXml.fromfile(str(path))
    cases = list(suite)
    failed = [case for case in cases if case.result]
    assert (suite.tests, suite.failures, suite.errors) == (28, len(failed), 0)
    assert all(isinstance(result, Failure) for case in failed for result in case.result)
    assert [case.system_out for case in cases] == out.splitlines()
    gate("--model", "AutoETS", "--baseline", "Theta", "--junit", path)
    ((case,),) = JUnitXml.fromfile(str(path))
    assert isinstance(case.result[0], Error)
    assert case.result[0].type == "not comparable"


def test_a_name_that_xml_cannot_hold_is_shown(tmp_path):
    name = "A\x1b\x00<&"
    rows = pa.table({"unique_id": ["a"], "model": [name], "smape": [1.0]})
    pq.write_table(rows, tmp_path / "s.parquet")
    path = tmp_path / "gate.xml"
    assert gate("--model", name, "--max", "1", "--junit", path, file=tmp_path / "s.parquet")[0] == 0
    ((case,),) = ET.parse(path).getroot()  # noqa: S314 - our own
    assert case.get("name") == r"smape of A\x1b\x00<& at most 1"


def test_a_junit_file_that_cannot_be_written_is_said(tmp_path):
    status, _, err = gate(*BOTH, "--junit", tmp_path / "none/gate.xml")
    assert status == 2
    assert "none/gate.xml: No such file or directory" in err
