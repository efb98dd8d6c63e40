"""POST /score in the long form, over real sockets, on a real cross-validation."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from wire import ARROW, post_arrow, stream

from loss_scoring.core import DEFAULT_LOSSES, LOSSES
from loss_scoring.core.table import score_table

KEYS = "unique_id,cutoff"
EXAMPLE = ROOT / "examples/data/forecasts.parquet"


@pytest.fixture(scope="module")
def table():
    return pq.read_table(EXAMPLE)


def ask(client, made, **query):
    return client.post(
        "/score", params=query, content=stream(made), headers={"Content-Type": ARROW}
    )


def test_a_real_cross_validation_equals_the_table(client, table):
    got = post_arrow(client, table, group_columns=KEYS, missing="skip", gradients="true")
    assert got.equals(score_table(table, missing="skip", gradients=True))
    assert got.schema.field("cutoff").type == table.schema.field("cutoff").type


def test_scattered_rows_of_chosen_models(client, table):
    order = np.random.default_rng(2).permutation(len(table))
    scattered = table.take(order)
    query = {"prediction_columns": "Theta,AutoETS", "losses": "mae", "zero_division": "skip"}
    got = post_arrow(client, scattered, group_columns=KEYS, missing="skip", **query)
    want = score_table(
        scattered, predictions=["Theta", "AutoETS"], losses=["mae"], missing="skip",
        zero_division="skip",
    )  # fmt: skip
    assert got.equals(want)
    assert got.column_names == ["unique_id", "cutoff", "model", "length", "mae"]


def test_json_has_the_same_columns(client, table):
    part = table.slice(0, 3000)
    query = {"group_columns": KEYS, "missing": "skip", "gradients": "true"}
    want = post_arrow(client, part, **query)
    headers = {"Content-Type": ARROW, "Accept": "application/json"}
    answer = client.post("/score", params=query, content=stream(part), headers=headers)
    assert answer.status_code == 200, answer.text
    scores = answer.json()
    columns = ["groups", "models", "lengths", "losses", "masked", "left_out", "gradients"]
    assert list(scores) == columns
    assert scores["left_out"] == json.loads(want.schema.metadata[b"left_out"]) == {}
    assert scores["groups"]["unique_id"] == want["unique_id"].to_pylist()
    assert scores["groups"]["cutoff"] == [x.isoformat() for x in want["cutoff"].to_pylist()]
    assert scores["models"] == want["model"].to_pylist()
    assert scores["lengths"] == want["length"].to_pylist()
    for name in DEFAULT_LOSSES:
        assert scores["losses"][name] == want[name].to_pylist()
        assert scores["gradients"][name] == want[f"{name}_gradient"].to_pylist()
    assert scores["masked"] == {
        name: want[f"{name}_masked"].to_pylist()
        for name in DEFAULT_LOSSES
        if LOSSES[name].can_be_masked
    }


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ({}, ["/unique_id", "/cutoff", "/ds", "/y"]),
        ({"group_columns": KEYS, "model_columns": "A"}, ["?model_columns"]),
        ({"target_column": "y"}, ["?target_column"]),
        ({"group_columns": KEYS, "prediction_columns": "Theta,Theta"}, ["?prediction_columns"]),
        ({"group_columns": KEYS, "prediction_columns": "Theta,no"}, ["/no"]),
        ({"group_columns": "unique_id,unique_id"}, ["?group_columns"]),
    ],
)
def test_mistakes_are_pointed_at(client, table, query, pointers):
    answer = ask(client, table.slice(0, 10), **query)
    assert answer.status_code == 422
    found = [error["pointer"] for error in answer.json()["errors"]]
    assert found[: len(pointers)] == pointers
    assert len(found) == len(pointers) or not query


def test_what_was_left_out_is_in_the_answer(client):
    made = pa.table({
        "id": ["a"], "y": [1.0], "A": [2.0], "A-lo-90": [1.0], "shop": ["n"], "B": [3], "fh": [1],
    })  # fmt: skip
    want = {"A-lo-90": "a bound of a prediction interval", "shop": "text", "fh": "a forecast step"}
    got = post_arrow(client, made, group_columns="id")
    assert json.loads(got.schema.metadata[b"left_out"]) == want
    headers = {"Content-Type": ARROW, "Accept": "application/json"}
    for query, left_out, models in [
        ({}, want, ["A", "B"]),
        ({"exclude_columns": "shop,A,fh"}, {"A-lo-90": want["A-lo-90"]}, ["B"]),
        ({"prediction_columns": "A-lo-90"}, {}, ["A-lo-90"]),
    ]:
        params = {"group_columns": "id", **query}
        answer = client.post("/score", params=params, content=stream(made), headers=headers)
        assert (answer.json()["left_out"], answer.json()["models"]) == (left_out, models)


@pytest.mark.parametrize(
    ("query", "pointer", "says"),
    [
        ({}, "/B", "holds numbers, but '-' in row 1 is text"),
        ({}, "/B", "or leave the column out by exclude_columns"),
        ({"prediction_columns": "B"}, "/B", "holds numbers, but '-' in row 1 is text"),
        ({"target_column": "B"}, "/B", "holds numbers, but '-' in row 1 is text"),
        ({"prediction_columns": "shop"}, "/shop", "must hold numbers, not string"),
        ({"exclude_columns": "b"}, "?exclude_columns", "'b' is absent; did you mean 'B'?"),
        ({"exclude_columns": "B,shop"}, "?prediction_columns", "there is no column of predictions"),
        ({"exclude_columns": "B", "prediction_columns": "y"}, "?prediction_columns", "'y'"),
        ({"exclude_columns": "B", "prediction_columns": "B"}, "?exclude_columns", "names no model"),
    ],
)
def test_models_that_hold_text_are_pointed_at(client, query, pointer, says):
    made = pa.table({"id": ["a", "a"], "y": [1.0, 2], "B": ["1", "-"], "shop": ["n", "s"]})
    answer = ask(client, made, **{"group_columns": "id", **query})
    assert answer.status_code == 422
    faults = [error for error in answer.json()["errors"] if error["pointer"] == pointer]
    assert len(faults) == 1, answer.text
    assert says in faults[0]["detail"]


def test_a_parameter_that_appears_twice(client, table):
    answer = client.post(
        "/score?group_columns=unique_id&group_columns=cutoff",
        content=stream(table.slice(0, 10)), headers={"Content-Type": ARROW},
    )  # fmt: skip
    assert answer.status_code == 422
    assert answer.json()["errors"][0] == {
        "pointer": "?group_columns", "detail": "appears more than once",
    }  # fmt: skip


def test_missing_elements_are_pointed_at(client):
    made = pa.table({"id": ["a", "b", "a"], "y": [1.0, 2, None], "A": [1.0, float("nan"), 1]})
    answer = ask(client, made, group_columns="id")
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/y/2", "/A/1"]


def test_missing_elements_name_their_series(client):
    days = pa.array([7, 8], pa.timestamp("ns"))  # of which Python has none
    made = pa.table({"id": ["a", "b"], "cut": days, "y": [1.0, 2], "A": [1.0, None]})
    answer = ask(client, made.take([1, 0, 1]), group_columns="id,cut")
    assert answer.status_code == 422
    named = "of the series id='b', cut=1970-01-01T00:00:00.000000008 is missing"
    faults = answer.json()["errors"]
    assert [error["pointer"] for error in faults] == ["/A/0", "/A/2"]
    assert all(error["detail"].startswith(named) for error in faults)


def test_the_same_row_twice_is_pointed_at(client, table):
    part = table.slice(0, 50)
    twice = pa.concat_tables([part, part])
    query = {"group_columns": KEYS, "missing": "skip"}
    answer = ask(client, twice, **query)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["detail"].startswith("50 faults")
    assert [error["pointer"] for error in problem["errors"]] == [f"/ds/{50 + i}" for i in range(20)]
    when = part["ds"][3].as_py().isoformat()
    assert f"is {when} in rows 3 and 53 of the series unique_id=" in problem["errors"][3]["detail"]
    assert "group_columns" in problem["errors"][0]["detail"]
    got = post_arrow(client, twice, duplicates="allow", **query)
    assert got.equals(score_table(twice, duplicates="allow", missing="skip"))
    without = post_arrow(client, twice.drop_columns(["ds"]), **query)
    assert without.equals(got)


def test_keys_without_a_value_are_pointed_at(client):
    made = pa.table({"id": ["a", None], "y": [1.0, 2], "A": [1.0, 2]})
    answer = ask(client, made, group_columns="id")
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/id/1"]


def test_a_json_body_takes_no_columns(client):
    answer = client.post("/score?group_columns=id", json={"series": []})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "?group_columns"


def test_elements_of_all_models_count(client):
    rows, models = 1 << 20, 17  # one model more than the limit of 16 Mi elements allows
    ones = pa.array(np.ones(rows, np.int8))
    made = pa.table({"id": ones, "y": ones, **{f"m{m}": ones for m in range(models)}})
    names = ",".join(f"m{m}" for m in range(models))
    answer = ask(client, made, group_columns="id", prediction_columns=names)
    assert answer.status_code == 413
    assert f"has {rows * models} elements" in answer.json()["detail"]
