"""Options in a query."""

import pytest

from loss_scoring.core import ALL_LOSSES, LossSpec, ScoreOptions
from loss_scoring.service.codecs.options import options_from_json, options_from_query
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


@pytest.mark.parametrize(
    ("field", "parameter", "detail"),
    [
        (("losses", ["mse"]), ("losses", "mse"), "unknown loss 'mse'; known are mae, mape, smape"),
        (("losses", ["mae", "mae"]), ("losses", "mae,mae"), "losses names mae more than once"),
        (("gradients", "yes"), ("gradients", "yes"), "must be true or false, not a string"),
        (("gradients", 1), ("gradients", "1"), "must be true or false, not a number"),
        (("gradients", None), ("gradients", "null"), "must be true or false, not null"),
        (("missing", "drop"), ("missing", "drop"), "must be 'error', 'skip' or 'propagate'"),
        (
            ("losses", [{"name": "smape", "block_denom_grad": 0.5}]),
            ("block_denom_grad", "0.5"),
            "must be true or false, not a number",
        ),
    ],
)
def test_a_body_and_a_query_are_checked_alike(field, parameter, detail):
    in_body, in_query = Faults(), Faults()
    options_from_json(dict([field]), in_body)
    options_from_query([parameter], in_query)
    assert [fault.detail for fault in (*in_body.first, *in_query.first)] == [detail] * 2
    assert in_body.first[0].pointer.startswith(f"/{field[0]}")
    assert in_query.first[0].pointer == f"?{parameter[0]}"


def test_misspelt_names_come_first():
    faults = Faults()
    options_from_json({"gradients": 1, "loses": ["mae"], "series": []}, faults)
    assert [fault.pointer for fault in faults.first] == ["/loses", "/gradients"]
