"""Options in a query."""

import pytest

from loss_scoring.core import ALL_LOSSES, LossSpec, ScoreOptions
from loss_scoring.service.codecs.options import options_from_query
from loss_scoring.service.errors import Faults


def read(*query):
    faults = Faults()
    return options_from_query(query, faults), [fault.pointer for fault in faults.first]


def test_defaults():
    assert read() == (ScoreOptions(ALL_LOSSES), [])


def test_everything():
    options, faults = read(
        ("losses", "smape,mae"),
        ("gradients", "true"),
        ("block_denom_grad", "false"),
        ("missing", "propagate"),
        ("zero_division", "skip"),
    )
    assert faults == []
    assert options == ScoreOptions(
        (LossSpec("smape", block_denom_grad=False), LossSpec("mae")),
        gradients=True,
        missing="propagate",
        zero_division="skip",
    )


def test_block_denom_grad_goes_to_smape_among_all_losses():
    options, faults = read(("block_denom_grad", "false"))
    assert faults == []
    assert [spec.block_denom_grad for spec in options.losses] == [True, True, False]


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ([("loss", "mae")], ["?loss"]),
        ([("losses", "mae"), ("losses", "mape")], ["?losses"]),
        ([("losses", "")], ["?losses"]),
        ([("losses", "mae,mae")], ["?losses"]),
        ([("losses", "mae, mape")], ["?losses"]),
        ([("gradients", "1")], ["?gradients"]),
        ([("gradients", "")], ["?gradients"]),
        ([("missing", "drop"), ("zero_division", "one")], ["?missing", "?zero_division"]),
        ([("losses", "mae"), ("block_denom_grad", "true")], ["?block_denom_grad"]),
        ([("dtype", "float32")], ["?dtype"]),
    ],
)
def test_faults(query, pointers):
    assert read(*query)[1] == pointers
