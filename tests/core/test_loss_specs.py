"""Losses by name, with parameters, as callers write them."""

import math
import pickle
import re

import numpy as np
import pyarrow as pa
import pytest
import torch

from loss_scoring.core import DEFAULT_LOSSES, LOSSES, LossSpec, Ragged, ScoreOptions, score
from loss_scoring.core.losses import register
from loss_scoring.core.table import score_table


@pytest.mark.parametrize(
    "loss",
    ["huber:delta=1.5", {"name": "huber", "delta": 1.5}, LossSpec("huber", delta=1.5)],
    ids=str,
)
def test_each_way_to_write_a_loss(loss):
    spec = LossSpec.of(loss)
    assert (spec.name, spec.parameters, spec.values) == ("huber", {"delta": 1.5}, (1.5,))
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301
    sides = [Ragged.from_lengths(torch.tensor(side), [2]) for side in ([0.0, 1.0], [4.0, 2.0])]
    assert score(*sides, [loss]).values["huber"].tolist() == [(1.5 * (4 - 0.75) + 0.5) / 2]


def test_parameters_have_defaults():
    assert LossSpec.of("smape") == LossSpec("smape", block_denom_grad=True)
    assert LossSpec.of("smape:block_denom_grad=false").values == (False,)
    assert LossSpec.of({"name": "pinball"}).parameters == {"q": 0.5}
    assert LossSpec("huber", delta=2) == LossSpec("huber", delta=np.float64(2))


@pytest.mark.parametrize("loss", ["mae", {"name": "mae"}, LossSpec("mae")], ids=str)
def test_a_single_loss_is_no_list(loss):
    side = Ragged.from_lengths(np.ones(2), [2])
    with pytest.raises(ValueError, match="losses must be a list, as "):
        score(side, side, loss)
    with pytest.raises(ValueError, match="losses must be a list, as "):
        score_table(pa.table({"unique_id": ["a"], "y": [1.0], "A": [2.0]}), losses=loss)


@pytest.mark.parametrize(
    ("loss", "fault"),
    [
        ("maxe", "unknown loss 'maxe'; did you mean 'mae'?; known are mae, "),
        ("rsme", "unknown loss 'rsme'; did you mean 'rmse'?"),
        ("SMAPE:block_denom_grad=false", "unknown loss 'SMAPE'; did you mean 'smape'?"),
        ("zzz", "unknown loss 'zzz'; known are mae, "),
        ({"name": 5}, "unknown loss 5; known are mae, "),
        ("", "unknown loss ''"),
        ("huber:", "'huber:' must be like name:parameter=value"),
        ("huber:delta", "'huber:delta' must be like name:parameter=value"),
        ("huber:delta=1:delta=1", "delta of huber appears more than once"),
        ("huber:name=mae", "name of huber appears more than once"),
        ("huber:delta=one", "delta of huber must be a number, not 'one'"),
        ("huber:delta=true", "delta of huber must be a number, not True"),
        ("huber:delta=nan", "delta of huber must be greater than 0, not nan"),
        ("mae:delta=1", "mae does not take delta"),
        ({"name": "smape", "block_denom_grad": 0}, "must be true or false, not 0"),
        ({"name": "pinball", "q": 1}, "q of pinball must be greater than 0 and less than 1, not 1"),
        ({"name": "huber", "delta": math.inf}, "delta of huber must be greater than 0, not inf"),
        ({"name": "huber", "delta": 10**400}, "delta of huber must be a finite number"),
        ({"delta": 1.0}, "has no name"),
    ],
)
def test_what_is_refused(loss, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        LossSpec.of(loss)


def test_what_is_scored_by_default_is_frozen():
    assert DEFAULT_LOSSES == ("mae", "mape", "smape")
    assert [spec.name for spec in ScoreOptions().losses] == list(DEFAULT_LOSSES)


def test_a_loss_is_registered_once():
    with pytest.raises(ValueError, match="there is a loss 'mae' already"):
        register(LOSSES["mae"])
