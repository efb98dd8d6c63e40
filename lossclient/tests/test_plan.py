from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lossclient.base_client import REQUEST_BYTES
from lossclient.forecasts import Forecasts, Key
from lossclient.options import ScoreOptions
from lossclient.plan import cut, halve, join, plan, weight_of
from lossclient.wire import Part, encode

lengths = st.lists(st.integers(1, 50), max_size=30)
types = st.lists(st.sampled_from([np.float32, np.float64]), min_size=1, max_size=4)


def forecasts_of(lengths, types=(np.float64,), target=np.float64):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.arange(offsets[-1])
    predictions = tuple(values.astype(type_) for type_ in types)
    return Forecasts(offsets, values.astype(target), (None,) * len(types), predictions, Key)


@given(
    lengths, types, st.sampled_from([np.float32, np.float64]), st.integers(1, 2000), st.booleans()
)
def test_parts_are_whole_and_as_large_as_they_may_be(lengths, types, target, limit, gradients):
    forecasts = forecasts_of(lengths, types, target)
    options = ScoreOptions(["mae", "mape"], gradients)
    columns = 2 if gradients else 0
    parts = plan(forecasts, options, limit)
    pairs = [(i, m) for part in parts for i in range(part.start, part.stop) for m in part.models]
    assert sorted(pairs) == [(i, m) for i in range(len(lengths)) for m in range(len(types))]
    for part in parts:
        assert part.rows or not lengths
        assert len({np.result_type(target, types[model]) for model in part.models}) == 1
        assert part.rows <= 1 or weight_of(forecasts, part, columns) <= limit
    for part, after in pairwise(parts):
        if part.models == after.models and part.stop == after.start:
            larger = part._replace(stop=part.stop + 1)
            assert weight_of(forecasts, larger, columns) > limit


@pytest.mark.parametrize("lengths", [[], [3, 1]])
def test_models_go_apart_only_where_they_are_computed_in_different_types(lengths):
    narrow, wide = (
        forecasts_of(lengths, [np.float32, np.float64, np.float32], target)
        for target in (np.float32, np.float64)
    )
    whole = len(lengths)
    assert plan(narrow, ScoreOptions(), 999) == [Part(0, whole, (0, 2)), Part(0, whole, (1,))]
    assert plan(wide, ScoreOptions(), 999) == [Part(0, whole, (0, 1, 2))]


def test_gradients_make_requests_smaller():
    forecasts = forecasts_of([100] * 100)
    plain, heavy = (plan(forecasts, ScoreOptions(gradients=g), 20_000) for g in (False, True))
    assert len(heavy) > 2 * len(plain)
    single = forecasts_of([1], [np.float32], np.float32)
    weight = weight_of(single, Part(0, 1, (0,)), 3)
    assert weight == 4 * (1 + 2 + 3)
    against_double = forecasts_of([1], [np.float32], np.float64)
    assert weight_of(against_double, Part(0, 1, (0,)), 3) == 4 + 8 + 4 + 3 * 8  # gradients too


@given(lengths, st.integers(1, 5), st.data())
def test_halves_are_whole_and_none_is_empty(lengths, models, data):
    assume(len(lengths) > 1)
    start = data.draw(st.integers(0, len(lengths) - 2))
    stop = data.draw(st.integers(start + 2, len(lengths)))
    forecasts = forecasts_of(lengths)
    first, second = halve(forecasts, Part(start, stop, tuple(range(models))))
    assert (first.start, second.stop) == (start, stop)
    assert start < first.stop == second.start < stop
    assert first.models == second.models == tuple(range(models))
    sizes = [sum(lengths[part.start : part.stop]) for part in (first, second)]
    assert abs(sizes[0] - sizes[1]) <= max(lengths[start:stop])


def test_a_single_series_is_halved_between_models():
    halves = halve(forecasts_of([3, 3]), Part(1, 2, (0, 2, 3)))
    assert halves == (Part(1, 2, (0,)), Part(1, 2, (2, 3)))


def test_a_part_of_the_middle_is_cut_within_itself():
    forecasts = forecasts_of([10] * 6)
    parts = list(cut(forecasts, Part(1, 5, (0,)), 2 * 10 * (4 + 16)))
    assert parts == [Part(1, 3, (0,)), Part(3, 5, (0,))]


def test_the_models_of_a_series_go_apart_only_where_it_is_too_large():
    forecasts = forecasts_of([10, 40, 10], [np.float64] * 4)
    limit = 10 * (4 + 8 + 4 * 8)
    parts = list(cut(forecasts, Part(0, 3, (0, 1, 2, 3)), limit))
    assert [part[:2] for part in parts] == [(0, 1), *[(1, 2)] * 4, (2, 3)]
    assert [part.models for part in parts[1:5]] == [(0,), (1,), (2,), (3,)]


@given(lengths, types, st.integers(1, 2000))
def test_answers_are_joined_series_by_series(lengths, types, limit):
    forecasts = forecasts_of(lengths, types)

    def answer_of(part):
        pairs = [(i, m) for i in range(part.start, part.stop) for m in part.models]
        widest = np.result_type(*(types[model] for model in part.models))
        kind = pa.large_list(pa.from_numpy_dtype(widest))
        gradient = pa.array([[float(m)] for _, m in pairs], kind)
        series, models = ([pair[side] for pair in pairs] for side in (0, 1))
        columns = [pa.array(series, pa.int64()), pa.array(models, pa.int64()), gradient]
        return pa.table(columns, ["i", "m", "g"])

    parts = plan(forecasts, ScoreOptions(), limit)
    whole = join(forecasts, {part: [answer_of(part)] for part in reversed(parts)})
    wanted = [(i, m) for i in range(len(lengths)) for m in range(len(types))]
    assert list(zip(whole["i"].to_pylist(), whole["m"].to_pylist(), strict=True)) == wanted
    assert whole["g"].to_pylist() == [[m] for _, m in wanted]
    widest = pa.from_numpy_dtype(np.result_type(*types))
    assert whole.schema.field("g").type == pa.large_list(widest)


def test_a_large_frame_goes_in_as_many_requests_as_the_documents_say():
    forecasts = forecasts_of([24] * 100_000, [np.float64] * 12)
    parts = plan(forecasts, ScoreOptions(), REQUEST_BYTES)
    assert len(parts) == 31
    assert sum(weight_of(forecasts, part) for part in parts) == 259_200_000


@pytest.mark.parametrize("types", [[np.float64], [np.float32] * 5])
def test_a_body_weighs_what_the_plan_says(types):
    forecasts = forecasts_of([100] * 50, types)
    models = tuple(range(len(types)))
    for part in (Part(0, 50, models), Part(20, 30, models), Part(49, 50, models[:1])):
        more = len(encode(forecasts, part)) - weight_of(forecasts, part)
        assert 0 <= more < 1000 + 200 * len(types)
