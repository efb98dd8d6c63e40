import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from lossclient.forecasts import Forecasts, Key
from lossclient.options import ScoreOptions
from lossclient.plan import cut, halve, plan, weight_of
from lossclient.wire import Part, encode

lengths = st.lists(st.integers(0, 50), max_size=30)


def forecasts_of(lengths, models=1, dtype=np.float64):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.arange(offsets[-1], dtype=dtype)
    return Forecasts(offsets, values, (None,) * models, (values,) * models, Key)


@given(lengths, st.integers(1, 2000), st.booleans())
def test_parts_are_whole_in_order_and_as_large_as_they_may_be(lengths, limit, gradients):
    forecasts = forecasts_of(lengths, models=2)
    options = ScoreOptions(["mae", "mape"], gradients)
    parts = plan(forecasts, options, limit)
    weight = weight_of(forecasts, 0, options)
    for model in (0, 1):
        own = [part for part in parts if part.model == model]
        assert [i for part in own for i in range(part.start, part.stop)] == list(
            range(len(lengths))
        )
        for part in own:
            assert part.series or not lengths
            assert part.series <= 1 or weight.of(part, forecasts) <= limit
        for part in own[:-1]:
            assert weight.of(part._replace(stop=part.stop + 1), forecasts) > limit


def test_gradients_make_requests_smaller():
    forecasts = forecasts_of([100] * 100)
    plain, heavy = (plan(forecasts, ScoreOptions(gradients=g), 20_000) for g in (False, True))
    assert len(heavy) > 2 * len(plain)
    single = weight_of(forecasts_of([1], dtype=np.float32), 0, ScoreOptions(gradients=True))
    assert single.element == 4 * (2 + 3)


@given(lengths, st.data())
def test_halves_are_whole_and_none_is_empty(lengths, data):
    assume(len(lengths) > 1)
    start = data.draw(st.integers(0, len(lengths) - 2))
    stop = data.draw(st.integers(start + 2, len(lengths)))
    forecasts = forecasts_of(lengths)
    first, second = halve(forecasts, Part(0, start, stop))
    assert (first.start, second.stop) == (start, stop)
    assert start < first.stop == second.start < stop
    sizes = [sum(lengths[part.start : part.stop]) for part in (first, second)]
    assert abs(sizes[0] - sizes[1]) <= max(lengths[start:stop])


def test_a_part_of_the_middle_is_cut_within_itself():
    forecasts = forecasts_of([10] * 6)
    weight = weight_of(forecasts, 0, ScoreOptions())
    parts = list(cut(forecasts, Part(0, 1, 5), weight, 2 * (160 + 16)))
    assert parts == [Part(0, 1, 3), Part(0, 3, 5)]


def test_a_body_weighs_what_the_plan_says():
    forecasts = forecasts_of([100] * 50)
    weight = weight_of(forecasts, 0, ScoreOptions())
    for part in (Part(0, 0, 50), Part(0, 20, 30), Part(0, 49, 50)):
        assert 0 <= len(encode(forecasts, part)) - weight.of(part, forecasts) < 1000
