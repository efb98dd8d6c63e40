"""Calls a service with the clients of Triton and of KServe: ``python inference_clients.py URL``.

It runs in the environment of ``make test-oip``, and fails unless all scores have the bits of POST /score.
"""

import asyncio
import itertools
import sys

import httpx
import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from tritonclient.utils import InferenceServerException

URL = sys.argv[1]
PARAMETERS = {"delta": 0.75, "missing": "skip"}
DATATYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}
RANDOM = np.random.default_rng(3)


def scored(tensors):
    """Return what POST /score answers, as a client knows it."""
    offsets = tensors.get("offsets")
    if offsets is None:
        rows = list(zip(tensors["prediction"], tensors["target"], strict=True))
    else:
        cuts = list(itertools.pairwise(offsets))
        rows = [(tensors["prediction"][a:b], tensors["target"][a:b]) for a, b in cuts]
    series = [
        {"prediction": p.tolist(), "target": [None if np.isnan(x) else x for x in y.tolist()]}
        for p, y in rows
    ]
    body = {
        "losses": [{"name": "huber", "delta": PARAMETERS["delta"]}],
        "missing": "skip",
        "gradients": True,
        "dtype": tensors["prediction"].dtype.name,
        "series": series,
    }
    answer = httpx.post(f"{URL}/score", json=body, timeout=60).raise_for_status().json()
    gradient = np.concatenate(answer["gradients"]["huber"]).astype(tensors["prediction"].dtype)
    return {
        "loss": np.array(answer["losses"]["huber"], np.float64),  # null is NaN
        "masked": np.zeros(len(series), np.int64),
        "gradient": gradient.reshape(tensors["prediction"].shape),
    }


def assert_equal(found, wanted):
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype, (name, found[name].dtype)
        assert found[name].shape == values.shape, (name, found[name].shape)
        assert np.array_equal(found[name], values, equal_nan=True), name
        finite = np.isfinite(values)
        assert found[name][finite].tobytes() == values[finite].tobytes(), name


def cases():
    for dtype in (np.float64, np.float32):
        rectangular = dict(
            zip(
                ("prediction", "target"), RANDOM.normal(size=(2, 50, 24)).astype(dtype), strict=True
            )
        )
        yield rectangular
        flat = {name: values.reshape(-1) for name, values in rectangular.items()}
        flat["target"] = flat["target"].copy()
        flat["target"][0] = np.nan  # the one element of the first series
        yield {**flat, "offsets": np.array([0, 1, 5, 700, 1200])}


def of_triton(module, tensors, *, binary):
    # Its JSON writes NaN, which is no JSON: a missing element goes in binary.
    inputs = []
    for name, values in tensors.items():
        tensor = module.InferInput(name, values.shape, DATATYPES[values.dtype.name])
        has_nan = values.dtype.kind == "f" and bool(np.isnan(values).any())
        inputs.append(tensor.set_data_from_numpy(values, binary_data=binary or has_nan))
    return inputs


def refusal(kind, call, *args):
    """Return the error of a call, which must fail."""
    try:
        call(*args)
    except kind as error:
        return error
    raise AssertionError("it is not refused")


def call_triton():
    with triton.InferenceServerClient(URL.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("huber")
        assert client.is_model_ready("huber", "1")
        assert not client.is_model_ready("nothing")
        assert client.get_server_metadata()["name"] == "loss-scoring"
        model = client.get_model_metadata("huber", "1")
        for tensors in cases():
            wanted = scored(tensors)
            assert [tensor["name"] for tensor in model["outputs"]] == list(wanted)
            for binary in (True, False):
                asked = [triton.InferRequestedOutput(name, binary_data=binary) for name in wanted]
                for outputs in (asked, None):
                    for version in ("", "1"):
                        result = client.infer(
                            "huber", of_triton(triton, tensors, binary=binary), outputs=outputs,
                            model_version=version, parameters=PARAMETERS, request_id="mine",
                        )  # fmt: skip
                        assert result.get_response()["id"] == "mine"
                        assert_equal({name: result.as_numpy(name) for name in wanted}, wanted)
            waiting = client.async_infer(
                "huber", of_triton(triton, tensors, binary=True), parameters=PARAMETERS
            )
            result = waiting.get_result()
            assert_equal({name: result.as_numpy(name) for name in wanted}, wanted)
            result = client.infer(
                "huber", of_triton(triton, tensors, binary=True), parameters=PARAMETERS,
                request_compression_algorithm="gzip", response_compression_algorithm="gzip",
            )  # fmt: skip
            assert_equal({name: result.as_numpy(name) for name in wanted}, wanted)
        one = [triton.InferRequestedOutput("loss")]
        result = client.infer(
            "mae",
            of_triton(triton, tensors, binary=True),
            outputs=one,
            parameters={"missing": "skip"},
        )
        assert result.as_numpy("gradient") is None
        refused = refusal(
            InferenceServerException, client.infer, "mae", of_triton(triton, tensors, binary=True)
        )
        assert refused.status() == "422"
        assert "/target/0/0: of series 0 is missing or not finite" in refused.message()


async def call_triton_aio():
    async with triton_aio.InferenceServerClient(URL.removeprefix("http://")) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("mae"))["versions"] == ["1"]
        for tensors in cases():
            wanted = await asyncio.to_thread(scored, tensors)
            for binary in (True, False):
                inputs = of_triton(triton_aio, tensors, binary=binary)
                outputs = [
                    triton_aio.InferRequestedOutput(name, binary_data=binary) for name in wanted
                ]
                result = await client.infer("huber", inputs, outputs=outputs, parameters=PARAMETERS)
                assert_equal({name: result.as_numpy(name) for name in wanted}, wanted)


async def call_kserve():
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(URL)
        assert await client.is_server_ready(URL)
        assert await client.is_model_ready(URL, "huber")
        assert not await client.is_model_ready(URL, "nothing")
        for tensors in cases():
            wanted = await asyncio.to_thread(scored, tensors)
            for binary in (True, False):
                inputs = []
                for name, values in tensors.items():
                    tensor = InferInput(name, list(values.shape), DATATYPES[values.dtype.name])
                    tensor.set_data_from_numpy(values, binary_data=binary)
                    inputs.append(tensor)
                outputs = [RequestedOutput(name, {"binary_data": binary}) for name in wanted]
                request = InferRequest(
                    "huber", inputs, parameters=PARAMETERS, request_outputs=outputs
                )
                answer = await client.infer(URL, request, model_name="huber")
                assert_equal({output.name: output.as_numpy() for output in answer.outputs}, wanted)
        empty = client.infer(URL, {"inputs": []}, model_name="huber")
        (refused,) = await asyncio.gather(empty, return_exceptions=True)
        assert isinstance(refused, httpx.HTTPStatusError)
        assert "prediction is absent" in str(refused)


call_triton()
asyncio.run(call_triton_aio())
asyncio.run(call_kserve())
print("tritonclient.http, tritonclient.http.aio and kserve: the bits of POST /score")
