"""The functions of a loss on torch's tensors, for its module and the plain kernel."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loss_scoring.core.losses.elementwise import bind
from loss_scoring.core.losses.loss import Element, Loss


def _signed(x: Tensor, high: Any, low: Any) -> Tensor:
    difference = high - low if isinstance(low, Tensor) else high  # from the number 0
    return x * torch.sign(difference)  # that of NaN is 0


_OPERATIONS = {
    "absolute": torch.abs,
    "constant": lambda value, x: torch.full((), value, dtype=x.dtype, device=x.device),
    "divide": torch.div,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log1p": torch.log1p,
    "select": torch.where,
    "signed": _signed,
}


class TorchElements(NamedTuple):
    """``core.losses.Loss``'s functions of the same names, those by the target always there."""

    term: Element
    slope: Element
    joined: Element | None
    target_slope: Element
    target_joined: Element | None
    denominator: Element | None


@cache
def in_torch(loss: Loss) -> TorchElements:
    """Return the functions of a loss."""

    def bound(function: Element | None) -> Any:
        return function and bind(function, _OPERATIONS)

    slope, joined = bound(loss.slope), bound(loss.joined)
    by_target = bound(loss.target_slope), bound(loss.target_joined)
    if loss.target_slope is None:
        by_target = _negated(slope), joined and _negated(joined)
    return TorchElements(bound(loss.term), slope, joined, *by_target, bound(loss.denominator))


def _negated(function: Element) -> Element:
    return lambda *arguments: -function(*arguments)
