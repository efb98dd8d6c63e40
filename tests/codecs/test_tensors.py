"""Bodies of the Open Inference Protocol: what is read, what is refused, and that nothing else happens."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference import DATATYPES, LENGTH, body_of, columns_of
from streams import Account

from loss_scoring.core import LOSSES, ScoreOptions
from loss_scoring.core.kernels.plain import plain_kernel
from loss_scoring.service.codecs import json as json_codec
from loss_scoring.service.codecs.codec import encode
from loss_scoring.service.codecs.json import parse
from loss_scoring.service.codecs.request import UNLIMITED, Limits
from loss_scoring.service.codecs.tensors import Call, decode
from loss_scoring.service.errors import InvalidError, ServiceError, TooLargeError, UnreadableError

LIMITS = Limits(1 << 20, 1 << 16)
P, Y = np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.0, 0.0])
OFFSETS = np.array([0, 2, 3])
SIDES = {"prediction": P, "target": Y}


def read(content, headers=None, loss="mae", memory=UNLIMITED, limits=LIMITS, max_json=1 << 20):
    length = (headers or {}).get(LENGTH)
    call = Call(loss, None if length is None else int(length))
    requests = [
        decode(memoryview(body), call, limits, max_json, memory)
        for body in (content, bytearray(content))  # that of a long body can be written to
    ]
    for request in requests:
        assert request.prediction.array.flags.behaved, "aligned and writable"
        assert request.target.array.flags.behaved
    return requests[-1]


def answer_of(request):
    """Return the outputs of a request that is scored here."""
    prediction, target, options, weights, scales = request.columns
    scores = plain_kernel(  # which compiles nothing
        prediction.values, target.values, prediction.offsets, options, weights, scales
    )
    content = b"".join(encode(request, scores, "tensors"))
    headers = {name.decode().title(): value.decode() for name, value in request.answer_headers}
    return columns_of(content, headers), headers


def refused(content, headers=None, loss="mae", **limits):
    with pytest.raises(ServiceError) as caught:
        read(content, headers, loss, **limits)
    return caught.value


finite = st.floats(-100, 100, width=16)
dtypes = st.sampled_from(list(DATATYPES))


@settings(max_examples=40)
@given(st.data())
def test_numbers_of_every_type_are_read_as_they_were_sent(data):
    names = ("prediction", "target")
    count = data.draw(st.integers(1, 8))
    sides = {}
    for name in names:
        dtype = data.draw(dtypes)
        drawn = data.draw(st.lists(finite, min_size=count, max_size=count))
        sides[name] = np.array(drawn).astype(np.int8 if dtype.kind != "f" else dtype).astype(dtype)
    halves = {name for name in names if sides[name].dtype == np.float16}
    binary = data.draw(st.sets(st.sampled_from(names))) | halves
    cuts = data.draw(st.sets(st.integers(1, count - 1))) if count > 1 else set()
    offsets = np.array([0, *sorted(cuts), count])
    request = read(*body_of({**sides, "offsets": offsets}, binary))
    small = all(x.dtype.itemsize < 4 or x.dtype == np.float32 for x in sides.values())
    for side, ragged in zip(names, (request.prediction, request.target), strict=True):
        assert ragged.array.dtype == (np.float32 if small else np.float64)
        np.testing.assert_array_equal(ragged.array, sides[side].astype(ragged.array.dtype))
        np.testing.assert_array_equal(ragged.offsets, offsets)
    wanted, _ = answer_of(request)
    got, _ = answer_of(
        read(
            *body_of({**sides, "offsets": offsets}, names, parameters={"binary_data_output": True})
        )
    )
    for name, values in wanted.items():
        assert values.tobytes() == got[name].tobytes()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 2, 1), (1, 3, 2), (0,), (0, 3)])
def test_shapes_are_series_steps_and_channels(shape, nested):
    values = np.arange(float(np.prod(shape))).reshape(shape)
    extra = {"offsets": np.array([0])} if shape == (0,) else {}
    request = read(*body_of({"prediction": values + 1, "target": values, **extra}, nested=nested))
    series = shape[0] if len(shape) > 1 else min(shape[0], 1)
    assert len(request.prediction) == series
    assert set(request.prediction.lengths) <= {values.size // max(series, 1)}
    columns, headers = answer_of(request)
    assert headers == {"Content-Type": "application/json"}
    assert columns["loss"].tolist() == [1.0] * series
    assert columns["gradient"].shape == shape
    assert columns["masked"].tolist() == [0] * series


def test_what_is_read_is_what_json_of_score_is_read_to():
    weight, scale = np.array([1, 3, 0.5]), np.array([2.0, np.nan])
    target = np.array([2.0, np.nan, 0.0])
    series = [
        {"prediction": [1, 2], "target": [2, None], "weight": [1, 3], "scale": 2},
        {"prediction": [4], "target": [0], "weight": [0.5], "scale": None},
    ]
    options = {"missing": "skip", "zero_division": "skip"}
    body = {"losses": ["mase"], "gradients": True, **options, "series": series}
    wanted = json_codec.decode(json.dumps(body).encode(), max_elements=10)
    tensors = {
        "prediction": P,
        "target": target,
        "offsets": OFFSETS,
        "weight": weight,
        "scale": scale,
    }
    for binary in ((), tensors):
        found = read(*body_of(tensors, binary, parameters=options), "mase")
        assert found.options == wanted.options
        np.testing.assert_array_equal(found.prediction.offsets, wanted.prediction.offsets)
        for pair in zip(found.columns, wanted.columns, strict=True):
            if not isinstance(pair[0], ScoreOptions):
                one, other = (getattr(column, "array", column) for column in pair)
                assert one.tobytes() == other.tobytes()
    columns, _ = answer_of(found)
    assert columns["loss"].tolist()[0] == 1 / 2
    assert np.isnan(columns["loss"][1])
    assert columns["masked"].tolist() == [0, 1]


def test_parameters_are_those_of_the_row():
    for loss in LOSSES.values():
        scale = {"scale": np.ones(1)} if loss.scaled else {}
        values = {name: rule.default for name, rule in loss.parameters.items()}
        parameters = {**values, "missing": "skip", "zero_division": "skip"}
        request = read(*body_of({**SIDES, **scale}, parameters=parameters), loss.name)
        assert request.options.losses[0].parameters == values
        assert (request.options.missing, request.options.zero_division) == ("skip", "skip")
    request = read(*body_of(SIDES, parameters={"block_denom_grad": False}), "smape")
    assert request.options.losses[0].values == (False,)


def test_outputs_are_those_asked_for():
    every = read(*body_of(SIDES))
    assert every.outputs == {"loss": False, "masked": False, "gradient": False}
    assert every.options.gradients
    outputs = [{"name": "masked", "parameters": {"binary_data": False}}, {"name": "loss"}]
    some = read(*body_of(SIDES, outputs=outputs, parameters={"binary_data_output": True}))
    assert list(some.outputs.items()) == [("masked", False), ("loss", True)]
    assert not some.options.gradients
    columns, headers = answer_of(some)
    assert list(columns) == ["masked", "loss"]
    assert headers["Content-Type"] == "application/octet-stream"


def test_null_is_missing_and_a_loss_without_elements_is_null():
    sides = {"prediction": P, "target": np.array([np.nan, np.nan, 1.0]), "offsets": OFFSETS}
    for binary in ((), ("target",)):
        columns, _ = answer_of(read(*body_of(sides, binary, parameters={"missing": "skip"})))
        assert np.isnan(columns["loss"][0])
        assert columns["loss"][1] == 3
        with pytest.raises(
            InvalidError, match="of series 0 is missing or not finite; missing=skip"
        ) as caught:
            read(*body_of(sides, binary)).check_missing()
        assert [fault.pointer for fault in caught.value.errors] == ["/target/0/0"]
    channels = {
        "prediction": np.zeros((1, 2, 2)),
        "target": np.array([[[0.0, 1.0], [2.0, np.inf]]]),
    }
    with pytest.raises(InvalidError) as caught:
        read(*body_of(channels, ("target",))).check_missing()
    assert [fault.pointer for fault in caught.value.errors] == ["/target/0/1/1"]


def test_long_documents_are_read_in_pieces():
    values = np.random.default_rng(5).normal(size=(60, 400))
    sides = {"prediction": values, "target": values[::-1]}
    account = Account()
    for nested in (False, True):
        content, headers = body_of(sides, nested=nested)
        assert len(content) > 4 * parse.PIECE
        request = read(content, headers, memory=account)
        np.testing.assert_array_equal(request.prediction.array, values.reshape(-1))
    assert max(account.reserved) > 2 * values.nbytes
    columns, _ = answer_of(request)
    wanted, headers = answer_of(
        read(*body_of(sides, sides, parameters={"binary_data_output": True}))
    )
    assert int(headers[LENGTH]) < 1000
    assert all(columns[name].tobytes() == wanted[name].tobytes() for name in wanted)


def entry(**changes):
    """Return a body of one number, one input of which is changed."""
    given = {"name": "prediction", "datatype": "FP64", "shape": [1], "data": [1]}
    changed = {key: value for key, value in {**given, **changes}.items() if value is not ...}
    return json.dumps({"inputs": [changed, {**given, "name": "target"}]}).encode()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "predictions"}, "/inputs/0/name: must be 'prediction', 'target'"),
        ({"name": "target"}, "/target: appears more than once"),
        ({"datatype": "BYTES"}, "/inputs/0/datatype: must be 'FP16', 'FP32'"),
        ({"datatype": ...}, "/inputs/0/datatype: is absent"),
        ({"shape": [-1]}, "/inputs/0/shape/0: must be greater than or equal to 0"),
        ({"shape": []}, "/inputs/0/shape: List should have at least 1 item"),
        ({"shape": [True]}, "/inputs/0/shape/0: must be a valid integer, not a boolean"),
        ({"shape": [2]}, "data must be 2 numbers, flat or nested as the shape [2] says"),
        ({"shape": [1, 1]}, "/target: has the shape [1], prediction [1, 1]"),
        ({"shape": [2**40]}, "the request has 1099511627776 elements, this server takes 65536"),
        ({"shape": [10**4000]}, "/inputs/0/shape/0: must be less than 281474976710656"),
        ({"data": []}, "data must be 1 numbers"),
        ({"data": ...}, "/prediction: data must be a list of numbers, not null"),
        ({"data": [[1], [1]], "shape": [2]}, "/prediction/0: must be a number or null, not a list"),
        ({"data": [[1, 2], 3, 4], "shape": [2, 2]}, "flat or nested as the shape [2, 2] says"),
        ({"data": [[1, 2], [3]], "shape": [2, 2]}, "flat or nested as the shape [2, 2] says"),
        ({"data": [1, 2]}, "data must be 1 numbers"),
        ({"data": ["1"]}, "/prediction/0: must be a number or null, not a string"),
        ({"data": [True]}, "/prediction/0: must be a number or null, not a boolean"),
        ({"data": [1e39], "datatype": "FP32"}, "/prediction/0: is too large for FP32"),
        ({"data": [10**400]}, "holds a number that is too large for FP64"),
        ({"data": [300], "datatype": "INT8"}, "holds a number that is too large for INT8"),
        ({"data": [1.5], "datatype": "INT8"}, "/prediction/0: must be an integer, not a number"),
        ({"data": [None], "datatype": "INT8"}, "/prediction/0: must be an integer, not null"),
        ({"datatype": "FP16"}, "FP16 is read in binary only"),
        ({"parameters": {"binary_data_size": 8}}, "has data and binary_data_size"),
        ({"parameters": {"shared_memory_region": "x"}}, "/inputs/0/parameters/shared_memory_region: unknown field"),
        ({"parameters": {"binary_data_size": 7}, "data": ...}, "has a binary_data_size of 7; FP64 of shape [1] has 8"),
        ({"parameters": {"binary_data_size": 8}, "data": ...}, "the body ends within the 8 bytes of prediction"),
        ({"more": 1}, "/inputs/0/more: unknown field"),
    ],
)  # fmt: skip
def test_inputs_that_are_refused(changes, said):
    assert said in str(refused(entry(**changes)))


@pytest.mark.parametrize(
    ("loss", "tensors", "said"),
    [
        ("mae", {"target": Y}, "/inputs: prediction is absent"),
        ("mae", {**SIDES, "weight": P[:2]}, "/weight: has the shape [2], prediction [3]"),
        ("mae", {**SIDES, "weight": -P}, "/weight/0/0: of series 0 is -1; it must be finite and"),
        ("mae", {"prediction": P[:0], "target": P[:0]}, "/prediction: [0] is a shape of empty series"),
        ("mae", {"prediction": P[:0].reshape(2, 0), "target": P[:0].reshape(2, 0)}, "/prediction: [2, 0] is"),
        ("mae", {**SIDES, "scale": P[:1]}, "/scale: mae takes none"),
        ("mase", SIDES, "/scale: is absent; mase must have one a series"),
        ("mase", {**SIDES, "scale": P}, "/scale: has the shape [3]; one a series is [1]"),
        ("mae", {**SIDES, "offsets": P}, "/offsets: must be integers"),
        ("mae", {**SIDES, "offsets": OFFSETS[1:]}, "/offsets: must begin with 0 and end with 3"),
        ("mae", {**SIDES, "offsets": OFFSETS[:0]}, "/offsets: must begin with 0 and end with 3"),
        ("mae", {**SIDES, "offsets": np.array([0, 2, 2, 3])}, "/offsets/2: series 1 is empty"),
        ("mae", {**SIDES, "offsets": np.array([0, 2**64 - 1, 3], np.uint64)}, "/offsets/1: series 0 is empty"),
        ("mae", {"prediction": P[None], "target": Y[None], "offsets": OFFSETS}, "/offsets: are for tensors of one"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("binary", [False, True])
def test_tensors_that_do_not_fit(loss, tensors, said, binary):
    error = refused(*body_of(tensors, tensors if binary else ()), loss=loss)
    assert said in f"{error.errors[0].pointer}: {error.errors[0].detail}"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"parameters": {"delta": 1}}, "/parameters/delta: unknown parameter; mae takes missing"),
        ({"parameters": {"name": "mse"}}, "/parameters/name: unknown parameter"),
        ({"parameters": {"mising": "skip"}}, "did you mean 'missing'?"),
        ({"parameters": {"missing": "drop"}}, "/parameters/missing: must be 'error', 'skip' or"),
        ({"parameters": {"binary_data_output": 1}}, "must be true or false, not a number"),
        ({"parameters": []}, "/parameters: must be a valid dictionary, not a list"),
        ({"model_name": "mape"}, "/model_name: is 'mape', and the path names mae"),
        ({"id": 5}, "/id: must be a valid string, not a number"),
        ({"id": "x" * 70_000}, "a value that is no data is over 65536 bytes long"),
        ({"outputs": [{"name": "loss"}] * 2}, "/outputs: names loss more than once"),
        ({"outputs": [{"name": "losses"}]}, "/outputs/0/name: must be 'loss', 'masked' or 'gradient'"),
        ({"outputs": [{"name": "loss", "parameters": {"classification": 3}}]}, "classification: unknown field"),
        ({"inputs": 3}, "/inputs: must be a list, not a number"),
        ({"inputs": [3]}, "/inputs/0: must be an object, not a number"),
        ({"series": []}, "/series: unknown field"),
        ({"parameters": dict.fromkeys(map(str, range(5000)), 1)}, "5000 faults were found; the first 20"),
        ({"parameters": {"\ud800": "\ud800"}}, "unknown parameter"),
        ({"parameters": {"missing": "\ud800"}}, "/parameters/missing: must be"),
    ],
)  # fmt: skip
def test_documents_that_are_refused(fields, said):
    content, headers = body_of(SIDES)
    assert said in str(refused(json.dumps({**json.loads(content), **fields}).encode(), headers))


def test_every_parameter_is_checked_by_its_row():
    error = refused(*body_of(SIDES, parameters={"delta": -1}), loss="huber")
    assert str(error) == "/parameters/delta: must be greater than 0"
    error = refused(*body_of(SIDES, parameters={"delta": "1", "q": 0.5}), loss="huber")
    assert [fault.pointer for fault in error.errors] == ["/parameters/q", "/parameters/delta"]


def test_limits():
    content, headers = body_of(SIDES, SIDES)
    assert isinstance(refused(content, headers, max_json=50), TooLargeError)
    assert isinstance(refused(content, headers, limits=Limits(1 << 20, 2)), TooLargeError)
    assert isinstance(refused(content[:-1], headers), UnreadableError)
    assert "1 bytes follow the last" in str(refused(content + b"x", headers))
    assert "ends before the" in str(refused(content, {LENGTH: str(len(content) + 1)}))
    assert "the body must be an object" in str(refused(b"[]"))
    many = json.dumps({"inputs": [{"name": "prediction"}] * 40_000}).encode()
    assert isinstance(refused(many), InvalidError)


def test_damaged_bodies_are_refused_or_read():
    dice = random.Random(7)
    sides = {**SIDES, "offsets": OFFSETS, "weight": P}
    bodies = [body_of(sides), body_of(sides, sides), body_of(sides, ("target",))]
    outcomes = set()
    for _ in range(3000):
        content, headers = dice.choice(bodies)
        damaged = bytearray(content)
        for _ in range(dice.randint(0, 2)):
            damaged[dice.randrange(len(damaged))] = dice.choice(b'0123456789-"[]{},:\x00\xffe')
        damaged = bytes(damaged if dice.random() < 0.5 else damaged[: dice.randrange(len(damaged))])
        try:
            request = read(damaged, headers)
        except ServiceError as error:
            outcomes.add(type(error))
            continue
        outcomes.add(None)
        assert (
            request.prediction.elements == request.target.elements == request.prediction.offsets[-1]
        )
    assert outcomes >= {None, UnreadableError, InvalidError}


@pytest.mark.parametrize("shape", [[1 << 26, 0], [0, 1 << 47], [0, 1 << 47, 1 << 47]])
def test_a_dimension_beside_one_of_zero_counts(shape):
    sides = [
        {"name": name, "datatype": "FP64", "shape": shape, "data": []}
        for name in ("prediction", "target")
    ]
    assert isinstance(refused(json.dumps({"inputs": sides}).encode()), TooLargeError)


def test_objects_within_objects_are_refused():
    nested = b'{"a":' * 700 + b"1" + b"}" * 700
    error = refused(b'{"inputs":[],"parameters":%s}' % nested)
    assert isinstance(error, InvalidError)
    assert "an object is within 8 others" in str(error)
