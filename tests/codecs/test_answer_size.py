"""The size of an answer is known before it is built, whatever its names hold."""

import decimal

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import answers, pair, read, write
from test_long import read_long

from loss_scoring.core import LossSpec, ScoreOptions, score
from loss_scoring.service.codecs.arrow.names import names_bytes
from loss_scoring.service.codecs.codec import encode
from loss_scoring.service.errors import InvalidError

NASTY = '\x00\x1f\x7f"\\/\b\t\n\f\r é€𝄞a'
TEXTS = [NASTY, "", "plain", "\x01" * 80]
text = st.text(st.sampled_from(NASTY), max_size=40)


@given(names=st.lists(text, min_size=1, max_size=20), times=st.integers(1, 3))
@settings(max_examples=60)
@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_texts_are_counted_as_json_writes_them(type_, names, times):
    written = sum(len(orjson.dumps(name)) + 1 for name in names)
    column = pa.array(["x", *names], type_).slice(1)
    coded = pa.DictionaryArray.from_arrays(pa.array([*range(len(names)), 0]), column)
    again = len(orjson.dumps(names[0])) + 1
    assert names_bytes(pa.chunked_array([column]), times).json == times * written
    assert names_bytes(pa.chunked_array([coded]), times).json == times * (written + again)


KEYS = {
    "text": pa.array(TEXTS),
    "large text": pa.array(TEXTS, pa.large_string()),
    "view": pa.array(TEXTS, pa.string_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "dictionary of views": pa.DictionaryArray.from_arrays([0, 1, 2, 3], pa.array(TEXTS, pa.string_view())),
    "dictionary of times": pa.array([-(2**62), 0, 1, 2], pa.timestamp("ns")).dictionary_encode(),
    "integers": pa.array([-(2**63), 2**63 - 1, 0, 1]),
    "unsigned": pa.array([2**64 - 1, 0, 1, 2], pa.uint64()),
    "booleans and more": pa.array([True, False, True, False]),
    "floats": pa.array([-2.2250738585072014e-308, np.inf, 0.1, -1.0]),
    "seconds": pa.array([-(2**61), 2**62, 0, 1], pa.timestamp("s", "UTC")),
    "nanoseconds": pa.array([-(2**62), 1, 2, 3], pa.timestamp("ns", "UTC")),
    "days": pa.array([-(2**31) + 1, 2**31 - 1, 0, 1], pa.date32()),
    "times": pa.array([1, 2, 3, 4], pa.time64("ns")),
    "decimals": pa.array([decimal.Decimal(f"-{'9' * 76}"), *map(decimal.Decimal, range(3))], pa.decimal256(76, 0)),
}  # fmt: skip


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_no_answer_is_larger_than_was_reserved(keys, gradients):
    tiny = np.full(4, 1.2345678901234567e-300)
    table = pa.table(
        {
            "k": keys,
            "n": np.arange(4),
            "y": -tiny,
            NASTY: tiny,
            "é" * 200: tiny,
            "x\x02-lo-90": tiny,
        }
    )
    query = {"group_columns": "k,n"}
    for options in (ScoreOptions(gradients=gradients), ScoreOptions((LossSpec("mae"),), gradients)):
        check(read_long(write(table), query, options))
    lists = pa.array([[-2.2250738585072014e-308]] * 4)
    try:
        request = read(write(pair(lists, id=keys)), ScoreOptions(gradients=gradients))
    except InvalidError:
        return  # of a type that no id has
    check(request)


def check(request):
    made = {}
    for format_ in ("arrow", "json"):
        request.estimate(format_, 100)
        made[format_] = request.answer_bytes
    _, as_json = answers(request)
    as_arrow = b"".join(encode(request, scores_of(request), "arrow"))
    assert len(as_json) <= made["json"]
    assert len(as_arrow) <= made["arrow"]


def scores_of(request):
    return score(
        request.prediction, request.target, request.options.losses,
        gradients=request.options.gradients,
    )  # fmt: skip
