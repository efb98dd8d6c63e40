"""The reference kernel: plain torch, any device. Read this one to know what the others compute."""

import torch
from torch import Tensor

from loss_scoring.core.kernels.finish import finish
from loss_scoring.core.kernels.interface import Scores
from loss_scoring.core.losses.in_torch import in_torch
from loss_scoring.core.options import ScoreOptions
from loss_scoring.core.ragged import Buffer, as_tensor


@torch.inference_mode()
def plain_kernel(  # noqa: C901 - the contract, once
    prediction: Tensor,
    target: Tensor,
    offsets: Buffer,
    options: ScoreOptions,
    weights: Buffer | None = None,
    scales: Buffer | None = None,
) -> Scores:
    """Score with whole-buffer torch operations; see ``core.kernels.interface.Kernel``."""
    kind, device = prediction.dtype, prediction.device
    offsets = as_tensor(offsets).to(device)
    lengths = offsets.diff()
    weight = None if weights is None else as_tensor(weights).to(device)
    scale = None if scales is None else as_tensor(scales).to(device)
    present = torch.ones_like(prediction, dtype=torch.bool)
    if options.missing == "skip":
        present = prediction.isfinite() & target.isfinite()

    steps = _pairs_of(lengths)

    def total(elements: Tensor) -> Tensor:
        return _sum_in_pairs(elements, lengths, steps)

    def count(flags: Tensor) -> Tensor:
        """Count in each series; a sum of ones is exact in any order."""
        if len(lengths) == 0:
            return lengths
        return torch.segment_reduce(flags.double(), "sum", offsets=offsets, initial=0).long()

    values: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}
    for spec in options.losses:
        loss, parameters = spec.loss, spec.values
        elements = in_torch(loss)
        term = elements.term(prediction, target, *parameters)
        usable = term.isfinite() if loss.has_quotient else torch.ones_like(present)
        counted = present & usable if options.zero_division == "skip" else present
        base = weight
        if elements.denominator is not None:
            base = elements.denominator(prediction, target, *parameters).double()
            base = base if weight is None else base * weight
        divisors = count(counted) if base is None else total(torch.where(counted, base, 0))
        term = torch.where(present & usable, term, 0).double()
        totals = total(term if weight is None else weight * term)
        values[spec.name], factors, is_void = finish(torch, loss, totals, divisors, scale)
        if loss.can_be_masked or weight is not None:
            masked = count(present & ~usable)
            masks[spec.name] = masked
            if base is not None or loss.scaled:
                masks[spec.name] = torch.where(is_void, lengths, masked)
        if options.gradients:
            limit = torch.finfo(kind).max
            if base is None and loss.is_mean:
                factors = 1 / divisors.to(kind)  # rounded once, as darts does
            elif weight is None:
                factors = factors.clamp(-limit, limit).to(kind)
            g = factors.repeat_interleave(lengths, output_size=len(term))
            if weight is not None:
                g = (weight * g).to(kind)
            slope = elements.slope(prediction, target, g, *parameters)
            if elements.joined is not None:
                joined = elements.joined(prediction, target, g, *parameters)
                slope = torch.where(slope.isfinite(), slope, joined)
            slope = torch.where(present & usable, slope.clamp(-limit, limit), 0)
            gradients[spec.name] = slope + 0.0  # -0.0 + 0.0 is 0.0
    return Scores(values, masks, gradients)


def _pairs_of(lengths: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return for each step of ``_sum_in_pairs`` the left elements, the right ones, if there are."""
    steps = []
    while len(lengths) and int(lengths.max()) > 1:
        starts = lengths.cumsum(0) - lengths
        halves = (lengths + 1) // 2
        owner = torch.repeat_interleave(halves)
        rank = torch.arange(len(owner), device=owner.device) - (halves.cumsum(0) - halves)[owner]
        left = starts[owner] + 2 * rank
        has_right = 2 * rank + 1 < lengths[owner]
        steps.append((left, torch.where(has_right, left + 1, left), has_right))
        lengths = halves
    return steps


def _sum_in_pairs(
    elements: Tensor, lengths: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]
) -> Tensor:
    """Sum each series: its elements in pairs of neighbours, those sums in pairs, and so on.

    So neighbours in the batch do not matter, and a term is rounded log2(n) times.
    """
    for left, right, has_right in steps:
        elements = elements[left] + torch.where(has_right, elements[right], 0)
    sums = elements.new_zeros(len(lengths))
    sums[lengths > 0] = elements
    return sums + 0.0  # no -0.0, which one element may be
