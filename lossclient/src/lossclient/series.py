"""Nested lists and numpy arrays to series, and their scores in numpy."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lossclient.cells import array_of, content, floats_of
from lossclient.comparison import Leaderboard
from lossclient.exceptions import InvalidInput
from lossclient.forecasts import Floats, Forecasts, Key, of_python

_NUMBERS = {float, int, np.float64, type(None)}
"""Of a list, those that numpy reads as float64 whatever is beside them."""
_SMALL = frozenset(map(np.dtype, ("f2", "f4", "i1", "u1", "i2", "u2")))
"""What a float32 holds exactly."""
_SHAPE, _DTYPE = attrgetter("shape"), attrgetter("dtype")
_Name = Callable[[int], str]
"""Says in words which series it is, given its number."""


class _Side(NamedTuple):
    """Predictions or targets.

    Attributes:
        shapes: Of each series.
        elements: Of all series, float32 or float64.
        small: Whether they are float32 because small integers fit.
    """

    shapes: list[tuple[int, ...]]
    elements: Floats
    small: bool = False


_SHOWN = 20
"""Series in a notebook."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The losses of many series, in the order in which they were given.

    Attributes:
        ids: Of the series: those given, or their positions.
        lengths: How many elements each has, int64.
        losses: For each loss one float64 a series; NaN where no element is left, or where
            ``missing="propagate"`` made it so.
        masked: For each loss with a quotient, how many elements of each series have none that is
            finite.
        gradients: For each loss, if they were asked for: its derivative by each predicted element,
            all series one after the other, in the float type of the predictions; of integers, in
            the type that the loss is computed in.
    """

    ids: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    losses: Mapping[str, npt.NDArray[np.float64]]
    masked: Mapping[str, npt.NDArray[np.int64]]
    gradients: Mapping[str, Floats]

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each series starts and ends in a gradient."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def split(self, loss: str) -> list[Floats]:
        """Return the gradient of a loss as one view a series.

        Example:
            >>> flat = {"mae": np.array([0.5, -0.5, 1.0])}
            >>> scores = Scores(np.arange(2), np.array([2, 1]), {}, {}, flat)
            >>> scores.split("mae")
            [array([ 0.5, -0.5]), array([1.])]
        """
        return np.split(self.gradients[loss], self.offsets[1:-1]) if len(self.lengths) else []

    def to_arrow(self) -> pa.Table:
        """Return a row a series.

        Returns:
            The columns ``id``, ``length``, one a loss, ``<loss>_masked`` and ``<loss>_gradient``,
            a list.

        Raises:
            pyarrow.ArrowInvalid: If ids are of several types.

        Example:
            >>> losses, masked = {"mae": np.array([0.5, 2.0])}, {}
            >>> scores = Scores(np.array(["a", "b"]), np.array([2, 1]), losses, masked, {})
            >>> scores.to_arrow().to_pylist()[1]
            {'id': 'b', 'length': 1, 'mae': 2.0}
        """
        offsets = pa.array(self.offsets)
        columns = {"id": self.ids, "length": self.lengths, **self.losses}
        columns |= {f"{loss}_masked": counts for loss, counts in self.masked.items()}
        lists = {
            f"{loss}_gradient": pa.LargeListArray.from_arrays(offsets, pa.array(flat))
            for loss, flat in self.gradients.items()
        }
        return pa.table({name: pa.array(cells) for name, cells in columns.items()} | lists)

    def to_pandas(self) -> Any:
        """Return the same as a frame of pandas."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """Return the same as a frame of polars."""
        import polars as pl  # noqa: PLC0415 - of the caller

        return pl.from_arrow(self.to_arrow())

    def _repr_html_(self) -> str:
        head, count = slice(0, _SHOWN), len(self.lengths)
        shown = Scores(
            self.ids[head],
            self.lengths[head],
            {loss: values[head] for loss, values in self.losses.items()},
            {loss: counts[head] for loss, counts in self.masked.items()},
            {},
        )
        note = (f"the first {_SHOWN} of {count} series",) if count > _SHOWN else ()
        return Leaderboard(shown.to_arrow(), note)._repr_html_()


def read_series(
    prediction: Any, target: Any, ids: Any = None, weights: Any = None, scales: Any = None
) -> tuple[Forecasts, npt.NDArray[Any]]:
    """Read series from two nested lists, lists of arrays, or arrays whose rows are series.

    A series with several channels (T x C) is read row by row; None and NA are missing elements, and
    so is one that numpy has masked. A side becomes float32 if that holds all of its numbers by
    their types, float64 otherwise, as numbers of Python do; integers remain double beside such a
    target, since their gradient has no type of its own.

    Returns:
        The series, and their ids: positions where none are given.

    Raises:
        InvalidInput: If the two sides differ in shape, or hold something else than numbers, or a
            series is empty.
    """
    given = None if ids is None else _ids(ids)

    def name(series: int) -> str:
        if given is None or series >= len(given):
            return f"series {series}"
        return f"series {_item(given, series)!r}"

    predictions, actual = _read("prediction", prediction, name), _read("target", target, name)
    shapes = predictions.shapes
    _check_shapes("target", actual, shapes, name)
    names = np.arange(len(shapes)) if given is None else given
    if len(names) != len(shapes):
        raise InvalidInput(f"ids must be one a series, {len(shapes)} in all, not {len(names)}")
    lengths = np.fromiter(map(math.prod, shapes), np.int64, len(shapes))
    if not lengths.all():
        empty = name(int(np.argmin(lengths)))
        raise InvalidInput(f"{empty} is empty: a series has at least one element")
    elements = predictions.elements
    if predictions.small and actual.elements.dtype == np.float64:
        elements = elements.astype(np.float64)
    doubles = {}
    if weights is not None:
        weight = _read("weights", weights, name)
        _check_shapes("weights", weight, shapes, name)
        doubles["weight"] = weight.elements.astype(np.float64, copy=False)
    if scales is not None:
        scale = _floats("scales", scales).astype(np.float64, copy=False)
        if scale.shape != (len(shapes),):
            wanted = f"one a series, {len(shapes)} in all"
            raise InvalidInput(f"scales must be {wanted}, not of shape {scale.shape}")
        doubles["scale"] = np.repeat(scale, lengths)
    forecasts = Forecasts(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        target=actual.elements,
        models=(None,),
        predictions=(elements,),
        key_of=lambda series: Key(_item(names, series)),
        shapes=shapes,
        doubles=doubles,
    )
    return forecasts, names


def _check_shapes(
    side_name: str, side: _Side, shapes: Sequence[tuple[int, ...]], name: _Name
) -> None:
    """Refuse a side whose series do not have the shapes of the predictions."""
    if len(shapes) != len(side.shapes):
        raise InvalidInput(
            f"prediction has {len(shapes)} series, {side_name} {len(side.shapes)}; "
            "each series of one has its own in the other"
        )
    if shapes != side.shapes:
        i = next(i for i, shape in enumerate(shapes) if shape != side.shapes[i])
        both = f"prediction {list(shapes[i])}, {side_name} {list(side.shapes[i])}"
        raise InvalidInput(f"{name(i)} differs in shape: {both}")


def scores_of(answer: pa.Table, ids: npt.NDArray[Any]) -> Scores:
    """Return the answer of the service as arrays."""
    losses, masked, gradients = {}, {}, {}
    for name in answer.column_names[1:]:
        column = answer.column(name)
        if name.endswith("_masked"):
            masked[name.removesuffix("_masked")] = column.to_numpy()
        elif name.endswith("_gradient"):
            gradients[name.removesuffix("_gradient")] = pc.list_flatten(column).to_numpy()
        else:
            losses[name] = column.to_numpy()
    return Scores(ids, answer.column("length").to_numpy(), losses, masked, gradients)


def _item(names: npt.NDArray[Any], series: int) -> object:
    return of_python(names[series])


def _ids(ids: Any) -> npt.NDArray[Any]:
    try:
        mixed = isinstance(ids, list | tuple) and len({isinstance(id_, str) for id_ in ids}) > 1
        names: npt.NDArray[Any] = np.asarray(ids, object if mixed else None)  # 1 is not "1"
    except ValueError as error:  # lists of unequal lengths
        raise InvalidInput(f"ids must be one a series: {error}") from error
    if names.ndim != 1:
        raise InvalidInput(f"ids must be one a series, not of shape {names.shape}")
    return names


def _read(side_name: str, side: Any, name: _Name) -> _Side:
    """Read a side.

    No step of Python is made for each series that is a row of an array, or a list of plain numbers;
    and but a few for each that is an array.
    """
    if isinstance(side, np.ndarray) and side.dtype != object:
        if side.ndim < 2:
            raise InvalidInput(
                f"{side_name} must hold series: an array of {side.ndim} dimensions has none; "
                f"for a single series write [{side_name}]"
            )
        floats = _floats(side_name, side)
        return _Side([side.shape[1:]] * len(side), floats.ravel(), _is_small([side.dtype]))
    series = _list_of(side_name, side)
    containers = set(map(type, series))
    if containers <= {list, tuple} and set(map(type, chain.from_iterable(series))) <= _NUMBERS:
        with suppress(OverflowError):  # 10**400: see below whose it is
            flat = np.array(list(chain.from_iterable(series)), np.float64)  # None becomes NaN
            return _Side(list(zip(map(len, series), strict=True)), flat)
    if containers != {np.ndarray} or not _are_numbers(series):
        series = [_array(f"{side_name} of {name(i)}", raw) for i, raw in enumerate(series)]
    types = {type_.newbyteorder("=") for type_ in set(map(_DTYPE, series))}
    type_ = np.float32 if types and types <= _SMALL else np.float64
    flat = np.concatenate([*series, np.empty(0, type_)], axis=None, dtype=type_)
    return _Side(list(map(_SHAPE, series)), flat, _is_small(types))


def _list_of(side_name: str, side: Any) -> list[Any]:
    if isinstance(nw.from_native(side, pass_through=True), nw.DataFrame | nw.LazyFrame):
        raise InvalidInput(
            f"{side_name} must be a list of series, not a frame ({type(side).__name__}); "
            "score takes frames, and score_series their rows as series by to_numpy()"
        )
    if isinstance(side, str | bytes | Mapping | AbstractSet) or not hasattr(side, "__iter__"):
        raise InvalidInput(f"{side_name} must be a list of series, not {type(side).__name__}")
    return [_unwrapped(series) for series in side]


def _unwrapped(series: Any) -> Any:
    """Return what a scalar of Arrow holds; other series as they are."""
    if not isinstance(series, pa.Scalar):
        return series
    values = getattr(series, "values", None)
    return series.as_py() if values is None or pa.types.is_nested(values.type) else values


def _are_numbers(series: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether arrays hold numbers of which `numpy.concatenate` makes what `_array` does."""
    kinds = {type_.kind for type_ in set(map(_DTYPE, series))}
    return kinds <= set("fiu") and () not in map(_SHAPE, series)


def _is_small(types: Collection[np.dtype[Any]]) -> bool:
    """Whether float32 holds numbers of these types, of which some are integers."""
    native = {type_.newbyteorder("=") for type_ in types}
    return native <= _SMALL and any(type_.kind != "f" for type_ in native)


def _floats(name: str, series: Any) -> Floats:
    """Return an array as floats, float32 if that holds its type."""
    array = _array(name, series)
    type_ = np.float32 if array.dtype.newbyteorder("=") in _SMALL else np.float64
    return array.astype(type_, copy=False)


def _array(name: str, series: Any) -> npt.NDArray[Any]:
    """Return an array of numbers, what is masked as NaN."""
    try:
        array = np.asarray(series)
        if array.dtype == object and array.ndim:
            numbers = array_of(array.ravel())
            array = array if numbers is None else floats_of(numbers).reshape(array.shape)
    except (ValueError, OverflowError, TypeError, RuntimeError) as error:
        # 10**400; tensors of types that numpy lacks, or in a graph; rows of unequal lengths.
        rows = isinstance(series, list | tuple) and any(hasattr(row, "__len__") for row in series)
        why = "its rows differ in length" if rows else error
        raise InvalidInput(f"{name} is not a regular array: {why}") from error
    if array.ndim == 0:
        is_number = array.dtype.kind in "fiu"
        hint = "; a single series is a list with one list in it" if is_number else ""
        raise InvalidInput(f"{name} must hold numbers, not be {repr(series)[:80]}{hint}")
    if array.dtype.kind not in "fiu":
        holds = content(array.ravel()) if array.dtype == object else str(array.dtype)
        if array.dtype.kind in "US" and array.size:  # as numpy reads numbers beside text, too
            cells = np.asarray(series, object).ravel()
            holds = f"text ({next(cell for cell in cells if isinstance(cell, str | bytes))!r:.80})"
        raise InvalidInput(f"{name} must hold numbers, not {holds}")
    parts = series if isinstance(series, list | tuple) else [series]
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        mask = np.ma.getmaskarray(np.ma.asarray(series))
        return np.where(mask, np.float32(np.nan), array)
    return array
