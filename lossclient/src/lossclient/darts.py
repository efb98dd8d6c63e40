"""darts' series, scored by the service as ``darts.metrics`` does.

Needs darts: ``pip install 'lossclient[darts]'``. Nothing else in this package imports it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from darts import TimeSeries

from lossclient.arguments import require
from lossclient.client import Client
from lossclient.exceptions import InvalidInput
from lossclient.forecasts import Floats
from lossclient.options import Loss

Reduction = Callable[..., npt.NDArray[Any]]


def score(  # noqa: PLR0913 - one argument a choice
    client: Client,
    actual: TimeSeries | Sequence[TimeSeries],
    predicted: TimeSeries | Sequence[TimeSeries],
    losses: Sequence[Loss] | None = None,
    *,
    intersect: bool = True,
    component_reduction: Reduction | None = np.nanmean,
    progress: bool | None = False,
) -> dict[str, Any]:
    """Score predictions against the actual values at the times that both have.

    The numbers are those of ``darts.metrics``, but without its factors: ``mae`` is that of darts,
    100 times ``mape`` its ``mape``, 200 times ``smape`` its ``smape``. As there, each component is
    scored by itself, a missing element leaves the mean, one over a target of 0 does too unless the
    prediction is 0 as well, and of a stochastic series the median over its samples is taken. Not as
    there, an element that is infinite, or whose quotient overflows, leaves the mean.

    Args:
        client: Sends the requests. It stays open.
        actual: A series, or one for each prediction.
        predicted: With the same components as its actual one.
        losses: As in `Client.score`; mae, mape and smape by default.
        intersect: Whether to compare at common times; otherwise first with first, and so on.
        component_reduction: Makes one number of those of the components, given an array of one
            row and ``axis=1``; None leaves them apart.
        progress: Whether to show a bar; None does on a terminal.

    Returns:
        For each loss what the function of ``darts.metrics`` returns: a float for a single series
        and a list of them for a sequence, in its order; without reduction, of a series with
        several components, an array in place of the float. NaN where no element is left.

    Raises:
        InvalidInput: If two series have no time or not the same number of components in common.
        LossClientError: See `lossclient.exceptions`.

    Example:
        >>> actual = TimeSeries.from_values(np.array([1.0, 2.0, 4.0]))
        >>> predicted = TimeSeries.from_values(np.array([2.0, 2.0, 2.0]))
        >>> with Client("http://127.0.0.1:8000") as client:
        ...     score(client, actual, predicted[1:])["mae"], score(client, [actual], [predicted])
        (1.0, {'mae': [1.0], 'mape': [0.5], 'smape': [0.2222222222222222]})
    """
    for name, value in (("actual", actual), ("predicted", predicted)):
        is_series = isinstance(value, TimeSeries | Sequence)
        require(is_series, name, "a TimeSeries or a list of them", value)
    single = isinstance(actual, TimeSeries)
    if isinstance(predicted, TimeSeries) != single:
        raise InvalidInput("actual and predicted must both be one series, or both several")
    pairs = list(_pairs([actual] if single else actual, [predicted] if single else predicted))
    sides = [_common(i, *pair, intersect=intersect) for i, pair in enumerate(pairs)]
    scores = client.score_series(
        [column for prediction, _ in sides for column in prediction.T],
        [column for _, target in sides for column in target.T],
        losses=losses,
        missing="skip",
        zero_division="skip",
        progress=progress,
    )
    ends = np.cumsum([prediction.shape[1] for prediction, _ in sides])
    answer: dict[str, Any] = {}
    for loss, column in scores.losses.items():
        values = [
            _reduced(part, component_reduction) for part in np.split(column, ends[:-1]) if len(part)
        ]
        answer[loss] = values[0] if single else values
    return answer


def _pairs(actual: Any, predicted: Any) -> Iterator[tuple[TimeSeries, TimeSeries]]:
    if len(actual) != len(predicted):
        raise InvalidInput(f"actual has {len(actual)} series, predicted {len(predicted)}")
    for i, pair in enumerate(zip(actual, predicted, strict=True)):
        for name, series in zip(("actual", "predicted"), pair, strict=True):
            if not isinstance(series, TimeSeries):
                raise InvalidInput(f"{name} {i} must be a TimeSeries, not {type(series).__name__}")
        if pair[0].n_components != pair[1].n_components:
            counts = f"actual {pair[0].n_components}, predicted {pair[1].n_components}"
            raise InvalidInput(f"series {i} differs in its number of components: {counts}")
        yield pair


def _common(
    place: int, actual: TimeSeries, predicted: TimeSeries, *, intersect: bool
) -> tuple[Floats, Floats]:
    """Return prediction and target, time by component, at the times that count."""
    if intersect:
        target = actual.slice_intersect_values(predicted)
        prediction = predicted.slice_intersect_values(actual)
    else:
        target, prediction = actual.all_values(copy=False), predicted.all_values(copy=False)
    if len(target) != len(prediction) or not len(target):
        lengths = f"{len(target)} and {len(prediction)}"
        raise InvalidInput(f"series {place}: {lengths} steps of actual and predicted to compare")
    prediction, target = _median(prediction), _median(target)
    # darts counts 0 of 0 as a perfect forecast. So is 1 of 1, which is divided as any other.
    perfect = (prediction == 0) & (target == 0)
    return np.where(perfect, 1, prediction), np.where(perfect, 1, target)


def _median(samples: Floats) -> Floats:
    if samples.shape[2] == 1:
        return samples[:, :, 0]
    median: Floats = np.quantile(samples, 0.5, axis=2)  # rounds as darts', np.median does not
    return median


def _reduced(values: npt.NDArray[np.float64], reduction: Reduction | None) -> Any:
    """Return the loss of one series out of those of its components, as darts shapes it."""
    if reduction is not None:
        values = reduction(values[None], axis=1)
    return float(values[0]) if len(values) == 1 else values
