"""Common bodies: read as the strict reader reads them, within memory and without its help."""

import json as stdlib

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loss_scoring.service.codecs import json
from loss_scoring.service.codecs.json import decode_common
from loss_scoring.service.codecs.json.loop import count_of, end_of_piece, read_series
from loss_scoring.service.codecs.json.read import find_series
from loss_scoring.service.codecs.json.strict import decode_strictly
from loss_scoring.service.errors import InvalidError, ServiceError


def outcome(reader, body):
    try:
        request = reader(body, 10**6)
    except ServiceError as error:
        return type(error), str(error), getattr(error, "errors", ()), getattr(error, "count", 0)
    if request is None:
        return None
    ids = request.id_list()
    return (
        request.prediction.values.numpy().tobytes(),
        request.target.values.numpy().tobytes(),
        request.prediction.values.dtype,
        request.prediction.offsets.tolist(),
        request.options,
        ids,
        [type(name) for name in ids],
        None if request.channels is None else request.channels.tolist(),
    )


number = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**25), 10**25),
    st.sampled_from([0, 0.0, -0.0, 1e308, 3.5e38]),
)
uncommon_value = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.builds(list),
    st.builds(dict),
    st.lists(number),
)


id_value = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(10**19), 10**19),
    st.text(max_size=5),
    st.sampled_from(
        [":[1,2]{", "x" * 512, "x" * 513, "\u00e9" * 256, "\u00e9" * 257, '"\\\n'],
    ),
)


@st.composite
def documents(draw):
    nested = draw(st.sampled_from([False, False, True]))
    named = draw(st.sampled_from([0, 5, 10, 10]))
    series = []
    for _ in range(draw(st.integers(0, 4))):
        length = draw(st.integers(1, 4))
        width = draw(st.integers(1, 3))
        row = st.lists(number, min_size=width, max_size=width) if nested else number
        fields = {
            side: draw(st.lists(row, min_size=length, max_size=length))
            for side in ("prediction", "target")
        }
        if draw(st.integers(0, 9)) < named:
            fields["id"] = draw(id_value)
        if draw(st.integers(0, 9)) == 0:
            fields[draw(st.sampled_from(["prediction", "target", "id", "other"]))] = draw(
                uncommon_value
            )
        if draw(st.integers(0, 9)) == 0 and isinstance(fields["target"], list) and fields["target"]:
            fields["target"][-1] = draw(uncommon_value)
        order = draw(st.permutations(list(fields)))
        series.append({name: fields[name] for name in order})
    document = {"series": series}
    if draw(st.booleans()):
        document["missing"] = draw(st.sampled_from(["error", "skip", "propagate", "x"]))
    if draw(st.booleans()):
        document["dtype"] = draw(st.sampled_from(["float32", "float64"]))
    if draw(st.integers(0, 4)) == 0:
        document["losses"] = draw(
            st.sampled_from(
                [["mae"], [1], [], ["mae", {"name": "smape", "block_denom_grad": False}]]
            )
        )
    return document


@st.composite
def bodies(draw):
    document = draw(documents())
    indent = draw(st.sampled_from([None, None, 1]))
    body = bytearray(
        stdlib.dumps(document, indent=indent, ensure_ascii=draw(st.booleans())).encode(
            "utf-8", "replace"
        )
    )
    tokens = [
        b"null", b"[", b"]", b"{", b"}", b",", b":", b'"', b"1e999", b"-", b"0", b".", b"\\", b" ", b"\xff",
        b'"id":1,', b'"target":[1],', b"NaN", b"false",
    ]  # fmt: skip
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        at = draw(st.integers(0, len(body)))
        cut = draw(st.sampled_from([0, 0, 1, 5]))
        body[at : at + cut] = draw(st.sampled_from([b"", *tokens]))
    return bytes(body) + draw(st.sampled_from([b"", b"", b"\n", b" \r\n\t", b"\x0b"]))


@settings(max_examples=600, deadline=None)
@given(bodies())
@example(b'{"series": [{"prediction": [1], "target": [false]}]}')
@example(b'{"series": [{"prediction": [1], "target": [[1]]}]}')
@example(
    b'{"series": [{"prediction": [[1]], "target": [[1]]}, {"prediction": [1], "target": [1]}]}'
)
@example(b'{"series": [{"prediction": [1], "prediction": [1], "target": [1]}]}')
@example(
    b'{"dtype": "float32", "series": [{"prediction": [3.4028235677973366e38], "target": [1]}]}'
)
@example(
    b'{"dtype": "float32", "series": [{"prediction": [3.4028235677973362e38], "target": [1]}]}'
)
@example(b'{"missing": "skip", "series": [{"prediction": [null, 1], "target": [1, null]}]}')
@example(b'{"series": [{"id": -0, "prediction": [1], "target": [1]}]}')
@example(b'{"series": [{"id": 1.0, "prediction": [1], "target": [1]}]}')
@example(b'{"series": [{"id": "\xed\xa0\x80", "prediction": [1], "target": [1]}]}')
@example(b'{"series": [{"id": "a\n", "prediction": [1], "target": [1]}]}')
@example(b'{"series": [{"id": "\\ud800", "prediction": [1], "target": [1]}]}')
@example(b'{"series": [{"prediction": [null, null], "target": [1]}]}')
@example(b'{"x": {"series": [{"prediction": [1], "target": [1]}]}}')
@example(b'{"series": {"series": [{"prediction": [1], "target": [1]}]}}')
@example(b'{"losses": [{"name": "mae", "series": [{"prediction": [1], "target": [1]}]}]}')
@example(
    b'{"losses": [{"name": "mae", "series": [{"prediction": [1], "target": [1]}]}], "series": []}'
)
@example(b'{"missing": "\\"series\\": [", "series": [{"prediction": [1], "target": [1]}]}')
@example(b'{"series" :\n[{"prediction": [1], "target": [1]}], "series": []}')
@example(b'[{"x": 1}, "series": [{"prediction": [1], "target": [1]}]]')
@example(b'{"series": [{"prediction": [1], "target": [1]}], "s\\u0065ries": []}')
@example(b'{"series": [[0]]}')
@example(b'{"series": [0]}')
@example(b'{"series": []}')
@example(b"{}")
@example(b"")
def test_both_readers_agree(body):
    strict = outcome(decode_strictly, body)
    assert outcome(lambda b, n: json.decode(b, max_elements=n), body) == strict
    assert outcome(decode_common, body) in (None, strict)


COMMON = {
    "plain": '{"series": [{"prediction": [1, 2.5], "target": [3, 4e0]}, {"prediction": [1], "target": [2]}]}',
    "with ids": '{"series": [{"id": "a:b", "prediction": [1.25], "target": [3]}, {"id": 7, "target": [1], "prediction": [2]}]}',
    "escaped ids": r'{"series": [{"id": "caf\u00e9", "prediction": [1], "target": [3]}, {"prediction": [1], "target": [3], "id": "\"\\"}]}',
    "options": '{"losses": ["mae"], "gradients": true, "dtype": "float32", "series": [{"prediction": [1], "target": [3]}]}',
    "missing": '{"missing": "skip", "series": [{"prediction": [1, null], "target": [3, 4]}]}',
    "channels": '{"series": [{"prediction": [[1, 2], [3, 4]], "target": [[1, 2], [3, 4]]}, {"prediction": [1], "target": [2]}]}',
    "spread out": '{"series" : [ { "prediction" : [ 1 , 2\n], "target":\t[ 1.0, 2 ] } ] }',
    "newline": '{"series": [{"prediction": [1], "target": [3]}], "gradients": false}\r\n',
    "short": '{"series":[{"prediction":[1],"target":[1],"id":1}]}',
    "long": '{"series":['
    + 3000 * '{"prediction":[1],"target":[1],"id":"a"},'
    + '{"prediction":[1],"target":[1],"id":"b"}]}',
}


@pytest.mark.parametrize("text", COMMON.values(), ids=COMMON)
def test_common_bodies_need_no_strict_reader(text):
    read = outcome(decode_common, text.encode())
    assert read == outcome(decode_strictly, text.encode())


def test_nulls_are_found_without_the_strict_reader():
    rng = np.random.default_rng(0)
    series = []
    for i in range(40):
        sides = rng.normal(size=(2, 6))
        sides[rng.random((2, 6)) < 0.1] = np.nan
        rows = sides.reshape(2, 3, 2) if i % 2 else sides
        series.append(dict(zip(("target", "prediction"), rows.tolist(), strict=True)))
    body = orjson.dumps({"series": series})
    with pytest.raises(InvalidError) as caught:
        decode_common(body, 1)
    assert caught.value.count > 20
    assert outcome(decode_common, body) == outcome(decode_strictly, body)


def test_no_request_compiles_after_the_warm_up():
    """Each kind of array that a loop meets is a compilation, which takes seconds."""
    json.warm_up()
    for text in COMMON.values():
        body = text.encode()
        for buffer in (body, memoryview(body), memoryview(bytearray(body))):
            assert decode_common(buffer, 10**4) is not None
    assert [len(loop.signatures) for loop in (count_of, end_of_piece, read_series)] == [1] * 3


UNITS = [
    b"[1]", b"[1 ]", b"[1][2,3]", b'{"a":[1]}', b"[1[", b"{}", b"{", b"}", b'"', b"\\", b"1", b"-", b" ",
    b"null", b'{"prediction":[1],"target":[1]}', b'{"prediction":[1]}', b'{"id":"a"', b'{"id":1}', b'"id":1 ',
    b'{"prediction":[[1][1]', b'{"prediction":[1', b'{"prediction":[1 1', b'{"prediction":[1,', b'{"prediction":[[1],',
]  # fmt: skip


def run_within(body, around):
    """Run the loop on arrays that lie between others, as small as a body of its size allows."""
    start = find_series(body)
    if start is None:
        return None
    margin = 64
    text = np.frombuffer(around * margin + body + around * margin, np.uint8)[margin:-margin]
    sizes = [2 * (body.count(b",") // 2), 2 * (len(body) // 31 + 1), len(body)]
    kinds = np.float64, np.int64, np.uint8
    arrays = [np.full(n + 2 * margin, 77, kind) for n, kind in zip(sizes, kinds, strict=True)]
    found = read_series(text, start.end() - 1, *(array[margin:-margin] for array in arrays))
    for array in arrays:
        assert (array[:margin] == 77).all()
        assert (array[-margin:] == 77).all()
    return found


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "start", [b"", b'{"series":[', b'{"series":[{"prediction":[', b'{"series":[{"id":']
)
@pytest.mark.parametrize("end", [b"", b"}", b"}\n"])
def test_bodies_that_are_not_json_stay_within_memory(start, unit, end):
    """Lists without commas between them were once written past the end of what was set aside."""
    for times in (1, 2, 1000):
        body = start + unit * times + end
        found = [run_within(body, around) for around in (b"1", b" ", b"}", b'"')]
        assert len(set(found)) == 1  # what lies around the body plays no part


@given(bodies())
def test_damaged_bodies_stay_within_memory(body):
    assert len({run_within(body, around) for around in (b"1", b" ", b"}", b'"')}) == 1
