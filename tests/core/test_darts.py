"""The modules against the real darts, and in its training; runs by ``make test-darts``."""

import numpy as np
import pytest
import torch
from reference import adversarial

from loss_scoring import core

pytestmark = pytest.mark.darts
PAIRS = [
    ("MAELoss", {}),
    ("MapeLoss", {}),
    ("SmapeLoss", {}),
    ("SmapeLoss", {"block_denom_grad": False}),
]


@pytest.fixture(scope="module")
def darts_losses():
    return pytest.importorskip("darts.utils.losses", reason="make test-darts installs darts")


@pytest.mark.parametrize(("name", "parameters"), PAIRS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["adversarial", "random"])
def test_value_and_gradient(darts_losses, name, parameters, dtype, kind):
    rng = np.random.default_rng(0)
    p, y = (
        adversarial(dtype)
        if kind == "adversarial"
        else (rng.normal(size=100_000).astype(dtype) for _ in range(2))
    )
    y = torch.from_numpy(y)
    values, gradients = [], []
    for losses in (core, darts_losses):
        leaf = torch.from_numpy(p).clone().requires_grad_()
        value = getattr(losses, name)(**parameters)(leaf, y)
        value.backward()
        values.append(value.detach())
        gradients.append(leaf.grad)
    assert torch.equal(*values)
    finite = gradients[1].isfinite()
    assert torch.equal(gradients[0][finite], gradients[1][finite])
    assert gradients[0].isfinite().all()


def trained(loss_fn, weight):
    """Return what a model forecasts that a real darts has trained with sample weights."""
    darts = pytest.importorskip("darts")
    models = pytest.importorskip("darts.models")
    pytest.importorskip("pytorch_lightning", reason="make test-darts installs it")
    values = np.sin(np.arange(60, dtype=np.float32) / 3) + 2
    values[::7] = 0
    quiet = {"enable_progress_bar": False, "logger": False, "enable_model_summary": False}
    model = models.NLinearModel(
        input_chunk_length=8,
        output_chunk_length=3,
        n_epochs=3,
        random_state=0,
        loss_fn=loss_fn,
        save_checkpoints=False,
        pl_trainer_kwargs={"accelerator": "cpu", "enable_checkpointing": False, **quiet},
    )
    series, weights = (darts.TimeSeries.from_values(side) for side in (values, weight))
    model.fit(series, sample_weight=weights, verbose=False)
    return model.predict(3, verbose=False).values()


class Weighted(torch.nn.Module):
    """torch's loss of each element, which darts multiplies with sample weights."""

    def __init__(self, term):
        super().__init__()
        self.term, self.reduction = term, "mean"

    def forward(self, p, y):
        terms = self.term(p, y)
        return terms if self.reduction == "none" else terms.mean()


@pytest.mark.filterwarnings("ignore")  # Lightning's, about workers and cores
def test_sample_weights_in_a_real_training():
    functional = torch.nn.functional
    weight = np.linspace(0, 2, 60, dtype=np.float32)
    for module, term in (
        (core.MAELoss(), lambda p, y: functional.l1_loss(p, y, reduction="none")),
        (core.MSELoss(), lambda p, y: functional.mse_loss(p, y, reduction="none")),
        (core.HuberLoss(0.5), lambda p, y: functional.huber_loss(p, y, reduction="none", delta=0.5)),
        (core.MapeLoss(), lambda p, y: torch.where(y == 0, 0, (p - y) / torch.where(y == 0, 1, y)).abs()),
    ):  # fmt: skip
        wanted = trained(Weighted(term), weight)
        got = trained(module, weight)
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
        assert np.abs(got - trained(module, np.ones_like(weight))).max() > 1e-5
        assert module.reduction == "mean"  # darts sets it to "none" while it trains
    with pytest.raises(ValueError, match="weights are an argument of forward"):
        trained(core.RMSELoss(), weight)
