"""Answers from templates are those that pyarrow writes of the same columns."""

import dataclasses
import itertools

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import pair, read, scored, write

from loss_scoring.core import LossSpec, ScoreOptions, Scores
from loss_scoring.service.codecs import json
from loss_scoring.service.codecs.arrow.write import LARGE
from loss_scoring.service.codecs.codec import encode

LOSSES = [("mae",), ("mape", "mae"), ("mae", "mape", "smape")]
SIZES = [1, 2, 3, 7, 8, 9, 63, 64, 65, 600]
KINDS = {
    "list": pa.list_(pa.float64()),
    "list of floats": pa.list_(pa.float32()),
    "large": pa.large_list(pa.float64()),
    "large of floats": pa.large_list(pa.float32()),
    "not null": pa.list_(pa.field("item", pa.float32(), nullable=False)),
    "fixed": pa.list_(pa.float32(), 3),
    "channels": pa.list_(pa.list_(pa.float64(), 2)),
    "large of channels": pa.large_list(pa.list_(pa.float32(), 2)),
    "fixed of channels": pa.list_(pa.list_(pa.float32(), 2), 3),
}
IDS = {
    "none": lambda _: None,
    "text": lambda n: pa.array([f"store-{i}" for i in range(n)]),
    "large text": lambda n: pa.array([f"store-{i}" for i in range(n)], pa.large_string()),
    "views": lambda n: pa.array(["a longer name than fits " * (i % 2) for i in range(n)]).cast(
        pa.string_view()
    ),
    "short views": lambda n: pa.array([str(i) for i in range(n)], pa.string_view()),
    "coded": lambda n: pa.array([f"store-{i % 3}" for i in range(n)]).dictionary_encode(),
    "coded numbers": lambda n: pa.array(np.arange(n) % 3).dictionary_encode(),
    "bytes": lambda n: pa.array(np.arange(n) % 100, pa.int8()),
    "unsigned": lambda n: pa.array(np.arange(n), pa.uint64()),
}


def lists(type_, lengths, rng):
    """Return series of these lengths; their elements are whole numbers, 0 among them."""
    if not pa.types.is_nested(type_):
        return pa.array(rng.integers(-1, 3, int(lengths.sum())).astype(type_.to_pandas_dtype()))
    if pa.types.is_fixed_size_list(type_):
        inner = lists(type_.value_type, np.array([lengths.sum() * type_.list_size]), rng)
        return pa.FixedSizeListArray.from_arrays(inner, type=type_)
    is_large = pa.types.is_large_list(type_)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64 if is_large else np.int32)
    inner = lists(type_.value_type, lengths, rng)
    made = pa.LargeListArray if is_large else pa.ListArray
    return made.from_arrays(offsets, inner, type=type_)


def request_of(kind, ids, options, rows, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 5, rows)
    if pa.types.is_fixed_size_list(kind):
        lengths = np.ones(rows, int)
    table = pair(lists(kind, lengths, rng), lists(kind, lengths, rng))
    return read(write(table if ids is None else table.add_column(0, "id", ids)), options)


def by_pyarrow(request, scores, ids, kind):
    """Return the answer as pyarrow makes and writes it."""
    losses, masked, gradients = scores.arrays()
    columns = {
        "id": pa.array(np.arange(len(request.prediction))) if ids is None else ids,
        "length": pa.array(request.prediction.lengths),
    }
    columns |= {name: pa.array(values, from_pandas=True) for name, values in losses.items()}
    columns |= {f"{name}_masked": pa.array(counts) for name, counts in masked.items()}
    for name, flat in gradients.items():
        columns[f"{name}_gradient"] = nested(kind, request.prediction.offsets, pa.array(flat))
    return pa.table(columns)


def nested(type_, offsets, flat):
    if not pa.types.is_nested(type_):
        return flat
    if pa.types.is_fixed_size_list(type_):
        return pa.FixedSizeListArray.from_arrays(nested(type_.value_type, None, flat), type=type_)
    if pa.types.is_nested(type_.value_type):
        offsets = offsets // type_.value_type.list_size
    is_large = pa.types.is_large_list(type_)
    made, dtype = (pa.LargeListArray, np.int64) if is_large else (pa.ListArray, np.int32)
    inner = nested(type_.value_type, None, flat)
    return made.from_arrays(offsets.astype(dtype), inner, type=type_)


def assert_written(request, scores, ids, kind, *, same_bytes=True):
    parts = encode(request, scores, "arrow")
    body = b"".join(parts)
    table = pa.ipc.open_stream(body).read_all()
    table.validate(full=True)
    expected = by_pyarrow(request, scores, ids, kind)
    assert table.schema.equals(expected.schema, check_metadata=True)
    assert table.equals(expected)
    if same_bytes:
        assert body == write(expected)
    return parts


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_answer_is_what_pyarrow_writes(kind, gradients):
    for (seed, rows), names in itertools.product(enumerate(SIZES), LOSSES):
        losses = tuple(LossSpec(name) for name in names)
        options = ScoreOptions(losses, gradients=gradients)
        request = request_of(kind, None, options, rows, seed)
        assert_written(request, scored(request), None, kind)


@pytest.mark.parametrize("rows", SIZES)
def test_losses_without_an_element_left_are_null(rows):
    options = ScoreOptions(gradients=True, zero_division="skip")
    kind = KINDS["list"]
    request = request_of(kind, None, options, rows, 7)
    scores = scored(request)
    assert rows < 60 or np.isnan(scores.arrays()[0]["mape"]).any()
    assert_written(request, scores, None, kind)


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("rows", [1, 2, 13, 600])
def test_ids_come_back_in_their_type(name, rows):
    ids = IDS[name](rows)
    request = request_of(KINDS["large"], ids, ScoreOptions(gradients=True), rows, 3)
    # The texts of views are laid out again, and dictionaries come padded.
    same = "view" not in name and "coded" not in name
    assert_written(request, scored(request), ids, KINDS["large"], same_bytes=same)


def test_ids_that_start_later_are_laid_out_again():
    ids = pa.array(["left out", "a", "b"])[1:]
    request = request_of(KINDS["list"], None, ScoreOptions(), 2, 0)
    request = dataclasses.replace(request, ids=ids)
    assert_written(request, scored(request), ids, KINDS["list"])


def test_an_answer_to_json_has_large_lists():
    for ids, type_ in ((["a", "b"], pa.string()), ([7, -1], pa.int64())):
        series = [{"id": i, "prediction": [[1, 2]], "target": [[2, 1]]} for i in ids]
        body = orjson.dumps({"series": series, "gradients": True})
        request = json.decode(body, max_elements=9)
        kind = pa.large_list(pa.list_(pa.float64(), 2))
        assert_written(request, scored(request), pa.array(ids, type_), kind)


def test_what_is_large_is_not_copied():
    kind = KINDS["list"]
    rng = np.random.default_rng(1)
    table = pair(*(lists(kind, np.full(100, 200), rng) for _ in range(2)))
    request = read(write(table), ScoreOptions(gradients=True))
    scores = scored(request)
    parts = assert_written(request, scores, None, kind)
    gradients = scores.arrays()[2].values()
    shared = [
        np.shares_memory(np.frombuffer(part, np.uint8), g) for part in parts for g in gradients
    ]
    assert sum(shared) == len(gradients)
    assert all(part.nbytes >= LARGE or i % 2 == 0 for i, part in enumerate(parts))


def test_metadata_and_names_within_a_type_do_not_reach_another_answer():
    plain, named = (
        pa.list_(pa.field(name, pa.float64(), metadata=metadata))
        for name, metadata in (("item", None), ("element", {"owner": "someone else"}))
    )
    for kind in (named, plain):
        request = request_of(kind, None, ScoreOptions(gradients=True), 3, 0)
        assert_written(request, scored(request), None, plain)


@settings(deadline=None, max_examples=200)
@given(
    values=st.lists(st.floats(width=64), min_size=1, max_size=70),
    kind=st.sampled_from(["list", "large of floats"]),
)
def test_any_scores_are_written(values, kind):
    rows = len(values)
    options = ScoreOptions(gradients=True, missing="skip")  # else no loss can be NaN
    request = request_of(KINDS[kind], None, options, rows, rows)
    rng = np.random.default_rng(rows)
    dtype = np.float32 if "floats" in kind else np.float64
    names = ("mae", "mape", "smape")
    scores = Scores(
        {name: rng.permutation(np.array(values)) for name in names},
        {name: rng.integers(0, 1 << 62, rows) for name in names[1:]},
        {name: rng.random(request.prediction.elements).astype(dtype) for name in names},
    )
    assert_written(request, scores, None, KINDS[kind])
