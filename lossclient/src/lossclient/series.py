"""Nested lists and numpy arrays to series."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lossclient.exceptions import InvalidInput
from lossclient.forecasts import Floats, Forecasts, Key


def read_series(
    prediction: Any, target: Any, ids: Any = None
) -> tuple[Forecasts, npt.NDArray[Any]]:
    """Read series from two nested lists, lists of arrays, or arrays whose rows are series.

    A series with several channels (T x C) is read row by row; None is a missing element.

    Returns:
        The series, and their ids: positions where none are given.

    Raises:
        InvalidInput: If the two sides differ in shape, or hold something else than numbers.
    """
    both = (prediction, target)
    if all(_has_rows(side) for side in both) and prediction.shape == target.shape:
        lengths, flat = _at_once(prediction, target)
    else:
        lengths, flat = _one_by_one(prediction, target)
    names = _ids(ids, len(lengths))
    forecasts = Forecasts(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        target=flat[1],
        models=(None,),
        predictions=(flat[0],),
        key_of=_namer(names),
    )
    return forecasts, names


def _has_rows(side: Any) -> bool:
    return isinstance(side, np.ndarray) and side.dtype != object and side.ndim >= 2


def _at_once(
    prediction: npt.NDArray[Any], target: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], list[Floats]]:
    """Return lengths and sides of two arrays of one shape, without a step for each series."""
    named = (("prediction", prediction), ("target", target))
    flat = [_floats(name, side).ravel() for name, side in named]
    return np.full(len(target), math.prod(target.shape[1:])), flat


def _one_by_one(prediction: Any, target: Any) -> tuple[npt.NDArray[np.int64], list[Floats]]:
    sides = [_arrays(name, side) for name, side in (("prediction", prediction), ("target", target))]
    if len(sides[0]) != len(sides[1]):
        raise InvalidInput(f"prediction has {len(sides[0])} series, target {len(sides[1])}")
    for i, (one, other) in enumerate(zip(*sides, strict=True)):
        if one.shape != other.shape:
            shapes = f"prediction {list(one.shape)}, target {list(other.shape)}"
            raise InvalidInput(f"series {i} differs in shape: {shapes}")
    lengths = np.fromiter((one.size for one in sides[0]), np.int64, len(sides[0]))
    return lengths, [_flat(side) for side in sides]


def _namer(names: npt.NDArray[Any]) -> Callable[[int], Key]:
    return lambda series: Key(names[series].item() if names.dtype != object else names[series])


def _ids(ids: Any, count: int) -> npt.NDArray[Any]:
    if ids is None:
        return np.arange(count)
    names: npt.NDArray[Any] = np.asarray(ids)
    if names.ndim != 1 or len(names) != count:
        raise InvalidInput(f"ids must be one a series, {count} in all, not of shape {names.shape}")
    return names


def _arrays(name: str, side: Any) -> Sequence[Floats]:
    if isinstance(side, np.ndarray) and side.dtype != object:
        if side.ndim < 2:
            raise InvalidInput(
                f"{name} must hold series: an array of {side.ndim} dimensions has none"
            )
        return list(_floats(f"{name}", side))
    if isinstance(side, str | bytes) or not hasattr(side, "__iter__"):
        raise InvalidInput(f"{name} must be a list of series, not {type(side).__name__}")
    return [_floats(f"{name} of series {i}", series) for i, series in enumerate(side)]


def _floats(name: str, series: Any) -> Floats:
    try:
        array = np.asarray(series)
        if array.dtype == object and all(_is_number(value) for value in array.ravel()):
            array = array.astype(np.float64)  # None becomes NaN
    except ValueError as error:  # rows of unequal lengths
        raise InvalidInput(f"{name} is not a regular array: {error}") from error
    if array.size == 0 and array.ndim:
        array = array.astype(np.float64)
    if array.ndim == 0 or array.dtype.kind not in "fiu":
        raise InvalidInput(f"{name} must hold numbers, not {array.dtype}")
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, float | int) and not isinstance(value, bool))


def _flat(series: Sequence[Floats]) -> Floats:
    if not series:
        return np.empty(0, np.float64)
    return np.concatenate([one.ravel() for one in series])
