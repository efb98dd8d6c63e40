"""Weights and scales in JSON, in Arrow's lists and in the long form."""

import io
import json
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loss_scoring.service.codecs.codec import Codec, Formats, encode
from loss_scoring.service.codecs.request import UNLIMITED
from loss_scoring.service.engine.scorer import Slice
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.errors import InvalidError

LIMITS = Codec(1 << 24, 1 << 24, 1 << 16, 1 << 16)
OPTIONS = {"losses": "mae,mase", "gradients": "true"}
LONG = {"group_columns": "unique_id", "weight_column": "w", "scale_column": "s"}
WEIGHT = "it must be finite and at least 0"


def decoded(body, format_="json", **query):
    formats, text = Formats(format_, format_, "identity"), urlencode(query).encode()
    sent = memoryview(bytearray(body)), formats, text, UNLIMITED
    return LIMITS.decode_common(*sent) or LIMITS.decode(*sent)


def scored(request):
    scores = DeviceWorker(torch.device("cpu")).score(Slice(*request.columns))
    assert not isinstance(scores, Exception), scores
    return scores


def answered(request, format_):
    answer = b"".join(encode(request, scored(request), format_))
    if format_ == "json":
        return json.loads(answer)
    return pa.ipc.open_stream(answer).read_all().to_pydict()


def as_json(series, **options):
    return json.dumps({"losses": ["mae", "mase"], "gradients": True, "series": series} | options)


def as_arrow(table):
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write(table)
    return out.getvalue()


def lists_of(series):
    return pa.table({name: [x[name] for x in series] for name in series[0]})


def rows_of(series):
    names = {"prediction": "A", "target": "y", "weight": "w"}
    rows = {column: [value for x in series for value in x[name]] for name, column in names.items()}
    sizes = [len(x["target"]) for x in series]
    for column, name in (("unique_id", "id"), ("s", "scale")):
        rows[column] = np.repeat(np.array([x[name] for x in series], object), sizes).tolist()
    return pa.table(rows)


number = st.floats(-1e6, 1e6).map(lambda x: x + 0.0)
weight = st.sampled_from([0.0, 0.25, 1.0, 3.5])


@st.composite
def one_series(draw):
    size = draw(st.integers(1, 5))
    column = {
        name: draw(st.lists(kind, min_size=size, max_size=size))
        for name, kind in (("prediction", number), ("target", number), ("weight", weight))
    }
    return column | {"scale": draw(st.sampled_from([0.0, 0.1, 7.0]))}


@given(st.lists(one_series(), min_size=1, max_size=5))
def test_all_formats_have_the_same_bits(series):
    series = [{"id": f"s{i}", **x} for i, x in enumerate(series)]
    requests = [
        decoded(as_json(series).encode()),
        decoded(as_arrow(lists_of(series)), "arrow", **OPTIONS),
        decoded(as_arrow(rows_of(series)), "arrow", **OPTIONS, **LONG),
    ]
    first, *others = [scored(request).arrays() for request in requests]
    for other in others:
        for columns, expected in zip(other, first, strict=True):
            assert {name: x.tobytes() for name, x in columns.items()} == {
                name: x.tobytes() for name, x in expected.items()
            }
    in_json, in_arrow, long = (
        answered(requests[0], "json"),
        answered(requests[1], "arrow"),
        answered(requests[2], "arrow"),
    )
    for loss in ("mae", "mase"):
        assert in_json["losses"][loss] == in_arrow[loss] == long[loss]
        masked = in_json["masked"][loss]
        assert masked == in_arrow[f"{loss}_masked"] == long[f"{loss}_masked"]
        assert in_json["gradients"][loss] == in_arrow[f"{loss}_gradient"]


SERIES = {"id": "a", "prediction": [1, 4], "target": [2, 2], "weight": [3, 1], "scale": 2}


def test_models_of_a_long_table_share_weights_and_scales():
    table = pa.table(
        {"unique_id": ["a", "b", "a"], "y": [2.0, 3, 2], "A": [1.0, 3, 4], "B": [3.0, 3, 2]}
        | {"w": [3, 0, 1], "s": [2.0, 0, 2]}
    )
    request = decoded(as_arrow(table), "arrow", **OPTIONS, **LONG)
    answer = answered(request, "json")
    assert answer["models"] == ["A", "B", "A", "B"]
    assert answer["losses"] == {
        "mae": [1.25, 0.75, None, None],
        "mase": [0.625, 0.375, None, None],
    }
    assert answer["masked"] == {"mae": [0, 0, 1, 1], "mase": [0, 0, 1, 1]}


def test_weights_have_the_shape_of_the_target():
    rows = {"prediction": [[1, 2], [3, 4]], "target": [[1, 1], [1, 1]], "scale": 1}
    request = decoded(as_json([rows | {"weight": [[1, 0], [0, 3]]}]).encode())
    assert answered(request, "json")["losses"]["mae"] == [2.25]
    table = lists_of([rows | {"weight": [[1, 0], [0, 3]]}])
    fixed = pa.list_(pa.list_(pa.float64(), 2))
    for name in ("prediction", "target", "weight"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(fixed))
    request = decoded(as_arrow(table), "arrow", **OPTIONS)
    assert answered(request, "arrow")["mae"] == [2.25]
    refused([rows | {"weight": [1, 0, 0, 3]}], "/series/0", "differ in shape")


@pytest.mark.parametrize("loss", ["mae", "mape", "wape"])
@pytest.mark.parametrize("missing", ["error", "propagate"])
def test_a_series_without_weight_is_null(loss, missing):
    series = [without("scale") | {"weight": [0, 0]}, without("scale")]
    body = as_json(series, losses=[loss], missing=missing).encode()
    assert answered(decoded(body), "json")["losses"][loss][0] is None
    query = {"losses": loss, "missing": missing}
    request = decoded(as_arrow(lists_of(series)), "arrow", **query)
    stream = b"".join(encode(request, scored(request), "arrow"))
    table = pa.ipc.open_stream(stream).read_all()
    assert table[loss].is_null().to_pylist() == [True, False]
    assert table[f"{loss}_masked"].to_pylist() == [2, 0]


def test_integers_and_a_null_scale_are_taken():
    series = [SERIES, SERIES | {"id": "b", "scale": None}, SERIES | {"id": "c", "scale": 10**400}]
    request = decoded(as_json(series).encode())
    assert request.weights.tolist() == [3, 1] * 3
    assert answered(request, "json")["losses"]["mase"] == [0.625, None, None]


def refused(series, pointer, detail, **options):
    with pytest.raises(InvalidError) as caught:
        decoded(as_json(series, **options).encode())
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert detail in caught.value.errors[0].detail


def without(*names):
    return {name: value for name, value in SERIES.items() if name not in names}


@pytest.mark.parametrize(
    ("series", "pointer", "detail"),
    [
        ([SERIES | {"weight": [3, -1]}], "/series/0/weight/1", f"of series a is -1; {WEIGHT}"),
        ([SERIES | {"weight": [3, None]}], "/series/0/weight/1", f"of series a is null; {WEIGHT}"),
        ([SERIES | {"weight": [3, 10**400]}], "/series/0/weight/1", "is too large for float64"),
        ([SERIES | {"weight": [True, 1]}], "/series/0/weight/0", "not a boolean"),
        ([SERIES | {"weight": [1]}], "/series/0", "and weight (1 elements) of series a differ"),
        ([SERIES | {"weight": None}], "/series/0/weight", "must be a list of numbers, not null"),
        ([SERIES | {"scale": "2"}], "/series/0/scale", "must be a number or null, not a string"),
        ([SERIES, without("weight")], "/series/1/weight", "of series a is absent, but not of the"),
        ([without("weight"), SERIES], "/series/1/weight", "of series a is given, but not of the"),
        ([SERIES, without("scale")], "/series/1/scale", "of series a is absent, but not of the"),
        ([without("scale")], "/series/0/scale", "of series a is absent; mase must have one"),
    ],
)
def test_json_is_refused_with_the_place(series, pointer, detail):
    refused(series, pointer, detail)


def test_a_scale_that_no_loss_takes_is_refused():
    refused([SERIES], "/series/0/scale", "none of the losses asked for takes", losses=["mae"])
    with pytest.raises(InvalidError, match="/scale: none of the losses"):
        decoded(as_arrow(lists_of([SERIES])), "arrow", losses="mae")
    with pytest.raises(InvalidError, match=r"\?scale_column: none of the losses"):
        decoded(as_arrow(rows_of([SERIES])), "arrow", losses="mae", **LONG)


@pytest.mark.parametrize(
    ("change", "pointer", "detail"),
    [
        ({"weight": [3.0, -1]}, "/weight/0/1", f"of series a is -1; {WEIGHT}"),
        ({"weight": [None, 1.0]}, "/weight/0/0", f"of series a is nan; {WEIGHT}"),
        ({"weight": [1.0]}, "/prediction/0", "has 2 elements, its weight 1"),
        ({"weight": None}, "/weight", "must be lists of numbers"),
        ({"scale": "x"}, "/scale", "must be numbers, not string"),
    ],
)
def test_arrow_is_refused_with_the_place(change, pointer, detail):
    with pytest.raises(InvalidError) as caught:
        decoded(as_arrow(lists_of([SERIES | change])), "arrow", **OPTIONS)
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert detail in caught.value.errors[0].detail


def test_a_column_of_scales_is_needed_by_scaled_losses():
    with pytest.raises(InvalidError, match="/scale: the column is absent; mase must have it"):
        decoded(as_arrow(lists_of([without("scale")])), "arrow", **OPTIONS)
    query = {name: text for name, text in (OPTIONS | LONG).items() if name != "scale_column"}
    with pytest.raises(InvalidError, match=r"\?scale_column: must name a column: mase"):
        decoded(as_arrow(rows_of([SERIES])), "arrow", **query)


@pytest.mark.parametrize(
    ("column", "cells", "pointer", "detail"),
    [
        ("w", [3.0, -1], "/w/1", "of the series unique_id='a' is -1; a weight must be finite"),
        ("w", [None, 1.0], "/w/0", "of the series unique_id='a' is nan"),
        ("s", [2.0, 3], "/s/1", "is 3; a series has one scale, the same in all its rows"),
        ("w", ["x", "y"], "/w", "must hold numbers, not string"),
    ],
)
def test_the_long_form_is_refused_with_the_place(column, cells, pointer, detail):
    table = rows_of([SERIES])
    table = table.set_column(table.schema.get_field_index(column), column, pa.array(cells))
    with pytest.raises(InvalidError) as caught:
        decoded(as_arrow(table), "arrow", **OPTIONS, **LONG)
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert detail in caught.value.errors[0].detail


def test_a_column_that_is_named_twice_is_refused():
    for name in ("y", "A", "unique_id"):
        query = OPTIONS | LONG | {"weight_column": name, "prediction_columns": "A"}
        with pytest.raises(InvalidError):
            decoded(as_arrow(rows_of([SERIES])), "arrow", **query)


def test_copies_of_weights_are_reserved():
    request = decoded(as_json([SERIES]).encode())
    with_them = request.estimate("json", 1 << 20)
    request.weights = request.scales = None
    assert with_them - request.estimate("json", 1 << 20) == 2 * 8 + 8
