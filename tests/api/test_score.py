"""POST /score on real data, over real sockets."""

import json
import math
import struct

import forecasts
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest
import torch
from wire import ARROW, flat, post_arrow, stream, table_of

from loss_scoring.core import DEFAULT_LOSSES, LOSSES, Ragged, score

QUOTIENTS = [name for name in DEFAULT_LOSSES if LOSSES[name].can_be_masked]


def bits(values: list[float | None]) -> list[bytes | None]:
    return [None if value is None else struct.pack("<d", value) for value in values]


@pytest.fixture(scope="module")
def nested() -> pa.Table:
    return forecasts.various()


def expected(series, **options):
    def side(name):
        return Ragged.from_series(
            [
                torch.tensor(
                    [math.nan if x is None else x for x in entry[name]], dtype=torch.float64
                )
                for entry in series
            ]
        )

    return score(side("prediction"), side("target"), gradients=True, **options)


def test_real_json_equals_core(client, real_json):
    answer = client.post("/score", content=real_json, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    series = json.loads(real_json)["series"]
    scores, want = answer.json(), expected(series, missing="skip")
    assert scores["ids"] == [entry["id"] for entry in series]
    assert scores["lengths"] == [len(entry["target"]) for entry in series]
    assert list(scores) == ["ids", "lengths", "losses", "masked", "gradients"]
    for name in DEFAULT_LOSSES:
        assert bits(scores["losses"][name]) == bits(
            [None if math.isnan(x) else x for x in want.values[name].tolist()]
        )
        assert [len(entry) for entry in scores["gradients"][name]] == scores["lengths"]
        assert bits(flat(scores["gradients"][name])) == bits(want.gradients[name].tolist())
    assert {name: scores["masked"][name] for name in QUOTIENTS} == {
        name: want.masked[name].tolist() for name in QUOTIENTS
    }


def test_json_and_arrow_agree_to_the_bit(client, real_json):
    series = json.loads(real_json)["series"]
    from_json = client.post(
        "/score", json={"series": series, "gradients": True, "missing": "skip"}
    ).json()
    from_arrow = post_arrow(client, table_of(series), gradients="true", missing="skip")
    assert from_arrow["id"].to_pylist() == from_json["ids"]
    for name in DEFAULT_LOSSES:
        assert bits(from_arrow[name].to_pylist()) == bits(from_json["losses"][name])
        assert bits(flat(from_arrow[f"{name}_gradient"].to_pylist())) == bits(
            flat(from_json["gradients"][name])
        )
    for name in QUOTIENTS:
        assert from_arrow[f"{name}_masked"].to_pylist() == from_json["masked"][name]


def test_all_real_series_whole_and_split(client, nested):
    whole = post_arrow(client, nested, gradients="true", missing="skip")
    assert whole["id"].to_pylist() == nested["id"].to_pylist()
    assert whole.schema.field("mae_gradient").type == nested.schema.field("prediction").type
    rng = np.random.default_rng(3)
    order = rng.permutation(len(nested))
    shuffled = post_arrow(client, nested.take(order), gradients="true", missing="skip")
    assert shuffled.equals(whole.take(order).combine_chunks())
    for start in range(0, len(nested), 117):
        part = post_arrow(client, nested.slice(start, 117), gradients="true", missing="skip")
        assert part.equals(whole.slice(start, 117))


@pytest.mark.parametrize(
    ("accept", "body", "answer"),
    [
        (None, "json", "application/json"),
        ("*/*", "json", "application/json"),
        ("*/*", "arrow", ARROW),
        (ARROW, "json", ARROW),
        ("application/json", "arrow", "application/json"),
        (f"application/json;q=0.5, {ARROW}", "json", ARROW),
        ("text/html, application/*;q=0.8", "arrow", ARROW),
        (f"{ARROW};q=0, */*", "arrow", "application/json"),
    ],
)
def test_accept_chooses_the_format(client, accept, body, answer):
    series = [{"id": 7, "prediction": [1.0, 2.0], "target": [1.0, 4.0]}]
    headers = {"Content-Type": ARROW if body == "arrow" else "application/json; charset=utf-8"}
    if accept is not None:
        headers["Accept"] = accept
    content = stream(table_of(series)) if body == "arrow" else json.dumps({"series": series})
    got = client.post("/score", content=content, headers=headers)
    assert got.status_code == 200, got.text
    assert got.headers["content-type"] == answer
    if answer == ARROW:
        row = pa.ipc.open_stream(got.content).read_all().to_pylist()[0]
        assert (row["id"], row["length"], row["mae"]) == (7, 2, 1.0)
    else:
        assert got.json()["losses"]["mae"] == [1.0]


def test_options_change_the_answer(client):
    series = [{"prediction": [1.0, 3.0, 5.0], "target": [0.0, 2.0, None]}]

    def losses(**options):
        return client.post("/score", json={"series": series, **options}).json()

    skipped = losses(missing="skip")
    assert skipped["ids"] == [0]
    assert skipped["losses"] == {"mae": [1.0], "mape": [0.25], "smape": [0.6]}
    assert skipped["masked"] == {"mape": [1], "smape": [0]}
    assert losses(missing="skip", zero_division="skip")["losses"]["mape"] == [0.5]
    propagated = losses(missing="propagate")
    assert propagated["losses"]["mae"] == [None]
    assert propagated["losses"]["mape"] == pytest.approx([0.5 / 3])
    assert propagated["masked"]["mape"] == [2]
    blocked, full = (
        losses(
            missing="skip",
            gradients=True,
            losses=[{"name": "smape", "block_denom_grad": block}],
        )["gradients"]["smape"][0][1]
        for block in (True, False)
    )
    assert blocked == pytest.approx(1 / 5 / 2)
    assert full == pytest.approx((1 / 5 - 1 / 25) / 2)
    narrow = losses(missing="skip", dtype="float32", gradients=True)
    assert narrow["gradients"]["smape"][0][1] == np.float32(np.float32(0.5) / np.float32(5))


def test_query_options_of_arrow(client):
    table = table_of([{"prediction": [1.0, 3.0], "target": [0.0, 2.0]}])
    answer = post_arrow(
        client,
        table,
        losses="smape,mape",
        gradients="true",
        block_denom_grad="false",
        zero_division="skip",
    )
    assert answer.column_names == [
        "id", "length", "smape", "mape", "smape_masked", "mape_masked",
        "smape_gradient", "mape_gradient",
    ]  # fmt: skip
    assert answer["mape"].to_pylist() == [0.5]
    assert answer["smape_gradient"].to_pylist()[0][1] == pytest.approx((1 / 5 - 1 / 25) / 2)


def test_multivariate_series_keep_their_shape(client):
    series = [{"prediction": [[1, 2], [3, 4], [5, 6]], "target": [[1, 2], [3, 4], [5, 9]]}]
    answer = client.post("/score", json={"series": series, "gradients": True}).json()
    assert answer["lengths"] == [6]
    assert answer["losses"]["mae"] == [0.5]
    assert answer["gradients"]["mae"] == [[[0, 0], [0, 0], [0, -1 / 6]]]


def test_no_series_no_scores(client):
    answer = client.post("/score", json={"series": [], "gradients": True}).json()
    assert answer["ids"] == answer["lengths"] == answer["losses"]["mae"] == []
    empty = table_of([{"id": "a", "prediction": [1.0], "target": [1.0]}]).slice(0, 0)
    assert post_arrow(client, empty).num_rows == 0


def test_every_answer_carries_its_headers(client):
    stages = ["decode", "queue", "compute", "encode", "total"]
    body = {"series": [{"prediction": [1], "target": [1]}]}
    answer = client.post("/score", json=body, headers={"X-Request-Id": "nightly-7"})
    assert answer.headers["x-request-id"] == "nightly-7"
    timings = [part.split(";dur=") for part in answer.headers["server-timing"].split(", ")]
    assert [name for name, _ in timings] == stages
    assert all(float(value) >= 0 for _, value in timings)
    insane = client.post("/score", json=body, headers={"X-Request-Id": "no spaces, please"})
    assert len(insane.headers["x-request-id"]) == 32
    for path in ("/livez", "/nowhere", "/losses"):
        answer = client.get(path)
        assert answer.headers["server-timing"].startswith("total;dur=")
        assert answer.headers["x-request-id"]


def test_small_routes(client):
    losses = client.get("/losses").json()
    assert [loss["name"] for loss in losses] == list(LOSSES)
    rows = {loss["name"]: loss for loss in losses}
    assert rows["smape"]["parameters"] == {"block_denom_grad": {"type": "boolean", "default": True}}
    assert rows["huber"]["parameters"] == {
        "delta": {"type": "number", "default": 1, "exclusiveMinimum": 0}
    }
    assert [name for name, row in rows.items() if row["default"]] == ["mae", "mape", "smape"]
    assert rows["wape"]["can_be_masked"]
    assert not rows["mse"]["can_be_masked"]
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_metrics_count_requests_and_batches(client):
    def count(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    scored = 'loss_scoring_requests_total{format="json",route="/score",status="200"}'
    before, batches = count(scored), count("loss_scoring_batch_seconds_count")
    client.post("/score", json={"series": [{"prediction": [1], "target": [1]}]})
    assert count(scored) == before + 1
    assert count("loss_scoring_batch_seconds_count") == batches + 1


@pytest.mark.parametrize("accept", ["application/json", ARROW])
def test_the_path_with_a_version_is_the_same(client, nested, accept):
    counted = 'loss_scoring_requests_total{format="arrow",route="/score",status="200"} '

    def count():
        text = client.get("/metrics").text
        return float(text.partition(counted)[2].partition("\n")[0] or 0)

    before = count()
    sent = {"content": stream(nested), "headers": {"Content-Type": ARROW, "Accept": accept}}
    query = "?missing=skip&gradients=true"
    plain, versioned = (client.post(f"{path}{query}", **sent) for path in ("/score", "/v1/score"))
    assert plain.status_code == versioned.status_code == 200
    assert plain.content == versioned.content
    assert versioned.headers["vary"] == "Accept, Accept-Encoding"
    assert count() == before + 2
    assert client.get("/v1/losses").content == client.get("/losses").content


def test_what_runs_can_be_asked_for(client):
    document = client.get("/openapi.json").json()
    asked = client.get("/version").json()
    assert asked == {"name": "loss-scoring", "version": document["info"]["version"]}


def test_a_large_arrow_body(client):
    lengths, each = 5000, 625  # 2 x 25 MB of float64
    rng = np.random.default_rng(0)
    sides = rng.normal(size=(2, lengths * each))
    offsets = pa.array(np.arange(0, lengths * each + 1, each, dtype=np.int32))
    table = pa.table(
        {
            name: pa.ListArray.from_arrays(offsets, pa.array(values))
            for name, values in zip(("prediction", "target"), sides, strict=True)
        }
    )
    assert len(stream(table)) > 50e6
    answer = post_arrow(client, table, losses="mae")
    want = np.abs(sides[0] - sides[1]).reshape(lengths, each).mean(axis=1)
    assert np.allclose(answer["mae"].to_numpy(), want, rtol=1e-13, atol=0)


def test_a_body_in_chunks(client):
    def chunks():
        yield b'{"series":[{"prediction":[1],'
        yield b'"target":[3]}]}'

    answer = client.post("/score", content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.json()["losses"]["mae"] == [2.0]


def test_a_request_over_the_batch_budget_is_cut_without_a_trace(nested, client):
    from conftest import LOSS_SCORING, serving

    whole = post_arrow(client, nested, gradients="true", missing="skip")
    with (
        serving(LOSS_SCORING, "serve", LOSS_SCORING_BATCH_ELEMENTS="777") as base,
        httpx.Client(base_url=base, timeout=60) as small,
    ):
        assert post_arrow(small, nested, gradients="true", missing="skip").equals(whole)
