"""Weights, scales and histories in the client, answered by the codecs and the kernel, in process."""

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from loss_scoring.core import LossSpec
from loss_scoring.core.losses import LOSSES
from loss_scoring.core.table import score_table
from loss_scoring.service.api.problems import problem_of
from loss_scoring.service.codecs.codec import Codec, Formats, encode
from loss_scoring.service.codecs.request import UNLIMITED
from loss_scoring.service.engine.scorer import Slice
from loss_scoring.service.engine.worker import DeviceWorker
from loss_scoring.service.errors import InvalidError
from lossclient import Client, InvalidInput, InvalidValues
from lossclient.torch import RemoteLoss
from lossclient.wire import MEDIA_TYPE

CODEC = Codec(1 << 24, 1 << 24, 1 << 20, 1 << 20)
KEYS = ["unique_id", "cutoff"]


def respond(request):
    body, query = memoryview(bytearray(request.content)), request.url.query
    sent = body, Formats("arrow", "arrow", "identity"), query, UNLIMITED
    headers = {"X-Request-Id": request.headers["X-Request-Id"]}
    try:
        decoded = CODEC.decode(*sent)
        scores = DeviceWorker(torch.device("cpu")).score(Slice(*decoded.columns))
        answer = b"".join(encode(decoded, scores, "arrow"))
    except InvalidError as error:
        refused = problem_of(error, headers["X-Request-Id"])
        headers["Content-Type"] = "application/problem+json"
        return httpx.Response(422, headers=headers, content=refused.body)
    return httpx.Response(200, headers={"Content-Type": MEDIA_TYPE, **headers}, content=answer)


@pytest.fixture
def client():
    with Client("http://service", transport=httpx.MockTransport(respond), retries=0) as client:
        yield client


def frame(**columns):
    table = {
        "unique_id": ["a", "b", "a", "b", "a"],
        "ds": [2, 1, 1, 2, 3],
        "y": [1.0, 2.0, 3.0, 4.0, 5.0],
        "A": [2.0, 2.5, 0.0, 4.0, 5.0],
        "w": [1.0, 0.0, 2.0, 0.0, 0.5],
        "s": [2, 0, 2, 0, 2],
    }
    return pd.DataFrame(table | columns)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.from_pandas, pa.Table.from_pandas])
def test_frames_with_weights_and_scales(client, kind):
    columns = {"weight_col": "w", "scale_col": "s", "losses": ["mae", "mase"]}
    got = pa.table(client.score(kind(frame()), gradients=True, progress=False, **columns))
    want = score_table(
        pa.Table.from_pandas(frame().sort_values(["unique_id", "ds"]), preserve_index=False),
        group_by=["unique_id"],
        gradients=True,
        **columns,
    )
    for name in want.column_names:
        assert got.column(name).to_pylist() == want.column(name).to_pylist(), name


def test_series_with_weights_and_scales(client):
    scores = client.score_series(
        *([[1.0, 4.0], [3.0]], [[2.0, 2.0], [3.0]], ["a", "b"], ["mae", "mase"]),
        weights=[[3, 1], [0]],
        scales=[2, 1],
        progress=False,
    )
    assert scores.losses["mae"].tolist()[0] == 1.25
    assert scores.losses["mase"].tolist()[0] == 0.625
    assert np.isnan(scores.losses["mae"][1])
    assert scores.masked["mae"].tolist() == [0, 1]


def test_what_the_service_refuses_is_named_in_the_callers_terms(client):
    with pytest.raises(InvalidValues) as caught:
        client.score(frame(w=[1.0, -2, 1, 1, np.nan]), weight_col="w", exclude=["s"])
    first = caught.value.errors[-1]
    assert (first.id, first.side, first.row, first.position) == ("b", "weight", 1, 0)
    assert caught.value.count == 2
    with pytest.raises(InvalidValues) as caught:
        client.score(frame(s=[2, 0, 2, 0, 3]), scale_col="s", losses=["mase"], exclude=["w"])
    assert (caught.value.errors[0].id, caught.value.errors[0].side) == ("a", "scale")


def test_what_the_client_refuses(client):
    with pytest.raises(InvalidInput, match="no column 'v'"):
        client.score(frame(), weight_col="v")
    with pytest.raises(InvalidInput, match="weight_col and scale_col are 'y'"):
        client.score(frame(), weight_col="y")
    with pytest.raises(InvalidInput, match="column 'w' must hold numbers"):
        client.score(frame(w=list("abcde")), weight_col="w")
    with pytest.raises(InvalidInput, match=r"differs in shape: prediction .2., weights .1."):
        client.score_series([[1, 2]], [[1, 2]], weights=[[1]])
    with pytest.raises(InvalidInput, match="scales must be one a series, 1 in all"):
        client.score_series([[1, 2]], [[1, 2]], scales=[1, 2])


def forecasts():
    make, days = np.random.default_rng(7), pd.date_range("2026-01-01", periods=60)
    values = {key: make.integers(-50, 50, 60) / 4 for key in "ab"}
    rows = [
        (key, days[cut], days[day], values[key][day], make.integers(-50, 50) / 4)
        for cut in (20, 30)
        for key in "ab"
        for day in range(cut + 1, cut + 4)
    ]
    train = [(key, day, y) for key in "ab" for day, y in zip(days, values[key], strict=True)]
    return (
        pd.DataFrame(rows, columns=[*KEYS, "ds", "y", "Model"]),
        pd.DataFrame(train, columns=["unique_id", "ds", "y"]),
    )


@pytest.mark.parametrize("losses", [["mase"], ["rmsse", "mae", "mase"]])
def test_scales_of_a_history_are_those_of_score_table(client, losses):
    frame, train = forecasts()
    options = {"losses": losses, "seasonality": 7, "gradients": True}
    got = client.score(frame, train_df=train.sample(frac=1, random_state=1), **options)
    tables = [pa.Table.from_pandas(x, preserve_index=False) for x in (frame, train)]
    want = score_table(tables[0], train_df=tables[1], **options)
    assert list(got) == want.column_names
    for loss in losses:
        assert got[loss].tolist() == want.column(loss).to_pylist()
        assert [list(x) for x in got[f"{loss}_gradient"]] == want[f"{loss}_gradient"].to_pylist()
    without = client.score(frame.drop(columns="cutoff")[:6], train_df=train, **options)
    assert without["length"].tolist() == [3, 3]
    assert without[losses[0]].tolist() == got[losses[0]].tolist()[:2]


@pytest.mark.parametrize(
    "losses", [["mase", "rmsse", "smape"], ["smape", "rmsse", "mase"], ["rmsse", "smape"]]
)
def test_the_parameter_of_smape_goes_where_smape_does(client, losses):
    frame, train = forecasts()
    options = {"seasonality": 7, "gradients": True}
    got = client.score(frame, losses=losses, train_df=train, block_denom_grad=False, **options)
    spelled = [f"{loss}:block_denom_grad=false" if loss == "smape" else loss for loss in losses]
    tables = [pa.Table.from_pandas(x, preserve_index=False) for x in (frame, train)]
    want = score_table(tables[0], train_df=tables[1], losses=spelled, **options)
    for loss in losses:
        assert [list(x) for x in got[f"{loss}_gradient"]] == want[f"{loss}_gradient"].to_pylist()
    options |= {"losses": ["mase", "rmsse"], "block_denom_grad": False}
    with pytest.raises(InvalidValues, match="block_denom_grad none of the losses"):
        client.score(frame, train_df=train, **options)


@pytest.mark.parametrize("losses", [["mase"], ["rmsse"]])
@pytest.mark.parametrize(
    ("times", "cutoff", "values"),
    [
        (["8", "9", "10", "11", "12"], "11", [0, 1, 3, 3, 9]),
        ([1, 2, 3, 4, 5], 5, [0, 1e200, 1e200, 1e200, 1]),
    ],
)
def test_text_is_ordered_by_what_it_says_and_a_square_may_overflow(
    client, losses, times, cutoff, values
):
    frame = {"unique_id": ["a"], "ds": ["13"], "cutoff": [cutoff], "y": [1.0], "Model": [3.0]}
    train = {"unique_id": ["a"] * 5, "ds": times, "y": [float(value) for value in values]}
    options = {"losses": losses, "seasonality": 1}
    want = score_table(pa.table(frame), train_df=pa.table(train), **options)
    got = client.score(pa.table(frame), train_df=pa.table(train), **options)
    assert got[losses[0]].to_pylist() == want[losses[0]].to_pylist()


def test_what_is_refused_of_a_history(client):
    frame, train = forecasts()
    for options, match in (
        ({"seasonality": None}, "has a seasonality"),
        ({"seasonality": 0}, "seasonality must be a whole number of at least 1"),
        ({"losses": ["mae"]}, "none of the losses asked for takes train_df"),
        ({"scale_col": "y"}, "both say what the scales are"),
        ({"train_df": train.drop(columns="y")}, "no column 'y' in train_df"),
        (
            {"train_df": pd.concat([train, train[:1]])},
            "in rows 0 and 120 of the series unique_id='a'.*of train_df",
        ),
        ({"train_df": train.assign(ds=range(120))}, "not comparable with int64 of train_df"),
        ({"train_df": None}, "seasonality is that of train_df"),
    ):
        given = {"losses": ["mase"], "train_df": train, "seasonality": 7} | options
        with pytest.raises(InvalidInput, match=match):
            client.score(frame, **given)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_remote_loss_with_weights(client, reduction):
    make = torch.Generator().manual_seed(1)
    inpt, tgt = (torch.randn(4, 3, generator=make, dtype=torch.float64) for _ in range(2))
    weight = torch.rand(4, 3, generator=make)
    remote, local = inpt.clone().requires_grad_(), inpt.clone().requires_grad_()
    loss = RemoteLoss(client, "mae", reduction=reduction)(remote, tgt, weight)
    terms = weight * (tgt - local).abs()
    want = {"mean": terms.sum() / weight.double().sum(), "sum": terms.sum(), "none": terms}
    torch.testing.assert_close(loss, want[reduction])
    loss.sum().backward()
    want[reduction].sum().backward()
    torch.testing.assert_close(remote.grad, local.grad)
    with pytest.raises(ValueError, match="inpt and weight must have the same shape"):
        RemoteLoss(client, "mae")(inpt, tgt, weight[0])
    with pytest.raises(ValueError, match="no gradient for weight"):
        RemoteLoss(client, "mae")(inpt, tgt, weight.clone().requires_grad_())


def results(losses, p, y, weight=None):
    """Return the loss of each module, and its gradient."""
    for loss in losses:
        leaf = p.clone().requires_grad_()
        value = loss(leaf, y, weight)
        value.sum().backward()
        yield value.detach(), leaf.grad


MODULES = [name for name, row in LOSSES.items() if row.module]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("elements", [3, 0])
def test_a_remote_loss_without_weight_is_0_as_the_module_is(client, name, elements):
    p, y = torch.tensor([[2.0, 3.0, 5.0], [1.0, 0.0, 4.0]])[:, :elements]
    losses = RemoteLoss(client, name), LossSpec(name).module()
    for value, gradient in results(losses, p, y, torch.zeros(elements)):
        assert value.item() == 0
        assert torch.equal(gradient, torch.zeros(elements))


def test_a_remote_wape_of_no_sales_is_0_and_of_nan_is_nan(client):
    p, y = torch.tensor([2.0, 0.0]), torch.zeros(2)
    losses = RemoteLoss(client, "wape"), LossSpec("wape").module()
    for value, gradient in results(losses, p, y):
        assert value.item() == 0
        assert torch.equal(gradient, torch.zeros(2))
    for value, _ in results(losses, p, y + torch.nan):
        assert value.isnan()


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_remote_loss_that_is_no_mean_of_elements_is_a_mean_alone(client, name, reduction):
    if LOSSES[name].is_mean:
        RemoteLoss(client, name, reduction=reduction)
        return
    with pytest.raises(ValueError, match=f"reduction of {name} is mean, not '{reduction}'"):
        RemoteLoss(client, name, reduction=reduction)
    loss = RemoteLoss(client, name)
    loss.reduction = reduction  # as trainers do
    with pytest.raises(ValueError, match=f"reduction of {name} is mean"):
        loss(torch.ones(2), torch.ones(2))
