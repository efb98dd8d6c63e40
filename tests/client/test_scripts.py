"""The two scripts under examples/ run, on the data beside them, and print what the docs show."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

SHOWN = re.findall(r"```text\n(.*?)```", (ROOT / "docs/transcripts.md").read_text(), re.DOTALL)


def run(name, *arguments):
    command = [sys.executable, "-W", "error", ROOT / "examples" / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=250).stdout


def test_a_leaderboard_of_recorded_forecasts(url):
    printed = run("leaderboard.py", "--recorded", "--url", url)
    assert re.search(r"\d+ rows, 24 series, \d+ windows, 4 models", printed)
    rows = [line.split() for line in printed.splitlines()[-5:-1]]
    assert {row[1] for row in rows} == {"AutoETS", "CrostonSBA", "SeasonalNaive", "Theta"}
    smape = [float(row[3]) for row in rows]
    assert smape == sorted(smape)
    assert printed.splitlines()[-6:] == SHOWN[1].splitlines()[-6:]


def test_local_and_remote_training_end_in_the_same_weights(url):
    printed = run("train.py", "--steps", "12", "--url", url)
    assert "weights equal" in printed
    curve = [line.split() for line in printed.splitlines() if re.match(r" +\d+ ", line)]
    assert len(curve) == 12
    shown = [line.split() for line in SHOWN[2].splitlines() if re.match(r" +\d+ ", line)]
    for row, there in zip(curve, shown, strict=False):
        assert [float(x) for x in row[:3]] == pytest.approx([float(x) for x in there[:3]], rel=1e-4)
    assert float(curve[-1][1]) < float(curve[0][1])
    assert all(int(row[3]) <= 16 for row in curve)  # see test_torch.py
