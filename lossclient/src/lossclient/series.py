"""Nested lists and numpy arrays to series."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from lossclient.exceptions import InvalidInput
from lossclient.forecasts import Floats, Forecasts, Key

Shapes = list[tuple[int, ...]]
_NUMBERS = {float, int, np.float64, type(None)}
"""Of a list, those that numpy reads as float64 whatever stands beside them."""
_SHAPE, _DTYPE = attrgetter("shape"), attrgetter("dtype")


def read_series(
    prediction: Any, target: Any, ids: Any = None
) -> tuple[Forecasts, npt.NDArray[Any]]:
    """Read series from two nested lists, lists of arrays, or arrays whose rows are series.

    A series with several channels (T x C) is read row by row; None is a missing element, and so is
    one that numpy has masked.

    Returns:
        The series, and their ids: positions where none are given.

    Raises:
        InvalidInput: If the two sides differ in shape, or hold something else than numbers, or a
            series is empty.
    """
    both = (prediction, target)
    if all(_has_rows(side) for side in both) and prediction.shape == target.shape:
        lengths, flat = _at_once(prediction, target)
    else:
        lengths, flat = _side_by_side(prediction, target)
    names = _ids(ids, len(lengths))
    key_of = _namer(names)
    if not lengths.all():
        empty = key_of(int(np.argmin(lengths))).id
        raise InvalidInput(f"series {empty!r} is empty: a series has at least one element")
    forecasts = Forecasts(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        target=flat[1],
        models=(None,),
        predictions=(flat[0],),
        key_of=key_of,
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


def _side_by_side(prediction: Any, target: Any) -> tuple[npt.NDArray[np.int64], list[Floats]]:
    shapes, flat = _read("prediction", prediction)
    others, other_flat = _read("target", target)
    if len(shapes) != len(others):
        raise InvalidInput(f"prediction has {len(shapes)} series, target {len(others)}")
    if shapes != others:
        i = next(i for i, shape in enumerate(shapes) if shape != others[i])
        both = f"prediction {list(shapes[i])}, target {list(others[i])}"
        raise InvalidInput(f"series {i} differs in shape: {both}")
    return np.fromiter(map(math.prod, shapes), np.int64, len(shapes)), [flat, other_flat]


def _namer(names: npt.NDArray[Any]) -> Callable[[int], Key]:
    return lambda series: Key(names[series].item() if names.dtype != object else names[series])


def _ids(ids: Any, count: int) -> npt.NDArray[Any]:
    if ids is None:
        return np.arange(count)
    try:
        mixed = isinstance(ids, list | tuple) and len({isinstance(one, str) for one in ids}) > 1
        names: npt.NDArray[Any] = np.asarray(ids, object if mixed else None)  # 1 is not "1"
    except ValueError as error:  # lists of unequal lengths
        raise InvalidInput(f"ids must be one a series: {error}") from error
    if names.ndim != 1 or len(names) != count:
        raise InvalidInput(f"ids must be one a series, {count} in all, not of shape {names.shape}")
    return names


def _read(name: str, side: Any) -> tuple[Shapes, Floats]:
    """Return the shape of each series, and the elements of all.

    No step of Python is made for each series that is an array, or a list of plain numbers.
    """
    if isinstance(side, np.ndarray) and side.dtype != object:
        if side.ndim < 2:
            raise InvalidInput(
                f"{name} must hold series: an array of {side.ndim} dimensions has none"
            )
        return [side.shape[1:]] * len(side), _floats(name, side).ravel()
    if isinstance(side, str | bytes) or not hasattr(side, "__iter__"):
        raise InvalidInput(f"{name} must be a list of series, not {type(side).__name__}")
    series = list(side)
    kinds = set(map(type, series))
    if kinds <= {list, tuple} and set(map(type, chain.from_iterable(series))) <= _NUMBERS:
        with suppress(OverflowError):  # 10**400: see below whose it is
            flat = np.array(list(chain.from_iterable(series)), np.float64)  # None becomes NaN
            return list(zip(map(len, series), strict=True)), flat
    if kinds != {np.ndarray} or not _are_numbers(series):
        series = [_floats(f"{name} of series {i}", one) for i, one in enumerate(series)]
    shapes = list(map(_SHAPE, series))
    narrow = {np.dtype(np.float16), np.dtype(np.float32)}.issuperset(map(_DTYPE, series))
    type_ = np.float32 if narrow and series else np.float64
    return shapes, np.concatenate([*series, np.empty(0, type_)], axis=None, dtype=type_)


def _are_numbers(series: Sequence[npt.NDArray[Any]]) -> bool:
    """Tell whether arrays hold numbers of which `numpy.concatenate` makes what `_floats` does."""
    kinds = {type_.kind for type_ in set(map(_DTYPE, series))}
    return kinds <= set("fiu") and () not in map(_SHAPE, series)


def _floats(name: str, series: Any) -> Floats:
    try:
        array = np.asarray(series)
        if array.dtype == object and all(_is_number(value) for value in array.ravel()):
            array = array.astype(np.float64)  # None becomes NaN
    except (ValueError, OverflowError, TypeError, RuntimeError) as error:
        # Rows of unequal lengths, 10**400; tensors of types that numpy lacks, or in a graph.
        raise InvalidInput(f"{name} is not a regular array: {error}") from error
    if array.size == 0 and array.ndim:
        array = array.astype(np.float64)
    if array.ndim == 0 or array.dtype.kind not in "fiu":
        raise InvalidInput(f"{name} must hold numbers, not {array.dtype}")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    elif array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    rows = series if isinstance(series, list | tuple) else [series]
    if any(isinstance(row, np.ma.MaskedArray) for row in rows):
        return np.where(np.ma.getmaskarray(np.ma.asarray(series)), np.nan, array)
    return array


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, float | int) and not isinstance(value, bool))
