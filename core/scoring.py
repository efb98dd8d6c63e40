"""Score a ragged batch: check it, choose the kernel, compute."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loss_scoring.core.kernels import Scores, kernel_for, takes_arrays
from loss_scoring.core.kernels.interface import SHORT
from loss_scoring.core.kernels.small_cpu import small_cpu_kernel, takes
from loss_scoring.core.losses import DEFAULT_LOSSES, LOSSES
from loss_scoring.core.options import LossLike, LossSpec, Missing, ScoreOptions, ZeroDivision
from loss_scoring.core.ragged import Buffer, Ragged


class MissingElements(NamedTuple):
    """Where inputs are NaN or infinite.

    Attributes:
        affected: How many series hold such an element.
        first: For the first of them, in order: the series, the side (``prediction`` or
            ``target``) and the position of its first such element on that side.
    """

    affected: int
    first: list[tuple[int, str, int]]


class MissingValueError(ValueError):
    """An input element is NaN or infinite and ``missing`` is ``error``.

    Attributes:
        missing: Where.
    """

    def __init__(self, missing: MissingElements) -> None:
        self.missing = missing
        series, side, position = missing.first[0]
        super().__init__(
            f"{missing.affected} series hold a value that is not finite, the first being series "
            f"{series}, {side} element {position}; pass missing='skip' or 'propagate' to allow it"
        )


def may_be_missing(scores: Scores) -> bool:
    """Tell from the scores of some series whether one may hold a missing element.

    A missing element leaves a trace in every loss: it is NaN or infinite, or where the term is a
    quotient, the element is masked. So the kernel has detected missing elements already, at no
    cost; only a trace needs a closer check, since a sum may overflow and a target be 0.
    """
    losses, masked, _ = scores.columns
    for name, values in losses.items():
        if not LOSSES[name].has_quotient:
            if len(values) <= SHORT:
                return not all(map(math.isfinite, values.tolist()))
            return not bool(np.isfinite(_on_host(values)).all())
    return any(bool(_on_host(counts).any()) for counts in masked.values())


def _on_host(column: Buffer) -> NDArray[Any]:
    return column if isinstance(column, np.ndarray) else column.numpy(force=True)


# By numpy on the host: torch's threads hang in a child that was forked after they ran.
def _sum(ragged: Ragged) -> float:
    if not ragged.on_host:
        return float(ragged.values.sum())
    with np.errstate(over="ignore", invalid="ignore"):
        return float(ragged.array.sum())


def _not_finite(ragged: Ragged) -> NDArray[np.bool_]:
    if not ragged.on_host:
        return (~ragged.values.isfinite()).numpy(force=True)
    found: NDArray[np.bool_] = ~np.isfinite(ragged.array)
    return found


def find_missing(prediction: Ragged, target: Ragged, limit: int = 20) -> MissingElements:
    """Find the series with an element that is not finite, and name at most ``limit`` of them.

    Example:
        >>> import torch
        >>> nan = float("nan")
        >>> p = Ragged.from_lengths(torch.tensor([1.0, 2.0, nan]), [1, 2])
        >>> find_missing(p, p)
        MissingElements(affected=1, first=[(1, 'prediction', 1)])
    """
    sides = {"prediction": prediction, "target": target}
    # A finite sum has finite terms, and needs no memory.
    if all(math.isfinite(_sum(ragged)) for ragged in sides.values()):
        return MissingElements(0, [])
    bad = {side: _not_finite(ragged) for side, ragged in sides.items()}
    offsets = prediction.offsets
    elements = np.flatnonzero(bad["prediction"] | bad["target"])
    owners = np.unique(np.searchsorted(offsets, elements, side="right") - 1)
    first = []
    for series in owners[:limit].tolist():
        own = slice(offsets[series], offsets[series + 1])
        side = "prediction" if bad["prediction"][own].any() else "target"
        first.append((series, side, int(np.argmax(bad[side][own]))))
    return MissingElements(len(owners), first)


def invalid_weights(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return where weights are negative, NaN or infinite.

    Example:
        >>> invalid_weights(np.array([0.0, -1.0, 2.5, np.nan])).tolist()
        [1, 3]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if weights.min(initial=0) >= 0 and math.isfinite(weights.sum()):  # neither needs memory
            return np.empty(0, np.int64)
    return np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))


def score(  # noqa: PLR0913 - the options of the contract, all but two with a default
    prediction: Ragged,
    target: Ragged,
    losses: Iterable[LossLike] = DEFAULT_LOSSES,
    *,
    weights: Ragged | None = None,
    scales: ArrayLike | None = None,
    gradients: bool = False,
    missing: Missing = "error",
    zero_division: ZeroDivision = "zero",
) -> Scores:
    """Score every series of a ragged batch on the device that holds it.

    A series' loss and gradient are the same bits whatever else is in the batch.

    Args:
        prediction: float32 or float64.
        target: The same dtype, device and offsets.
        losses: Losses as ``LossSpec.of`` takes them; mae, mape and smape by default.
        weights: What each element weighs, finite and at least 0, over the same offsets. A loss is
            then the sum of weighted terms over the sum of the weights of the elements that count,
            NaN where that is 0, and ``masked`` has a column for each loss.
        scales: A number for each series, which a loss that is ``scaled`` is divided by. The loss is
            NaN, and all of its series masked, where that is not positive and finite.
        gradients: Whether to return d loss / d prediction.
        missing: What a NaN or infinite element does; see ``ScoreOptions``.
        zero_division: What an element with a quotient that is not finite does; likewise.

    Returns:
        Losses in float64, masked counts, and gradients in the inputs' dtype.

    Raises:
        ValueError: If the two sides differ in offsets, dtype or device, weights in offsets, or
            scales in number; a weight is negative or not finite; a loss is unknown or repeated, or
            has no scales that needs them, or there are scales that no loss takes.
        MissingValueError: If an element is not finite and ``missing`` is ``error``.

    Example:
        >>> import torch
        >>> p = Ragged.from_lengths(torch.tensor([1.0, 4.0, 3.0]), [2, 1])
        >>> y = Ragged.from_lengths(torch.tensor([2.0, 2.0, 3.0]), [2, 1])
        >>> scores = score(p, y, ["mae"], gradients=True)
        >>> scores.values["mae"].tolist(), scores.gradients["mae"].tolist()
        ([1.5, 0.0], [-0.5, 0.5, 0.0])
        >>> w = Ragged.from_lengths(torch.tensor([3.0, 1.0, 0.0]), [2, 1])
        >>> scores = score(p, y, ["mae"], weights=w)
        >>> scores.values["mae"].tolist(), scores.masked["mae"].tolist()
        ([1.25, nan], [0, 1])
    """
    options = ScoreOptions(
        LossSpec.all_of(losses),
        gradients,
        missing,
        zero_division,
    )
    on_host = prediction.on_host
    same_device = on_host == target.on_host and (on_host or prediction.device == target.device)
    if prediction.itemsize != target.itemsize or not same_device:
        raise ValueError("prediction and target must have the same dtype and device")
    if not _agree(prediction, target):
        raise ValueError("prediction and target must have the same offsets")
    further = _weights(weights, prediction), _scales(scales, prediction, options)
    small = on_host and weights is None and takes(options, int(prediction.offsets[-1]))
    kernel = None if small else kernel_for("cpu" if on_host else prediction.device)
    if kernel is None:
        scores = small_cpu_kernel(prediction.array, target.array, prediction.offsets, options)
    elif takes_arrays(kernel):
        scores = kernel(prediction.array, target.array, prediction.offsets, options, *further)
    else:
        scores = kernel(prediction.values, target.values, prediction.offsets, options, *further)
    if missing == "error" and may_be_missing(scores):
        found = find_missing(prediction, target)
        if found.affected:
            raise MissingValueError(found)
    return scores


def _agree(one: Ragged, other: Ragged) -> bool:
    return one.offsets is other.offsets or np.array_equal(one.offsets, other.offsets)


def _weights(weights: Ragged | None, prediction: Ragged) -> NDArray[np.float64] | None:
    """Return weights as a kernel takes them."""
    if weights is None:
        return None
    if not _agree(weights, prediction):
        raise ValueError("weights and prediction must have the same offsets")
    flat = _on_host(weights.array if weights.on_host else weights.values).astype(
        np.float64, copy=False
    )
    invalid = invalid_weights(flat)
    if len(invalid):
        series = int(np.searchsorted(prediction.offsets, invalid[0], side="right")) - 1
        raise ValueError(
            f"weights must be finite and at least 0, not {flat[invalid[0]]} as element "
            f"{invalid[0] - prediction.offsets[series]} of series {series}"
        )
    return flat


def _scales(
    scales: ArrayLike | None, prediction: Ragged, options: ScoreOptions
) -> NDArray[np.float64] | None:
    """Return scales as a kernel takes them."""
    if scales is None:
        if options.scaled:
            raise ValueError(f"{' and '.join(options.scaled)} must have scales, one a series")
        return None
    if not options.scaled:
        raise ValueError("none of the losses asked for takes scales")
    numbers = np.asarray(scales, np.float64)
    if numbers.shape != (len(prediction),):
        raise ValueError(f"scales must be one a series, {len(prediction)}, not {numbers.shape}")
    return numbers
