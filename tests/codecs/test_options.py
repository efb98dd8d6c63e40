"""Options in a query."""

import pytest

from loss_scoring.core import LOSSES, LossSpec, ScoreOptions
from loss_scoring.service.codecs.options import options_from_json, options_from_query
from loss_scoring.service.errors import Faults


def read(*query):
    faults = Faults()
    return options_from_query(query, faults), [fault.pointer for fault in faults.first]


def test_defaults():
    assert read() == (ScoreOptions(), [])


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
    assert [spec.values for spec in options.losses] == [(), (), (False,)]


@pytest.mark.parametrize(
    ("query", "losses"),
    [
        ([("losses", "huber:delta=1.5,mae")], [LossSpec("huber", delta=1.5), LossSpec("mae")]),
        ([("losses", "huber"), ("delta", "2")], [LossSpec("huber", delta=2)]),
        ([("losses", "smape:block_denom_grad=false")], [LossSpec("smape", block_denom_grad=False)]),
        (
            [("losses", "huber:delta=3,pinball"), ("q", "0.9")],
            [LossSpec("huber", delta=3), LossSpec("pinball", q=0.9)],
        ),
    ],
)
def test_parameters(query, losses):
    options, faults = read(*query)
    assert (options.losses, faults) == (tuple(losses), [])
    assert options.losses[0].values == losses[0].values


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("huber:delta=0", "delta of huber must be greater than 0"),
        ("huber:delta=inf", "delta of huber must be a finite number"),
        ("huber:delta=big", "delta of huber must be a number, not a string"),
        ("huber:delta=1:delta=2", "delta of huber appears more than once"),
        ("huber:name=mae", "name of huber appears more than once"),
        ("huber:delta", "'huber:delta' must be like name:parameter=value"),
        ("pinball:q=1", "q of pinball must be less than 1"),
        ("mae:delta=1", "delta is an unknown parameter of mae"),
    ],
)
def test_faults_of_parameters(text, detail):
    faults = Faults()
    options_from_query([("losses", text)], faults)
    assert [(fault.pointer, fault.detail) for fault in faults.first] == [("?losses", detail)]


def test_a_parameter_that_each_loss_has_already_is_refused():
    assert read(("losses", "huber:delta=1"), ("delta", "2"))[1] == ["?delta"]


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
        (
            ("losses", ["rsme"]),
            ("losses", "rsme"),
            f"unknown loss 'rsme'; did you mean 'rmse'?; known are {', '.join(LOSSES)}",
        ),
        (
            ("losses", [{"name": "huber", "delta": 0}]),
            ("delta", "0"),
            "must be greater than 0",
        ),
        (
            ("losses", [{"name": "huber", "delta": "1"}]),
            ("delta", "one"),
            "must be a number, not a string",
        ),
        (
            ("losses", [{"name": "huber", "delta": 10**400}]),
            ("delta", str(10**400)),
            "must be a finite number",
        ),
        (
            ("losses", [{"name": "pinball", "q": True}]),
            ("q", "true"),
            "must be a number, not a boolean",
        ),
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
    names = ["losses", "mae,smape,huber,pinball"]
    options_from_query([parameter] if parameter[0] == "losses" else [names, parameter], in_query)
    assert [fault.detail for fault in (*in_body.first, *in_query.first)] == [detail] * 2
    assert in_body.first[0].pointer.startswith(f"/{field[0]}")
    assert in_query.first[0].pointer == f"?{parameter[0]}"


def test_misspelt_names_come_first():
    faults = Faults()
    options_from_json({"gradients": 1, "loses": ["mae"], "series": []}, faults)
    assert [fault.pointer for fault in faults.first] == ["/loses", "/gradients"]
