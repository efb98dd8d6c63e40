"""The functions of a loss on torch's tensors, for its module and the plain kernel."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loss_scoring.core.losses.elementwise import bind
from loss_scoring.core.losses.loss import Element, Loss


def _signed(x: Tensor, high: Any, low: Any) -> Tensor:
    return torch.where(high > low, x, torch.where(high < low, -x, 0))


_OPERATIONS = {
    "absolute": torch.abs,
    "constant": lambda value, _: value,
    "divide": torch.div,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log1p": torch.log1p,
    "select": torch.where,
    "signed": _signed,
}


class TorchElements(NamedTuple):
    """``core.losses.Loss``'s functions of the same names."""

    term: Element
    slope: Element
    joined: Element | None
    denominator: Element | None


@cache
def in_torch(loss: Loss) -> TorchElements:
    """Return the functions of a loss."""
    return TorchElements(
        bind(loss.term, _OPERATIONS),
        bind(loss.slope, _OPERATIONS),
        loss.joined and bind(loss.joined, _OPERATIONS),
        loss.denominator and bind(loss.denominator, _OPERATIONS),
    )
