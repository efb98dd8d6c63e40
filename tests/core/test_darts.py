"""The modules against the real darts; runs by ``make test-darts`` in an environment with it."""

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
