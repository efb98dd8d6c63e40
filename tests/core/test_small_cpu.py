"""What numpy scores before numba is imported, against the compiled loops: every bit."""

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loss_scoring.core import LOSSES, LossSpec, ScoreOptions
from loss_scoring.core.kernels import fused_loops, small_cpu
from loss_scoring.core.kernels.fused_cpu import CHUNK, fused_cpu_kernel
from loss_scoring.core.kernels.small_cpu import small_cpu_kernel, takes

# The defaults, and every loss that needs no library: `loss-scoring compile` has compiled these.
DEFAULT = ScoreOptions().losses
SETS = [
    DEFAULT,
    *((LossSpec(name),) for name, loss in LOSSES.items() if small_cpu._is_exact(loss)),
]
values = st.floats(-4, 4, width=32) | st.sampled_from(
    [0.0, -0.0, 1e-38, 3e38, -3e38, float("inf"), float("nan"), 5e-324]
)


def assert_same(got, want):
    for ours, theirs in zip(got.columns, want.columns, strict=True):
        assert list(ours) == list(theirs)
        for name, column in ours.items():
            assert column.dtype == theirs[name].dtype
            np.testing.assert_array_equal(column, theirs[name], strict=True)
            numbers = ~np.isnan(column)  # of NaN the sign may differ, which nobody sees
            assert column[numbers].tobytes() == theirs[name][numbers].tobytes()


def test_most_losses_need_no_library():
    assert {"mae", "mape", "smape", "mse", "huber", "pinball"} < {x.name for y in SETS for x in y}
    assert "logcosh" not in {x.name for y in SETS for x in y}
    assert (small_cpu.LANES, small_cpu.GROUP) == (fused_loops.LANES, fused_loops.GROUP)
    assert small_cpu._MOST <= CHUNK


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("missing", ["propagate", "skip"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_it_gives_the_bits_of_the_compiled_loops(dtype, missing, data):
    losses = data.draw(st.sampled_from(SETS)) if missing == "propagate" else DEFAULT
    lengths = data.draw(st.lists(st.integers(1, 300) | st.sampled_from([16, 128, 129]), max_size=6))
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    sides = rng.normal(size=(2, offsets[-1])).astype(dtype)
    for number in data.draw(st.lists(values, max_size=8)):
        if sides.size:
            with np.errstate(over="ignore"):
                sides.reshape(-1)[rng.integers(sides.size)] = number
    zero = data.draw(st.sampled_from(["zero", "skip"]))
    options = ScoreOptions(losses, missing=missing, zero_division=zero)
    assert_same(
        small_cpu_kernel(*sides, offsets, options), fused_cpu_kernel(*sides, offsets, options)
    )


@pytest.mark.parametrize("length", [*range(1, 40), 127, 143, 1000, 1025, 5000, 65_536])
def test_series_of_any_length_are_added_in_one_order(length):
    sides = np.random.default_rng(length).lognormal(0, 3, (2, length))
    arguments = *sides, np.array([0, length]), ScoreOptions()
    assert_same(small_cpu_kernel(*arguments), fused_cpu_kernel(*arguments))


@pytest.fixture
def unloaded(monkeypatch):
    """Be as a process that has imported no loops."""
    monkeypatch.delitem(sys.modules, fused_loops.__name__)
    monkeypatch.setattr(small_cpu._Work, "elements", 0)


def test_the_loops_are_loaded_once_there_is_more_to_do(unloaded):
    calls = list(itertools.takewhile(bool, (takes(ScoreOptions(), 72) for _ in range(1000))))
    assert 10 < len(calls) < 1000


def test_what_it_does_not_do_is_left_to_the_loops(unloaded):
    assert takes(ScoreOptions(), 72)
    assert not takes(ScoreOptions(), CHUNK + 1)
    assert not takes(ScoreOptions(gradients=True), 72)
    assert not takes(ScoreOptions((LossSpec("logcosh"),)), 72)
    assert not takes(ScoreOptions((LossSpec("rmse"),)), 72)


def test_loops_that_are_there_are_used():
    assert not takes(ScoreOptions(), 72)
