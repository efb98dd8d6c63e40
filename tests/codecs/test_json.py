"""JSON bodies: what is read, what is refused and where the fault is said to be."""

import itertools
import json
import math

import numpy as np
import orjson
import pytest

from loss_scoring.core import LossSpec, score
from loss_scoring.service.codecs.arrow.write import LARGE
from loss_scoring.service.codecs.codec import encode as encode_parts
from loss_scoring.service.codecs.json import decode
from loss_scoring.service.errors import InvalidError, TooLargeError, UnreadableError


def read(document, **options):
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return decode(memoryview(body), max_elements=options.pop("max_elements", 10**6))


def encode(request, scores):
    return b"".join(encode_parts(request, scores, "json"))


def series(prediction, target=None, **more):
    return {"prediction": prediction, "target": target or prediction, **more}


def single(prediction, target=None, **more):
    return {"series": [series(prediction, target)], **more}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "line 1 column 1"),
        (b"{", "not JSON"),
        (b'{"series": []}x', "Extra data"),
        (b'{"series": [{"prediction": [1,], "target": [1]}]}', "not JSON"),
        (b'{"series": NaN}', "NaN is not JSON"),
        (b'{"series": -Infinity}', "-Infinity is not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (json.dumps(single([1])).encode("utf-16"), "not UTF-8"),
        (b'{"series": "\xff"}', "byte 12"),
        (b"[" * 10**5 + b"]" * 10**5, "nested too deeply"),
        (b'{"series": ' + b"1" * 10**4 + b"}", "cannot be read"),
    ],
)
def test_unreadable(body, says):
    with pytest.raises(UnreadableError) as caught:
        read(body)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"series": [], "series": []}',
        b'{"series": [{"prediction": [1], "target": [1], "prediction": [2]}]}',
        b'{"series": [], "losses": [{"name": "mae", "name": "mape"}]}',
        b'{"series": [{"id": "\\u003a", "target": [1], "prediction": [1], "prediction": [1]}]}',
        b'{"series": [{"id": "a:b", "id": "ab", "target": [1], "prediction": [1]}]}',
        b'{"series": [], "dtype": {"a": 1, "a": 2}}',
    ],
)
def test_a_key_appears_once(body):
    with pytest.raises(InvalidError, match="more than once in one object"):
        read(body)


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ({}, ["/series"]),
        ({"series": {}}, ["/series"]),
        ({"series": None}, ["/series"]),
        ({"series": [], "a/b~": 1}, ["/a~1b~0"]),
        ({"series": [3, None]}, ["/series/0", "/series/1"]),
        ({"series": [{}]}, ["/series/0/prediction", "/series/0/target"]),
        ({"series": [series([1], weight=1)]}, ["/series/0/weight"]),
        (single(["1"]), ["/series/0/prediction/0", "/series/0/target/0"]),
        (single([1, False], [1, 2]), ["/series/0/prediction/1"]),
        (single([1], [None]), ["/series/0/target/0"]),
        (single([1, {}], [1, 2]), ["/series/0/prediction/1"]),
        (single([1, [2]], [1, 2]), ["/series/0/prediction/1"]),
        (single([[1], [2, 3]], [[1], [2]]), ["/series/0/prediction/1"]),
        (single([[], []], [[1], [2]]), ["/series/0/prediction/0"]),
        (single([[1, 2], [3, "4"]], [[1, 2], [3, 4]]), ["/series/0/prediction/1/1"]),
        (single([[1, 2]], [[1], [2]]), ["/series/0"]),
        (single([[1, 2]], [1, 2]), ["/series/0"]),
        (single([[[1]]], [1]), ["/series/0/prediction/0/0"]),
        (single([1, 2], [1]), ["/series/0"]),
        ({"series": [{"prediction": [], "target": []}]}, ["/series/0/prediction", "/series/0/target"]),
        ({"series": [series([1], id=True)]}, ["/series/0/id"]),
        ({"series": [series([1], id=1.5)]}, ["/series/0/id"]),
        ({"series": [series([1], id=None)]}, ["/series/0/id"]),
        ({"series": [series([1], id="é" * 257)]}, ["/series/0/id"]),
        (b'{"series": [{"id": "\\ud800", "prediction": [1], "target": [1]}]}', ["/series/0/id"]),
        (b'{"series": [{"id": 9223372036854775808, "prediction": [1], "target": [1]}]}', ["/series/0/id"]),
        (b'{"series": [{"prediction": [1, 1e400], "target": [1, 1]}]}', ["/series/0/prediction/1"]),
        (b'{"series": [{"prediction": [1], "target": [1' + b"0" * 400 + b"]}]}", ["/series/0/target/0"]),
        (single([1e300], [1], dtype="float32"), ["/series/0/prediction/0"]),
        (single([[1, 1], [1, 1e39]], [[1, 1], [1, 1]], dtype="float32"), ["/series/0/prediction/1/1"]),
        (single([1], dtype="float16"), ["/dtype"]),
        (single([1], gradients=1), ["/gradients"]),
        (single([1], missing="drop", zero_division=0), ["/missing", "/zero_division"]),
        (single([1], losses="mae"), ["/losses"]),
        (single([1], losses=[]), ["/losses"]),
        (single([1], losses=["mae", "mad", 3]), ["/losses/1", "/losses/2"]),
        (single([1], losses=["smape", {"name": "smape"}]), ["/losses"]),
        (single([1], losses=[{"block_denom_grad": True}]), ["/losses/0/name"]),
        (single([1], losses=[{"name": "mae", "block_denom_grad": True}]), ["/losses/0/block_denom_grad"]),
        (single([1], losses=[{"name": "smape", "block_denom_grad": 0}]), ["/losses/0/block_denom_grad"]),
    ],
)  # fmt: skip
def test_invalid(document, pointers):
    with pytest.raises(InvalidError) as caught:
        read(document)
    assert [fault.pointer for fault in caught.value.errors] == pointers
    assert caught.value.count == len(pointers)
    assert all(fault.detail for fault in caught.value.errors)


def test_the_body_must_be_an_object():
    with pytest.raises(InvalidError, match="must be an object, not a list"):
        read(b"[]")


def test_many_faults_are_counted_and_few_listed():
    with pytest.raises(InvalidError) as caught:
        read({"series": [series([1, None])] * 300})
    assert (len(caught.value.errors), caught.value.count) == (20, 600)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "body",
    [
        b'{"series": [], "losses": [' + b'"mae",' * 200_000 + b'"mae"]}',
        b'{"series": [], ' + b"".join(b'"%d":0,' % n for n in range(200_000)) + b'"1":0}',
        b'{"series": [' + b"[]," * 200_000 + b"[]]}",
        b'{"series": [{"prediction": [' + b"[]," * 200_000 + b'[]], "target": [1]}]}',
    ],
    ids=["losses", "keys", "series", "rows"],
)
def test_a_long_fault_takes_no_longer_than_a_long_request(body):
    with pytest.raises(InvalidError):
        read(body)


def test_elements_are_limited():
    read(single([1] * 10), max_elements=10)
    with pytest.raises(TooLargeError, match="11 elements"):
        read({"series": [series([1] * 6), series([1] * 5)]}, max_elements=10)


def test_everything_arrives():
    request = read(
        {
            "series": [series([1, None, 3.5], [1, 2, None], id="a"), series([4], id=7)],
            "losses": [{"name": "smape", "block_denom_grad": False}, "mae"],
            "gradients": True,
            "missing": "skip",
            "zero_division": "skip",
            "dtype": "float32",
        }
    )
    assert request.options.losses == (LossSpec("smape", block_denom_grad=False), LossSpec("mae"))
    assert request.options.gradients
    assert (request.options.missing, request.options.zero_division) == ("skip", "skip")
    assert request.prediction.values.numpy().dtype == np.float32
    assert np.array_equal(request.prediction.values.numpy(), [1, np.nan, 3.5, 4], equal_nan=True)
    assert request.target.offsets.tolist() == [0, 3, 4]
    assert request.id_list() == ["a", 7]
    assert (len(request.prediction), request.prediction.elements) == (2, 4)


@pytest.mark.parametrize("name", ["a:b", "2020-01-01T00:00:00", "\u00e9", 'say "hi":', "\\:"])
def test_ids_may_hold_anything(name):
    for body in (orjson.dumps, lambda document: json.dumps(document).encode()):
        assert read(body({"series": [series([1], id=name)]})).id_list() == [name]


def test_ids_default_to_the_position():
    assert read({"series": [series([1], id="x"), series([1])]}).id_list() == ["x", 1]


def test_answers_keep_order_shape_and_types():
    request = read(
        {
            "series": [
                series([[1, 2], [3, 4]], [[1, 2], [3, 8]], id="wide"),
                series([5, 6], [5, 4], id=-3),
            ],
            "gradients": True,
            "losses": ["mae"],
        }
    )
    scores = score(request.prediction, request.target, ["mae"], gradients=True)
    answer = orjson.loads(encode(request, scores))
    assert answer == {
        "ids": ["wide", -3],
        "lengths": [4, 2],
        "losses": {"mae": [1.0, 1.0]},
        "masked": {},
        "gradients": {"mae": [[[0, 0], [0, -0.25]], [0, 0.5]]},
    }


@pytest.mark.parametrize(
    "shape", [(40_000, 1), (30, 3000), (2, 40_000), (9, 700, 9), (3, 20_000, 2)]
)
def test_long_answers_are_written_in_parts_and_whole(shape):
    rows = np.random.default_rng(0).normal(size=shape)
    targets = (rows + 1).tolist()
    many = [
        series(p, y, id=f"s-{i}")
        for i, (p, y) in enumerate(zip(rows.tolist(), targets, strict=True))
    ]
    request = read({"series": many, "gradients": True})
    scores = score(request.prediction, request.target, ["mape"], gradients=True)
    parts = encode_parts(request, scores, "json")
    assert len(parts) > 1
    assert all(max(map(len, pair)) >= LARGE for pair in itertools.pairwise(parts))
    expected = {
        "ids": request.ids,
        "lengths": request.prediction.lengths.tolist(),
        "losses": {"mape": scores.values["mape"].tolist()},
        "masked": {"mape": scores.masked["mape"].tolist()},
        "gradients": {"mape": scores.gradients["mape"].reshape(shape).tolist()},
    }
    assert b"".join(parts) == orjson.dumps(expected)


def test_losses_without_a_number_are_null():
    request = read(single([1, None], missing="propagate"))
    scores = score(request.prediction, request.target, missing="propagate")
    assert scores.values["mae"].isnan().all()
    assert orjson.loads(encode(request, scores))["losses"]["mae"] == [None]


def test_float32_is_written_in_its_own_digits():
    request = read(single([0.1], [0.3], dtype="float32", gradients=True, losses=["mape"]))
    scores = score(request.prediction, request.target, ["mape"], gradients=True)
    text = encode(request, scores).decode()
    (value,) = orjson.loads(text)["gradients"]["mape"][0]
    assert np.float32(value) == scores.gradients["mape"].numpy()[0]
    assert len(str(value)) <= 11
    assert not math.isnan(value)
