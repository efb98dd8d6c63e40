"""``score`` and what it refuses; ``Ragged``; options."""

import copy
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loss_scoring.core import (
    DEFAULT_LOSSES,
    LOSSES,
    LossSpec,
    MissingValueError,
    Ragged,
    ScoreOptions,
    Scores,
    find_missing,
    may_be_missing,
    score,
    scoring,
)
from loss_scoring.core.kernels import kernel_for
from loss_scoring.core.kernels.plain import plain_kernel

UNSCALED = [name for name, loss in LOSSES.items() if not loss.scaled]


def ragged(*series, dtype=torch.float64):
    return Ragged.from_series([torch.tensor(one, dtype=dtype) for one in series])


def test_score_by_hand():
    p, y = ragged([1.0, 4.0], [3.0]), ragged([2.0, 2.0], [0.0])
    scores = score(p, y, gradients=True)
    assert scores.values["mae"].tolist() == [1.5, 3.0]
    assert scores.values["mape"].tolist() == [0.75, 0.0]
    assert scores.values["smape"].tolist() == pytest.approx([1 / 3, 1.0])
    assert {name: column.tolist() for name, column in scores.masked.items()} == {
        "mape": [0, 1],
        "smape": [0, 0],
    }
    assert scores.gradients["mae"].tolist() == [-0.5, 0.5, 1.0]
    assert score(p, y, ["mae"]).gradients == {}


def test_score_refuses_what_it_cannot_mean():
    p = ragged([1.0, 2.0])
    with pytest.raises(ValueError, match="same dtype"):
        score(p, ragged([1.0, 2.0], dtype=torch.float32))
    with pytest.raises(ValueError, match="same offsets"):
        score(p, ragged([1.0], [2.0]))
    with pytest.raises(ValueError, match="more than once"):
        score(p, p, ["mae", "mae"])
    with pytest.raises(ValueError, match="unknown loss 'mad'"):
        score(p, p, ["mad"])
    with pytest.raises(ValueError, match="empty"):
        score(p, p, [])


def test_missing_values_are_found_and_named():
    nan, inf = float("nan"), float("inf")
    p = ragged([1.0], [1.0, nan, nan], [1.0], [2.0, 2.0])
    y = ragged([1.0], [inf, 1.0, 1.0], [1.0], [2.0, nan])
    assert find_missing(p, y) == (2, [(1, "prediction", 1), (3, "target", 1)])
    assert find_missing(p, y, limit=1) == (2, [(1, "prediction", 1)])
    assert find_missing(p.slice(0, 1), y.slice(0, 1)).affected == 0
    for losses in (["mae"], ["mape"], ["smape"], ["mape", "smape"], UNSCALED):
        scores = score(p, y, losses, missing="propagate")
        assert may_be_missing(scores)
    with pytest.raises(MissingValueError, match="2 series hold") as caught:
        score(p, y)
    assert caught.value.missing == find_missing(p, y)
    skipped = score(p, y, missing="skip").values["mae"].tolist()
    assert skipped == pytest.approx([0.0, nan, 0.0, 0.0], nan_ok=True)


@given(
    st.lists(
        st.lists(
            st.tuples(
                *[
                    st.sampled_from(
                        [0.0, 1.0, -2.5, 3e38, -3e38, 1e-45, math.nan, math.inf, -math.inf]
                    )
                ]
                * 2
            ),
            min_size=1,
            max_size=40,
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([["mae"], ["mape"], ["smape"], ["mape", "smape"], ["mae", "mape", "smape"]]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_a_missing_element_leaves_a_trace_in_the_scores(pairs, losses, dtype):
    p, y = (
        Ragged.from_series(
            [torch.tensor([pair[side] for pair in one], dtype=dtype) for one in pairs]
        )
        for side in (0, 1)
    )
    for kernel in (plain_kernel, kernel_for(torch.device("cpu"))):
        options = ScoreOptions(tuple(map(LossSpec, losses)))
        scores = kernel(p.values, y.values, p.offsets, options)
        affected = sum(not math.isfinite(sum(map(sum, one))) for one in pairs)
        assert find_missing(p, y).affected == affected
        assert may_be_missing(scores) or not affected


def test_specs_and_options_check_themselves():
    with pytest.raises(ValueError, match="mae does not take block_denom_grad"):
        LossSpec("mae", block_denom_grad=False)
    assert [spec.name for spec in ScoreOptions().losses] == list(DEFAULT_LOSSES)
    assert hash(ScoreOptions()) == hash(ScoreOptions())
    for name in UNSCALED:
        assert type(LossSpec(name).module()).__name__ == LOSSES[name].module


def test_options_are_found_in_another_process():
    options = ScoreOptions((LossSpec("mae"),), missing="skip")
    assert hash(options) == hash(ScoreOptions((LossSpec("mae"),), missing="skip"))
    assert copy.deepcopy(options) == options
    script = (
        "import pickle, sys\n"
        "from loss_scoring.core import LossSpec, ScoreOptions\n"
        "sent = pickle.load(sys.stdin.buffer)\n"
        "sys.exit(sent not in {ScoreOptions((LossSpec('mae'),), missing='skip')})\n"
    )
    for seed in ("1", "2"):  # of the hashes of texts
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        subprocess.run(
            [sys.executable, "-c", script],
            input=pickle.dumps(options),
            env=environment,
            check=True,
        )


def test_arrays_reach_the_kernel_as_they_are(monkeypatch):
    def kernel(prediction, target, offsets, options, *further):
        assert prediction is p
        assert target is y
        assert offsets is both.offsets
        return fused(prediction, target, offsets, options, *further)

    fused = kernel_for(torch.device("cpu"))
    kernel.takes_arrays = True
    monkeypatch.setattr(scoring, "kernel_for", lambda _device: kernel)
    p, y = np.ones(3), np.zeros(3)
    both = Ragged.from_lengths(p, [1, 2])
    scores = score(both, both.like(y), gradients=True)
    for part, shown in zip(scores.columns, scores.arrays(), strict=True):
        assert all(shown[name] is column for name, column in part.items())


def test_ragged_cuts_and_joins():
    r = ragged([1.0, 2.0], [3.0], [4.0, 5.0])
    assert (len(r), r.lengths.tolist(), r[1].tolist()) == (3, [2, 1, 2], [3.0])
    part = r.slice(1, 3)
    assert (part.offsets.tolist(), part.values.tolist()) == ([0, 1, 3], [3.0, 4.0, 5.0])
    assert part.values.data_ptr() == r.values[2:].data_ptr(), "a copy"
    assert r.slice(0, 3) is r
    joined = Ragged.cat([r.slice(0, 1), part])
    assert torch.equal(joined.values, r.values)
    assert np.array_equal(joined.offsets, r.offsets)
    for parts in ([r], [r.slice(0, 1), part]):
        out = torch.zeros(5)
        assert Ragged.cat(parts, out=out).values.data_ptr() == out.data_ptr()
        assert torch.equal(out, r.values)
    with pytest.raises(IndexError):
        r[3]


@pytest.mark.parametrize(
    ("values", "offsets"),
    [
        (torch.ones(2, 2), [0, 2]),
        (torch.ones(4)[::2], [0, 2]),
        (torch.ones(2), []),
        (torch.ones(2), [1, 2]),
        (torch.ones(2), [0, 1]),
        (torch.ones(2), [0, 2, 1, 2]),
        (torch.ones(2), [0.0, 2.0]),
    ],
)
def test_ragged_refuses_invalid_layouts(values, offsets):
    with pytest.raises(ValueError, match=r"values|offsets"):
        Ragged(values, torch.tensor(offsets))


def test_scores_cut_and_join():
    p, y = ragged([1.0, 4.0], [3.0]), ragged([2.0, 2.0], [0.0])
    whole = score(p, y, gradients=True)
    parts = [whole.slice(slice(0, 1), slice(0, 2)), whole.slice(slice(1, 2), slice(2, 3))]
    joined = Scores.cat(parts)
    for mine, theirs in (
        (joined.values, whole.values),
        (joined.masked, whole.masked),
        (joined.gradients, whole.gradients),
    ):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_like_takes_values_of_the_same_shape_only():
    one = ragged([1.0], [2.0, 3.0])
    assert one.like(torch.tensor([4.0, 5.0, 6.0])).offsets is one.offsets
    with pytest.raises(ValueError, match="as many"):
        one.like(torch.tensor([4.0, 5.0]))
    with pytest.raises(ValueError, match="contiguous"):
        one.like(torch.zeros(6)[::2])


def test_buffers_are_shown_as_arrays_and_as_tensors_without_a_copy():
    array = np.array([1.0, 2.0, 3.0], np.float32)
    one = Ragged(array, np.array([0, 1, 3]))
    assert one.values.dtype == one.dtype == torch.float32
    assert one.values.data_ptr() == array.ctypes.data == one.array.ctypes.data
    assert (one.elements, one.lengths.tolist(), one[1].tolist()) == (3, [1, 2], [2.0, 3.0])
    of_tensor = Ragged(one.values, one.offsets)
    assert of_tensor.array.ctypes.data == array.ctypes.data
    mixed = Ragged.cat([one, of_tensor])
    assert mixed.values.tolist() == [1.0, 2.0, 3.0] * 2
    assert Ragged.cat([one, one]).array.tolist() == mixed.array.tolist()
    with pytest.raises(ValueError, match="contiguous"):
        Ragged(np.zeros(4)[::2], np.array([0, 2]))
    wants_gradients = torch.ones(3, requires_grad=True)
    assert score(Ragged(wants_gradients, one.offsets), one.like(np.ones(3, np.float32))).values[
        "mae"
    ].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", ["float16", "int64", "bool", ">f4"])
def test_ragged_refuses_at_once_what_no_kernel_takes(dtype):
    values = np.ones(3, dtype)
    with pytest.raises(TypeError, match=f"must be float32 or float64, not {values.dtype}"):
        Ragged(values, np.array([0, 3]))
    with pytest.raises(TypeError, match="must be float32 or float64"):
        Ragged(np.ones(3), np.array([0, 3])).like(values)
    if values.dtype.isnative:
        with pytest.raises(TypeError, match=f"must be float32 or float64, not torch.{dtype}"):
            Ragged.from_series([torch.from_numpy(values)])
