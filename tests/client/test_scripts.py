"""The two scripts under examples/ run, on the data beside them."""

import re
import subprocess
import sys

from conftest import ROOT


def run(name, *arguments):
    command = [sys.executable, "-W", "error", ROOT / "examples" / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=110).stdout


def test_a_leaderboard_of_recorded_forecasts(url):
    printed = run("leaderboard.py", "--recorded", "--url", url)
    assert re.search(r"\d+ rows, 24 series, \d+ windows, 4 models", printed)
    rows = [line.split() for line in printed.splitlines()[-4:]]
    assert {row[0] for row in rows} == {"AutoETS", "CrostonSBA", "SeasonalNaive", "Theta"}
    smape = [float(row[1]) for row in rows]
    assert smape == sorted(smape)
    wins = sum(int(row[-1]) for row in rows)
    assert f"{wins} series" in printed


def test_training_here_and_there_ends_in_the_same_weights(url):
    printed = run("train.py", "--steps", "12", "--url", url)
    assert "weights equal" in printed
    curve = [line.split() for line in printed.splitlines() if re.match(r" +\d+ ", line)]
    assert len(curve) == 12
    assert float(curve[-1][1]) < float(curve[0][1])
    assert all(int(row[3]) <= 16 for row in curve)  # see test_torch.py
