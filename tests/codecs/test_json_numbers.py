"""Numbers of a body: rounded as Python rounds, and refused wherever JSON refuses."""

import math
import os
import random
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loss_scoring.service.codecs.json import decode_common


def read(prediction, target=None):
    text = f'{{"series": [{{"prediction": {prediction}, "target": {target or prediction}}}]}}'
    return decode_common(text.encode(), 10**6)


def numbers_of(*texts):
    request = read(f"[{', '.join(texts)}]")
    assert request.prediction.values.numpy().tobytes() == request.target.values.numpy().tobytes()
    return request.prediction.values.tolist()


def same_bits(got, want):
    return struct.pack("<d", got) == struct.pack("<d", want)


def expected(text):
    return 0.0 if text == "-0" else float(text)


HARD = [
    "0", "-0", "-0.0", "0e5", "1", "9007199254740993", "9007199254740992.5", "5e-324", "4.9e-324",
    "2.4703282292062327e-324", "2.4703282292062328e-324", "2.2250738585072011e-308",
    "2.2250738585072014e-308", "1.7976931348623157e308", "1.7976931348623158e308", "-1.7976931348623157e308",
    "8.988465674311580e307", "9007199254740991e22", "1e23", "8.5e22",
    "18446744073709551615", "18446744073709551616", "99999999999999999999", "12345678901234567890123",
    "7.2057594037927933e16", "6929495644600919.5", "3.7455744005952583e15", "1e-400", "0.000000000000000000000001",
    "1090544144181609348671888949248", "1e-5000000000",
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
    texts = [text for text in texts if math.isfinite(float(text))]
    for text, got in zip(texts, numbers_of(*texts), strict=True):
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


MALFORMED = [
    "01", "-", "+1", "1.", ".5", "1e", "1e+", "--1", "1.e5", "0x10", "1_0", "1 2", "1,,2", "1,", ",1",
    "nul", "nulll", "NaN", "-Infinity", "Infinity", "1e5.5", "1.2.3", "00", "-01", "1e 5", "\u0661",
    "true", "false", '"1"', "[1],2", "{}", "1,[2]", "1,null,true", "1" * 70, "\x00", "1\x0b", "1\u00a0",
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_not_a_list_of_numbers_is_left_to_the_strict_reader(text):
    assert read(f"[{text}]") is None


@pytest.mark.parametrize(
    "text",
    [
        "1e309",
        "-1e400",
        "1.7976931348623159e308",
        "1e5000000000",
        "179769313486231580793e289",
        "9" * 40 + "e300",
    ],
)
def test_what_is_infinite_is_left_to_the_strict_reader(text):
    assert read(f"[{text}]", "[1]") is None


def test_a_decimal_comma_of_the_locale_costs_time_and_no_digits(tmp_path):
    sources = ["localedef", "-i", "de_DE", "-f", "UTF-8", tmp_path / "de_DE.UTF-8"]
    try:
        subprocess.run(sources, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no sources of locales are installed")
    script = """
import locale
from loss_scoring.service.codecs.json import decode, decode_common
locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
assert locale.localeconv()["decimal_point"] == ","
text = "0.12345678901234567890123"
body = b'{"series": [{"prediction": [%s], "target": [1]}]}' % text.encode()
assert decode_common(body, 1) is None
assert decode(body, max_elements=1).prediction.array[0] == float(text)
"""
    environment = os.environ | {"LOCPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
