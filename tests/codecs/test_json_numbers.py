"""Numbers lifted out of a body: rounded as Python rounds, and refused wherever JSON refuses."""

import json as stdlib
import math
import random
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.codecs import json
from service.codecs.json_lifted import decode_lifted
from service.codecs.json_loops import count_commas, deal_lists, lift_lists
from service.codecs.json_numbers import lift
from service.errors import ServiceError


def numbers_of(*texts):
    lifted = lift(f'{{"x": [{", ".join(texts)}]}}'.encode())
    assert lifted is not None
    assert lifted.skeleton == b'{"x": [0]}'
    assert lifted.counts.tolist() == [len(texts)]
    return lifted.numbers


def same_bits(got, want):
    return struct.pack("<d", got) == struct.pack("<d", want)


def expected(text):
    return 0.0 if text == "-0" else float(text)


HARD = [
    "0", "-0", "-0.0", "0e5", "1", "9007199254740993", "9007199254740992.5", "5e-324", "4.9e-324",
    "2.4703282292062327e-324", "2.4703282292062328e-324", "2.2250738585072011e-308",
    "2.2250738585072014e-308", "1.7976931348623157e308", "1.7976931348623158e308", "1e309", "-1e400",
    "1.7976931348623159e308", "8.988465674311580e307", "9007199254740991e22", "1e23", "8.5e22",
    "18446744073709551615", "18446744073709551616", "99999999999999999999", "12345678901234567890123",
    "7.2057594037927933e16", "6929495644600919.5", "3.7455744005952583e15", "1e-400", "0.000000000000000000000001",
    "1090544144181609348671888949248", "179769313486231580793e289", "1e5000000000", "1e-5000000000",
    "9.5367431640625e-07", "36028797018963970e-3", "1.1754943508222875e-38", "123456789012345678e-360",
]  # fmt: skip


def test_hard_numbers():
    for text, got in zip(HARD, numbers_of(*HARD), strict=True):
        assert same_bits(got, expected(text)), text


def test_random_numbers():
    make = random.Random(0)
    texts = []
    for _ in range(60_000):
        digits = make.randint(1, 21)
        mantissa = str(make.randint(0, 10**digits))
        point = make.randint(0, len(mantissa) - 1)
        text = mantissa[: point + 1] + (
            "." + mantissa[point + 1 :] if mantissa[point + 1 :] else ""
        )
        text = text.lstrip("0") if not text.startswith(("0.", "0")) else "0" + text.lstrip("0")
        text = "0" if text in {"", "."} else "0" + text if text.startswith(".") else text
        if make.random() < 0.5:
            text += f"e{make.randint(-345, 310)}"
        texts.append(make.choice(["", "-"]) + text)
    patterns = np.frombuffer(make.randbytes(8 * 60_000), np.float64)
    texts += [repr(x) for x in patterns.tolist() if math.isfinite(x)]
    texts = [text for text in texts if not text.endswith(".")]
    for start in range(0, len(texts), 3000):  # few enough for those left to float()
        some = texts[start : start + 3000]
        for text, got in zip(some, numbers_of(*some), strict=True):
            assert same_bits(got, expected(text)), text


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_what_python_prints_is_read_back(values):
    got = numbers_of(*map(repr, values))
    assert all(map(same_bits, got, values))


@given(st.integers(1, 2**53 - 1), st.integers(-1074, 971))
def test_halfway_between_two_floats(mantissa, power):
    """The exact decimal of a midpoint has up to 767 digits; those of at most 60 are tried."""
    from fractions import Fraction

    midpoint = Fraction(2 * mantissa + 1) * Fraction(2) ** (power - 1)
    if midpoint.denominator == 1 and midpoint < 10**60:
        text = str(int(midpoint))
        assert same_bits(numbers_of(text)[0], float(text))


@pytest.mark.parametrize("unit", [b"[1]", b"[1 ]", b"[1][2,3]", b'{"a":[1]}'])
def test_more_lists_than_commas_allow_stay_within_memory(unit):
    """They used to be written past the end of what was set aside for them."""
    assert lift(b'{"series":' + unit * 100_000 + b"}") is None


MALFORMED = [
    "01", "-", "+1", "1.", ".5", "1e", "1e+", "--1", "1.e5", "0x10", "1_0", "1 2", "1,,2", "1,", ",1",
    "nul", "nulll", "NaN", "-Infinity", "Infinity", "1e5.5", "1.2.3", "00", "-01", "1e 5", "\u0661",
    "true", "false", '"1"', "[1]", "{}", "1,[2]", "1,null,true", "1" * 70, "\x00", "1\x0b", "1\u00a0",
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_not_a_list_of_numbers_is_never_lifted_as_one(text):
    lifted = lift(f'{{"x": [{text}]}}'.encode())
    if lifted is not None:  # then it stands in the skeleton as it was
        assert lifted.skeleton != b'{"x": [0]}'


def outcome(reader, body):
    try:
        request = reader(body, 10**6)
    except ServiceError as error:
        return type(error), str(error), getattr(error, "errors", None)
    return (
        request.prediction.values.numpy().tobytes(),
        request.target.values.numpy().tobytes(),
        request.prediction.values.dtype,
        request.prediction.offsets.tolist(),
        request.options,
        request.id_list(),
        None if request.channels is None else request.channels.tolist(),
    )


number = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**25), 10**25),
    st.sampled_from([0, 0.0, -0.0, 1e308, 3.5e38]),
)
odd_value = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.builds(list),
    st.builds(dict),
    st.lists(number),
)


@st.composite
def documents(draw):
    nested = draw(st.sampled_from([False, False, True]))
    series = []
    for _ in range(draw(st.integers(0, 4))):
        length = draw(st.integers(1, 4))
        width = draw(st.integers(1, 3))
        row = st.lists(number, min_size=width, max_size=width) if nested else number
        one = {
            side: draw(st.lists(row, min_size=length, max_size=length))
            for side in ("prediction", "target")
        }
        if draw(st.booleans()):
            one["id"] = draw(st.one_of(st.integers(), st.text(max_size=5), st.just(":[1,2]{")))
        if draw(st.integers(0, 9)) == 0:
            one[draw(st.sampled_from(["prediction", "target", "id", "other"]))] = draw(odd_value)
        if draw(st.integers(0, 9)) == 0 and isinstance(one["target"], list) and one["target"]:
            one["target"][-1] = draw(odd_value)
        order = draw(st.permutations(list(one)))
        series.append({name: one[name] for name in order})
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
        b"null",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b'"',
        b"1e999",
        b"-",
        b"0",
        b".",
        b"\\",
        b" ",
        b"\xff",
        b'"id":1,',
        b'"target":[1],',
        b"NaN",
        b"false",
    ]
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        at = draw(st.integers(0, len(body)))
        cut = draw(st.sampled_from([0, 0, 1, 5]))
        body[at : at + cut] = draw(st.sampled_from([b"", *tokens]))
    return bytes(body)


@settings(max_examples=1500, deadline=None)
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
@example(b'{"series": [[0]]}')
@example(b'{"series": [0]}')
@example(b'{"series": []}')
@example(b"{}")
@example(b"")
def test_both_readers_agree(body):
    strict = outcome(json._decode_strictly, body)
    assert outcome(lambda b, n: json.decode(b, max_elements=n), body) == strict
    fast = decode_lifted(body, 10**6)
    if fast is not None:
        assert outcome(lambda *_: fast, body) == strict


ORDINARY = {
    "plain": '{"series": [{"prediction": [1, 2.5], "target": [3, 4e0]}, {"prediction": [1], "target": [2]}]}',
    "with ids": '{"series": [{"id": "a:b", "prediction": [1.25], "target": [3]}, {"id": "c", "target": [1], "prediction": [2]}]}',
    "options": '{"losses": ["mae"], "gradients": true, "dtype": "float32", "series": [{"prediction": [1], "target": [3]}]}',
    "missing": '{"missing": "skip", "series": [{"prediction": [1, null], "target": [3, 4]}]}',
    "channels": '{"series": [{"prediction": [[1, 2], [3, 4]], "target": [[1, 2], [3, 4]]}]}',
    "spread out": '{"series" : [ { "prediction" : [ 1 , 2\n], "target":\t[ 1.0, 2 ] } ] }',
}


@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_bodies_are_lifted(text):
    assert decode_lifted(text.encode(), 100) is not None


def test_no_request_compiles_after_the_warm_up():
    """Each kind of array that a loop meets is a compilation, which takes seconds."""
    json.warm_up()
    loops = count_commas, lift_lists, deal_lists
    compiled = [len(loop.signatures) for loop in loops]
    for text in ORDINARY.values():
        body = text.replace("]}]}", "]}, " + text.split('"series"', 1)[1].lstrip(" :[")).encode()
        for buffer in (
            text.encode(),
            memoryview(text.encode()),
            memoryview(bytearray(text.encode())),
            body,
        ):
            assert decode_lifted(buffer, 100) is not None
    assert [len(loop.signatures) for loop in loops] == compiled == [1, 1, 2]
