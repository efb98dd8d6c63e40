"""A loss is a file: one that the project lacks is seen wherever losses are."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from instance import serving
from torch.testing import assert_close

from lossclient import Client
from lossclient.torch import RemoteLoss
from lossclient.utilsforecast import Losses

COMMAND = (sys.executable, Path(__file__).with_name("cubed.py"))
FRAME = pd.DataFrame(
    {
        "unique_id": ["a", "a", "a", "b"],
        "ds": [1, 2, 3, 1],
        "y": [2.0, 2.0, 2.0, -1.0],
        "M": [1.0, 4.0, 2.0, 0.5],
    }
)
P, Y = ([column.tolist() for _, column in FRAME.groupby("unique_id")[x]] for x in ("M", "y"))
FACTOR = 2
ERRORS = (FRAME["M"] - FRAME["y"]).to_numpy()
VALUES = [FACTOR * np.mean(abs(ERRORS[:3]) ** 3), FACTOR * abs(ERRORS[3]) ** 3]
FLAT = 3 * FACTOR * ERRORS * abs(ERRORS) / [3, 3, 3, 1]
SLOPES = [pytest.approx(slopes.tolist()) for slopes in np.split(FLAT, [3])]
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def url():
    with serving(*COMMAND, "serve") as base:
        yield base


def run(*arguments, text=None):
    command = [*map(str, COMMAND), *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout


def post_table(client, table, **params):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    answer = client.post("/score", params=params, content=body, headers={"Content-Type": ARROW})
    assert answer.is_success, answer.text
    return pa.ipc.open_stream(answer.content).read_all()


def test_in_core():
    values, gradients = json.loads(
        run("core", text=json.dumps([*(FRAME[x].tolist() for x in ("M", "y")), [0, 3, 4]]))
    )
    assert values == pytest.approx(VALUES)
    assert gradients == pytest.approx(FLAT.tolist())


def test_in_json(client):
    series = [{"prediction": p, "target": y} for p, y in zip(P, Y, strict=True)]
    losses = [{"name": "cubed", "factor": FACTOR}, "mae"]
    request = {"losses": losses, "gradients": True, "series": series}
    answer = client.post("/score", json=request).json()
    assert list(answer["losses"]) == ["cubed", "mae"]
    assert answer["losses"]["cubed"] == pytest.approx(VALUES)
    assert answer["masked"] == {}
    assert answer["gradients"]["cubed"] == SLOPES
    assert "cubed" not in client.post("/score", json={"series": series}).json()["losses"]

    wrong = client.post("/score", json=request | {"losses": [{"name": "cubed", "factor": 10}]})
    assert wrong.json()["errors"] == [
        {"pointer": "/losses/0/factor", "detail": "must be less than 10"}
    ]


@pytest.mark.parametrize(
    "params", [{"losses": "cubed:factor=2"}, {"losses": "cubed", "factor": "2"}]
)
def test_in_arrow(client, params):
    answer = post_table(
        client, pa.table({"prediction": P, "target": Y}), gradients="true", **params
    )
    assert answer.column_names == ["id", "length", "cubed", "cubed_gradient"]
    assert answer["cubed"].to_pylist() == pytest.approx(VALUES)
    assert answer["cubed_gradient"].to_pylist() == SLOPES


def test_in_the_long_form(client):
    table = pa.Table.from_pandas(FRAME)
    answer = post_table(client, table, group_columns="unique_id", losses="cubed", factor="2")
    assert answer.column_names == ["unique_id", "model", "length", "cubed"]
    assert answer["cubed"].to_pylist() == pytest.approx(VALUES)


def test_in_the_command_line(tmp_path):
    assert "factor=1.0" in (listed := run("losses"))
    assert "mean cubed error" in listed
    FRAME.to_csv(tmp_path / "f.csv", index=False)
    output = tmp_path / "scores.csv"
    shown = run("score", tmp_path / "f.csv", "-o", output, "--losses", "mae,cubed:factor=2")
    assert "cubed" in shown
    assert pd.read_csv(output)["cubed"].tolist() == pytest.approx(VALUES)


def test_where_losses_are_described(client):
    (row,) = [row for row in client.get("/losses").json() if row["name"] == "cubed"]
    assert row["formula"] == "factor * mean(|y - p|^3)"
    bounds = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10}
    assert row["parameters"] == {"factor": {**bounds, "default": 1}}
    assert row["default"] is False
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert (
        schemas["CubedOptions"]["properties"]["factor"].items() >= {**bounds, "default": 1}.items()
    )
    assert schemas["QueryOptions"]["properties"]["factor"].items() >= bounds.items()
    text = client.get("/metrics").text
    assert 'loss_scoring_scored_series_total{loss="cubed"}' in text


def test_in_the_client(url):
    with Client(url) as client:
        scores = client.score_series(P, Y, losses=["cubed:factor=2"], gradients=True)
        np.testing.assert_allclose(scores.losses["cubed"], VALUES)
        np.testing.assert_allclose(scores.gradients["cubed"], FLAT)
        frame = client.score(FRAME, losses=[{"name": "cubed", "factor": FACTOR}])
        np.testing.assert_allclose(frame["cubed"], VALUES)
        wide = Losses(client).of("cubed", factor=FACTOR)(FRAME, ["M"])
        np.testing.assert_allclose(wide["M"], VALUES)


def test_in_training(url):
    p, q = (torch.tensor(FRAME["M"].to_numpy(), requires_grad=True) for _ in range(2))
    y = torch.tensor(FRAME["y"].to_numpy())
    with Client(url) as client:
        loss = RemoteLoss(client, "cubed", factor=FACTOR)(p, y)
    loss.backward()
    wanted = FACTOR * ((q - y).abs() ** 3).mean()
    wanted.backward()
    assert_close(loss, wanted)
    assert_close(p.grad, q.grad)
