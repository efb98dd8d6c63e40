"""The reference kernel: plain torch, any device. Read this one to know what the others compute."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from loss_scoring.core.kernels.interface import Scores
from loss_scoring.core.options import LossSpec, ScoreOptions
from loss_scoring.core.ragged import Buffer, as_tensor


class _Terms(NamedTuple):
    """One loss, element by element."""

    value: Tensor
    """The term, in the inputs' dtype; 0 where masked."""
    usable: Tensor | None
    """False where masked; None for a loss without a quotient."""
    gradient: Callable[[Tensor], Tensor]
    """Takes g = 1/T per element, returns the derivative; not yet zeroed where masked."""


def _mae(p: Tensor, y: Tensor, _spec: LossSpec) -> _Terms:
    return _Terms((y - p).abs(), None, lambda g: (p - y).sign() * g)


def _mape(p: Tensor, y: Tensor, _spec: LossSpec) -> _Terms:
    quotient = (y - p) / y
    usable = quotient.isfinite()
    value = torch.where(usable, quotient.abs(), 0)
    return _Terms(value, usable, lambda g: -((quotient.sign() * g) / y))


def _smape(p: Tensor, y: Tensor, spec: LossSpec) -> _Terms:
    denominator = y.abs() + p.abs()
    quotient = (y - p).abs() / denominator
    usable = quotient.isfinite()
    sign, side = (p - y).sign(), p.sign()

    def blocked(g: Tensor) -> Tensor:
        return sign * (g / denominator).clamp(max=torch.finfo(g.dtype).max)  # else 0 * inf

    def full(g: Tensor) -> Tensor:
        gradient = sign * (g / denominator) - side * (g * (quotient / denominator))
        # A subnormal denominator overflows a term or both, and then their difference says nothing:
        # take it before the last division.
        joined = (sign - side * quotient) * g / denominator
        return torch.where(gradient.isfinite(), gradient, joined)

    value = torch.where(usable, quotient, 0)
    return _Terms(value, usable, blocked if spec.block_denom_grad else full)


TERMS: dict[str, Callable[[Tensor, Tensor, LossSpec], _Terms]] = {
    "mae": _mae,
    "mape": _mape,
    "smape": _smape,
}
"""One function per row of ``core.options.LOSSES``."""


@torch.inference_mode()
def plain_kernel(
    prediction: Tensor, target: Tensor, offsets: Buffer, options: ScoreOptions
) -> Scores:
    """Score with whole-buffer torch operations; see ``core.kernels.interface.Kernel``."""
    offsets = as_tensor(offsets).to(prediction.device)
    lengths = offsets.diff()
    present = prediction.isfinite() & target.isfinite() if options.missing == "skip" else None

    def total(elements: Tensor) -> Tensor:
        """Sum each series in float64, sequentially, so that neighbours do not matter."""
        if len(lengths) == 0:
            return elements.new_zeros(0, dtype=torch.float64)
        return torch.segment_reduce(elements.double(), "sum", offsets=offsets, initial=0)

    values: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}
    for spec in options.losses:
        value, usable, gradient = TERMS[spec.name](prediction, target, spec)
        if usable is not None:
            masked = ~usable if present is None else ~usable & present
            masks[spec.name] = total(masked).long()
        counted = present
        if usable is not None and options.zero_division == "skip":
            counted = usable if counted is None else usable & counted
        if counted is None:
            count = lengths
        else:
            value = torch.where(counted, value, 0)
            count = total(counted).long()
        values[spec.name] = total(value) / count
        if options.gradients:
            g = (1 / count.to(value.dtype)).repeat_interleave(lengths, output_size=len(value))
            limit = torch.finfo(value.dtype).max
            slope = gradient(g).clamp(-limit, limit)
            wanted = usable if counted is None else counted if usable is None else counted & usable
            if wanted is not None:
                slope = torch.where(wanted, slope, 0)
            gradients[spec.name] = slope + 0.0  # -0.0 + 0.0 is 0.0
    return Scores(values, masks, gradients)
