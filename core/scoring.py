"""Score a ragged batch: check it, choose the kernel, compute."""

from collections.abc import Iterable

import torch

from core.kernels import Scores, kernel_for
from core.options import ALL_LOSSES, LossSpec, Missing, ScoreOptions, ZeroDivision
from core.ragged import Ragged


class MissingValueError(ValueError):
    """An input element is NaN or infinite and ``missing`` is ``error``.

    Attributes:
        positions: For each offending series, in order: its index, the side (``prediction`` or
            ``target``) and the position of its first offending element.
    """

    def __init__(self, positions: list[tuple[int, str, int]]) -> None:
        self.positions = positions
        series, side, position = positions[0]
        super().__init__(
            f"{len(positions)} series hold a value that is not finite, the first being series "
            f"{series}, {side} element {position}; pass missing='skip' or 'propagate' to allow it"
        )


def find_missing(prediction: Ragged, target: Ragged) -> list[tuple[int, str, int]]:
    """Return where inputs are not finite: (series, side, first position), one a series.

    Example:
        >>> import torch
        >>> nan = float("nan")
        >>> p = Ragged.from_lengths(torch.tensor([1.0, 2.0, nan]), [1, 2])
        >>> find_missing(p, p)
        [(1, 'prediction', 1)]
    """
    found: dict[int, tuple[int, str, int]] = {}
    for side, ragged in (("target", target), ("prediction", prediction)):
        bad = ~ragged.values.isfinite()
        if not bool(bad.any()):
            continue
        elements = bad.nonzero().flatten().cpu()
        owners = torch.searchsorted(ragged.offsets, elements, right=True) - 1
        first = torch.ones_like(owners, dtype=torch.bool)
        first[1:] = owners[1:] != owners[:-1]
        positions = elements - ragged.offsets[owners]
        for owner, position in zip(owners[first].tolist(), positions[first].tolist(), strict=True):
            found[owner] = (owner, side, position)
    return [found[owner] for owner in sorted(found)]


def score(  # noqa: PLR0913 - the options of the contract, all but two with a default
    prediction: Ragged,
    target: Ragged,
    losses: Iterable[LossSpec | str] = ALL_LOSSES,
    *,
    gradients: bool = False,
    missing: Missing = "error",
    zero_division: ZeroDivision = "zero",
) -> Scores:
    """Score every series of a ragged batch on the device that holds it.

    A series' loss and gradient are the same bits whatever else is in the batch.

    Args:
        prediction: float32 or float64.
        target: The same dtype, device and offsets.
        losses: Names of losses, or ``LossSpec``s; all by default.
        gradients: Whether to return d loss / d prediction.
        missing: What a NaN or infinite element does; see ``ScoreOptions``.
        zero_division: What an element with a quotient that is not finite does; likewise.

    Returns:
        Losses in float64, masked counts, and gradients in the inputs' dtype.

    Raises:
        ValueError: If the two sides differ in offsets, dtype or device, or a loss is unknown or
            repeated.
        TypeError: If the values are neither float32 nor float64.
        MissingValueError: If an element is not finite and ``missing`` is ``error``.

    Example:
        >>> import torch
        >>> p = Ragged.from_lengths(torch.tensor([1.0, 4.0, 3.0]), [2, 1])
        >>> y = Ragged.from_lengths(torch.tensor([2.0, 2.0, 3.0]), [2, 1])
        >>> scores = score(p, y, ["mae"], gradients=True)
        >>> scores.values["mae"].tolist(), scores.gradients["mae"].tolist()
        ([1.5, 0.0], [-0.5, 0.5, 0.0])
    """
    options = ScoreOptions(
        tuple(LossSpec(loss) if isinstance(loss, str) else loss for loss in losses),
        gradients,
        missing,
        zero_division,
    )
    values = prediction.values
    if values.dtype != target.values.dtype or values.device != target.values.device:
        raise ValueError("prediction and target must have the same dtype and device")
    if values.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"values must be float32 or float64, not {values.dtype}")
    if not torch.equal(prediction.offsets, target.offsets):
        raise ValueError("prediction and target must have the same offsets")
    if missing == "error" and (positions := find_missing(prediction, target)):
        raise MissingValueError(positions)
    with torch.inference_mode():
        return kernel_for(values.device)(values, target.values, prediction.offsets, options)
