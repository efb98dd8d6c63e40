"""The Open Inference Protocol over real sockets: the bits of POST /score, errors in its own form."""

import gzip
import itertools
import json

import httpx
import numpy as np
import pyarrow as pa
import pytest
from inference import LENGTH, body_of, columns_of, infer
from wire import post_arrow

from loss_scoring.core import LOSSES
from loss_scoring.service import __version__
from loss_scoring.service.api.problems import problem_of
from loss_scoring.service.errors import InvalidError, OverloadedError

BINARY = {"binary_data_output": True}
RANDOM = np.random.default_rng(11)


def sides_of(shape, dtype=np.float64):
    prediction, target = RANDOM.normal(size=(2, *shape)).astype(dtype)
    target.flat[::7] = 0
    return {"prediction": prediction, "target": target}


@pytest.fixture(scope="module")
def ragged():
    offsets = np.concatenate([[0], np.cumsum(RANDOM.integers(1, 30, 40))])
    sides = sides_of((offsets[-1],))
    return {**sides, "offsets": offsets, "scale": RANDOM.uniform(0.5, 2, 40)}


def scored(client, loss, tensors, **parameters):
    """Return what POST /score answers to the same series."""
    offsets = tensors["offsets"]
    series = [
        {name: tensors[name][a:b].tolist() for name in ("prediction", "target")}
        | ({"scale": float(tensors["scale"][i])} if "scale" in tensors else {})
        for i, (a, b) in enumerate(itertools.pairwise(offsets))
    ]
    body = {"losses": [{"name": loss, **parameters}], "gradients": True, "series": series}
    answer = client.post("/score", json=body).json()
    return {
        "loss": np.array(answer["losses"][loss]),
        "masked": np.array(answer["masked"].get(loss, [0] * len(series))),
        "gradient": np.concatenate(answer["gradients"][loss]),
    }


def assert_equal(found, wanted):
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_the_bits_of_score(client, ragged, loss):
    tensors = {x: values for x, values in ragged.items() if x != "scale" or LOSSES[loss].scaled}
    wanted = scored(client, loss, tensors)
    assert_equal(infer(client, loss, tensors), wanted)
    assert_equal(infer(client, loss, tensors, tensors, parameters=BINARY), wanted)
    assert_equal(infer(client, loss, tensors, ("target",)), wanted)


@pytest.mark.parametrize(
    ("loss", "parameters"),
    [("smape", {"block_denom_grad": False}), ("huber", {"delta": 0.25}), ("pinball", {"q": 0.9})],
)
def test_parameters_of_losses(client, ragged, loss, parameters):
    tensors = {name: ragged[name] for name in ("prediction", "target", "offsets")}
    found = infer(client, loss, tensors, tensors, parameters={**parameters, **BINARY})
    assert_equal(found, scored(client, loss, tensors, **parameters))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_large_request_goes_through_the_queue_to_the_same_bits(client, dtype):
    sides = sides_of((3000, 100), dtype)
    arrow = post_arrow(
        client,
        pa.table({name: pa.array(list(values)) for name, values in sides.items()}),
        losses="mape", gradients="true",
    )  # fmt: skip
    wanted = {
        "loss": arrow["mape"].to_numpy(),
        "masked": arrow["mape_masked"].to_numpy(),
        "gradient": arrow["mape_gradient"].combine_chunks().flatten().to_numpy().reshape(3000, 100),
    }
    assert wanted["gradient"].dtype == dtype
    accept = {"Accept-Encoding": "zstd, gzip"}  # of which nothing comes
    assert_equal(infer(client, "mape", sides, sides, headers=accept, parameters=BINARY), wanted)
    assert_equal(infer(client, "mape", sides, sides, headers=accept), wanted)
    content, headers = body_of(sides, sides, parameters=BINARY)
    answer = client.post(
        "/v2/models/mape/versions/1/infer",
        content=gzip.compress(content, 1),
        headers={**headers, "Content-Encoding": "gzip"},
    )
    assert_equal(columns_of(answer.content, answer.headers), wanted)


def test_an_answer_says_whose_it_is(client):
    content, _ = body_of(sides_of((4,)), id="mine", outputs=[{"name": "loss"}], model_name="mae")
    answer = client.post("/v2/models/mae/infer", content=content).json()
    (output,) = answer.pop("outputs")
    assert answer == {"model_name": "mae", "model_version": "1", "id": "mine"}
    assert {**output, "data": ...} == {
        "name": "loss",
        "datatype": "FP64",
        "shape": [1],
        "data": ...,
    }


def test_metadata_is_that_of_the_rows(client):
    assert client.get("/v2").json() == {
        "name": "loss-scoring", "version": __version__, "extensions": ["binary_tensor_data"],
    }  # fmt: skip
    assert client.get("/v2/").json() == client.get("/v2").json()
    assert client.get("/v2/models").json() == {"models": list(LOSSES)}
    for loss in LOSSES.values():
        path = f"/v2/models/{loss.name}"
        model = client.get(path).json()
        assert client.get(f"{path}/versions/1").json() == model
        assert (model["name"], model["versions"]) == (loss.name, ["1"])
        names = [tensor["name"] for tensor in model["inputs"]]
        assert names == ["prediction", "target", "offsets", "weight"] + ["scale"] * loss.scaled
        assert [tensor["name"] for tensor in model["outputs"]] == ["loss", "masked", "gradient"]
        assert all(tensor["shape"] == [-1] for tensor in model["inputs"] + model["outputs"])
        assert client.get(f"{path}/ready").json() == {"name": loss.name, "ready": True}
    assert client.get("/v2/models/mae/versions/1/ready").is_success
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.head("/v2").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "said"),
    [
        ("GET", "/v2/models/mean", {}, 404, "there is no model 'mean'; known are mae, mape"),
        ("POST", "/v2/models/mean/infer", {}, 404, "there is no model 'mean'"),
        ("GET", "/v2/models/mae/versions/2", {}, 404, "mae has version 1, not '2'"),
        ("GET", "/v2/models/mae/config", {}, 404, "there is no /v2/models/mae/config"),
        ("GET", "/v2/models/mae/infer", {}, 405, "is not served at /v2/models/mae/infer; send POST"),
        ("POST", "/v2/models/mae", {}, 405, "send GET or HEAD"),
        ("POST", "/v2/models/mae/infer", {}, 400, "the body is not JSON"),
        ("POST", "/v2/models/mae/infer?losses=mae", {}, 422, "?losses: the options of a JSON request"),
        ("POST", "/v2/models/mae/infer", {LENGTH: "-1"}, 400, "must be a whole number of bytes"),
        ("POST", "/v2/models/mae/infer", {LENGTH: "5"}, 400, "the body ends before the 5 bytes"),
        ("POST", "/v2/models/mae/infer", {"Content-Encoding": "deflate"}, 415, "use gzip or zstd"),
        ("POST", "/v2/models/mae/infer", {"X-Request-Timeout-Ms": "x"}, 422, "X-Request-Timeout-Ms"),
    ],
)  # fmt: skip
def test_errors_are_one_text(client, method, path, headers, status, said):
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    ((key, text),) = answer.json().items()
    assert key == "error"
    assert said in text
    assert "x-request-id" in answer.headers


def test_faults_are_all_in_the_text(client):
    content, _ = body_of(sides_of((2,)), parameters={"a": 1, "b": 2})
    text = client.post("/v2/models/mae/infer", content=content).json()["error"]
    assert text.startswith("2 faults were found: /parameters/a: unknown parameter; mae takes")
    assert "; /parameters/b: unknown" in text


def test_the_form_of_an_error_follows_from_the_path():
    def body(path, root_path="", error=OverloadedError("full", 3)):  # noqa: B008 - never changed
        answer = problem_of(error, "id", {"path": path, "root_path": root_path})
        return answer.headers["content-type"], json.loads(answer.body)

    assert body("/v2") == body("/api/v2/models", "/api") == ("application/json", {"error": "full"})
    for path in ("/v2x", "/api/v2", "/score", "/"):
        assert body(path)[0] == "application/problem+json"
    assert (
        problem_of(OverloadedError("full", 3), "id", {"path": "/v2"}).headers["retry-after"] == "3"
    )
    assert body("/v2", error=InvalidError("wrong"))[1] == {"error": "wrong"}


def test_a_request_is_counted_as_one_of_score(client):
    def counted():
        lines = client.get("/metrics").text.splitlines()
        of = 'loss_scoring_requests_total{format="tensors",route="/score",status="200"}'
        return float(next(line for line in lines if line.startswith(of)).split()[1])

    before = counted()
    infer(client, "mae", sides_of((3,)))
    assert counted() == before + 1


def test_a_long_answer_in_json_comes_in_pieces(url):
    sides = sides_of((200, 200))
    content, headers = body_of(sides, sides)
    with httpx.Client(base_url=url, timeout=60) as client:
        answer = client.post("/v2/models/mae/infer", content=content, headers=headers)
        wanted = infer(client, "mae", sides, sides, parameters=BINARY)
    assert len(answer.content) > 1 << 17
    assert answer.headers["content-type"] == "application/json"
    assert_equal(columns_of(answer.content, answer.headers), wanted)
