"""A frame of scores to one matrix of losses a group: a row a series, a column a model."""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..joining.cells import sortable
from ..joining.faults import TableError, listed, suggestion
from ..joining.groups import codes

_BLOCK = 1 << 22
"""Numbers in a block; of so many bytes the allocator keeps none for later."""


class ScoresError(ValueError):
    """A frame of scores is none, or lacks what was asked for."""


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses of some models on the same series.

    Attributes:
        models: Their names, in ascending order.
        values: A row a series and a column a model; NaN where a model has no loss.
        weights: Of the same shape, None if all series count alike.
        masked: Of the same shape: elements without a finite quotient; None if that is not known.
    """

    models: tuple[str, ...]
    values: NDArray[np.float64]
    weights: NDArray[np.float64] | None = None
    masked: NDArray[np.int64] | None = None

    @cached_property
    def missing(self) -> NDArray[np.int64]:
        """For each model, how many series it has no loss of."""
        return np.isnan(self.values).sum(axis=0)  # type: ignore[no-any-return]

    def common(self) -> "Losses":
        """Return the series of which every model has a loss."""
        if not self.missing.any():
            return self
        return self.take(np.flatnonzero(~np.isnan(self.values).any(axis=1)))

    def imputed(self, baseline: int) -> "Losses":
        """Return all series, with the baseline's loss where a model has none."""
        absent, weights = np.isnan(self.values), self.weights
        values = np.where(absent, self.values[:, [baseline]], self.values)
        if weights is not None:
            weights = np.where(absent, weights[:, [baseline]], weights)
        return Losses(self.models, values, weights, self.masked)

    def ordered(self) -> "Losses":
        """Return the same series in an order that their losses alone decide."""
        sides = [self.values] if self.weights is None else [self.values, self.weights]
        return self.take(np.lexsort(np.concatenate(sides, axis=1).T[::-1]))

    def present(self, baseline: str | None = None) -> "Losses":
        """Return the models that have a loss of any series, and the baseline; all if none has."""
        has = [
            column
            for column, name in enumerate(self.models)
            if name == baseline or self.missing[column] < len(self.values)
        ]
        columns = has or list(range(len(self.models)))
        if len(columns) == len(self.models):
            return self
        return Losses(
            tuple(self.models[column] for column in columns),
            self.values[:, columns],
            None if self.weights is None else self.weights[:, columns],
            None if self.masked is None else self.masked[:, columns],
        )

    def take(self, rows: NDArray[np.int64] | slice) -> "Losses":
        """Return some series."""
        return Losses(
            self.models,
            self.values[rows],
            None if self.weights is None else self.weights[rows],
            None if self.masked is None else self.masked[rows],
        )


@dataclass(frozen=True, eq=False)
class Scores:
    """A frame of scores, as a table.

    Attributes:
        table: One row a series and model.
        keys: The columns that together name a series.
        by: The columns that name a group of series.
    """

    table: pa.Table
    keys: tuple[str, ...]
    by: tuple[str, ...]

    def require(self, models: Collection[str]) -> None:
        """Refuse models without a row.

        Raises:
            ScoresError: If there is one.
        """
        _require(models, pc.unique(self.table["model"]).to_pylist())

    def select(self, models: Collection[str]) -> "Scores":
        """Return the rows of some models."""
        wanted = pc.is_in(self.table["model"], pa.array(list(models), pa.string()))
        return Scores(self.table.filter(wanted), self.keys, self.by)

    def groups(self, loss: str, weights: str | None = None) -> Iterator[tuple[pa.Table, Losses]]:
        """Yield each group in ascending order: its values of ``by``, one row, and its losses."""
        table, (names, cell, starts) = self.table, self._cells
        count = int(starts[-1])

        def matrix(column: str, fill: float, type_: pa.DataType) -> NDArray[Any]:
            filled = np.full(len(names) * count, fill, type_.to_pandas_dtype())
            filled[cell] = _numbers(table, column, type_)
            return filled.reshape(len(names), count).T

        masked = f"{loss}_masked"
        whole = Losses(
            names,
            matrix(loss, np.nan, pa.float64()),
            None if weights is None else _valid(matrix(weights, 0, pa.float64()), weights),
            matrix(masked, 0, pa.int64()) if masked in table.column_names else None,
        )
        if not self.by:
            yield table.select(()).slice(0, 1), whole
            return
        first = np.empty(count, np.int64)  # a row of each series
        first[cell % count] = np.arange(len(cell))
        for start, stop in itertools.pairwise(starts.tolist()):
            yield table.select(self.by).slice(int(first[start]), 1), whole.take(slice(start, stop))

    def lists(self, columns: Sequence[str]) -> pa.Table:
        """Return a row a series without its key: its values of ``by``, and a list of each column.

        Raises:
            ScoresError: If a series has two rows of a model.
        """
        _, cell, starts = self._cells
        series = cell % int(starts[-1])
        order = np.argsort(series, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(series))])
        first = pa.array(order[offsets[:-1]])
        rows = self.table.select(columns).take(pa.array(order)).combine_chunks()
        ends = pa.array(offsets, pa.int32())
        lists = {name: pa.ListArray.from_arrays(ends, rows[name].chunk(0)) for name in columns}
        return pa.table({name: self.table[name].take(first) for name in self.by} | lists)

    @cached_property
    def _cells(self) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
        """The models, the cell of each row in a matrix, and where the series of groups start."""
        names = tuple(sorted(pc.unique(self.table["model"]).to_pylist()))
        try:
            series = codes(self.table, (*self.by, *self.keys))  # those of a group are together
        except TableError as error:
            raise ScoresError(str(error)) from error
        count = int(series.max()) + 1
        cell = codes(self.table, ["model"]) * count + series
        self._refuse_repeated(cell)
        if not self.by:
            return names, cell, np.array([0, count])
        group = np.empty(count, np.int64)
        group[series] = codes(self.table, self.by)
        return names, cell, np.append(np.flatnonzero(np.diff(group, prepend=-1)), count)

    def _refuse_repeated(self, cell: NDArray[np.int64]) -> None:
        if np.bincount(cell).max(initial=0) < 2:
            return
        order = np.argsort(cell, kind="stable")
        again = np.flatnonzero(np.diff(cell[order]) == 0)
        first, second = (int(row) for row in order[again[0] : again[0] + 2])
        names = ["model", *self.by, *self.keys]
        shown = ", ".join(f"{name}={self.table[name][first]}" for name in names)
        raise ScoresError(
            f"rows {first} and {second} are both {shown} (the first of {len(again)} such pairs); "
            "name by keys= the columns that tell series apart"
        )


class ScoresInParts:
    """Scores that come in parts, of which only numbers are kept: each row of models is a series.

    A series that comes twice is compared twice.

    Args:
        models: In the order in which each series has a row of them.
    """

    def __init__(self, models: Sequence[str]) -> None:
        self._given, self._models = tuple(models), tuple(sorted(models))
        self._columns: dict[str, _Column] = {}

    def add(self, answer: pa.Table, losses: Collection[str]) -> None:
        """Keep the losses of some series, and what of them is masked, as far as it is known."""
        columns = [self._given.index(name) for name in self._models]
        for loss in losses:
            for name, type_ in ((loss, pa.float64()), (f"{loss}_masked", pa.int32())):
                if name in answer.column_names:
                    rows = _numbers(answer, name, type_).reshape(-1, len(columns))[:, columns]
                    self._columns.setdefault(name, _Column(rows)).add(rows)

    def require(self, models: Collection[str]) -> None:
        """Refuse models that are none of these."""
        _require(models, self._models)

    def select(self, models: Collection[str]) -> "ScoresInParts":
        """Return the scores of some models."""
        selected = ScoresInParts(tuple(models))
        columns = [self._models.index(name) for name in selected._models]
        for name, column in self._columns.items():
            rows = column.joined()[:, columns]
            selected._columns[name] = _Column(rows)
            selected._columns[name].add(rows)
        return selected

    def groups(self, loss: str, weights: str | None = None) -> Iterator[tuple[pa.Table, Losses]]:
        """Yield the one group that there is: no values of ``by``, and all losses."""
        for name in filter(None, (loss, weights)):
            if name not in self._columns:
                raise ScoresError(f"there is no column {name!r} among {listed(self._columns)}")
        masked = self._columns.get(f"{loss}_masked")
        weighed = None if weights is None else _valid(self._columns[weights].joined(), weights)
        counts = None if masked is None else masked.joined()
        yield pa.table({}), Losses(self._models, self._columns[loss].joined(), weighed, counts)


class _Column:
    """Rows that come in parts, in blocks so large that their memory is given back when joined."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self._width, self._type = rows.shape[1], rows.dtype
        self._blocks: list[NDArray[Any]] = []
        self._last = 0  # rows of the last block
        self._joined: NDArray[Any] | None = None

    def add(self, rows: NDArray[Any]) -> None:
        while len(rows):
            if not self._blocks or self._last == len(self._blocks[-1]):
                self._blocks.append(np.empty((_BLOCK // self._width + 1, self._width), self._type))
                self._last = 0
            block = self._blocks[-1]
            taken = rows[: len(block) - self._last]
            block[self._last : self._last + len(taken)] = taken
            self._last += len(taken)
            rows = rows[len(taken) :]

    def joined(self) -> NDArray[Any]:
        """Return all rows, each column in one piece; more cannot be added then."""
        if self._joined is None:
            stop = sum(map(len, self._blocks[:-1])) + self._last
            whole = np.empty((self._width, stop), self._type)
            while self._blocks:
                block = self._blocks.pop()[: self._last]
                whole[:, stop - len(block) : stop] = block.T
                stop -= len(block)
                self._last = len(self._blocks[-1]) if self._blocks else 0
            self._joined = whole.T
        return self._joined


def _require(models: Collection[str], known: Collection[str]) -> None:
    for name in models:
        if name not in known:
            raise ScoresError(f"no model {name!r} among {listed(known)}{suggestion(name, known)}")


def take_scores(
    scores: Any, losses: Sequence[str], by: Sequence[str], keys: Sequence[str] | None
) -> Scores | ScoresInParts:
    """Return scores that came in parts as they are, and read any other as ``read_scores`` does."""
    return scores if isinstance(scores, ScoresInParts) else read_scores(scores, losses, by, keys)


def read_scores(
    scores: Any, losses: Sequence[str], by: Sequence[str], keys: Sequence[str] | None
) -> Scores:
    """Read a frame of scores.

    Args:
        scores: A frame of pandas, polars or pyarrow, or any with ``__arrow_c_stream__``.
        losses: The columns of losses that are wanted.
        by: The columns that name a group of series.
        keys: The columns that together name a series; None takes those left of ``model``.

    Raises:
        ScoresError: If it is no frame, a column is absent, or a key is null.
    """
    table = _table(scores)
    if not len(table):
        raise ScoresError("the frame of scores has no rows")
    names = table.column_names
    if "model" in names and keys is None:
        keys = names[: names.index("model")]
    for name in ("model", *losses, *by, *(keys or ())):
        if names.count(name) != 1:
            what = "is more than once" if name in names else "is no"
            raise ScoresError(f"there {what} column {name!r} among {listed(names)}")
    if not keys:
        raise ScoresError(
            "no column tells series apart; the answer of score has them left of the column model, "
            "other columns can be named by keys="
        )
    for name in ("model", *by, *keys):
        if nulls := sortable(table[name]).null_count:
            raise ScoresError(f"column {name!r} is null in {nulls} rows")
    models = sortable(table["model"]).cast(pa.string())
    table = table.set_column(names.index("model"), "model", models)
    rest = tuple(name for name in keys if name not in by)
    return Scores(table, rest, tuple(dict.fromkeys(by)))


def flattened(lists: pa.Table, by: Sequence[str], series: str) -> pa.Table:
    """Return scores of what ``Scores.lists`` gave, with a column that numbers series.

    Args:
        lists: That of all parts, one after the other.
        by: The columns that are no lists.
        series: How to call the column.
    """
    names = [name for name in lists.column_names if name not in by]
    lists = lists.combine_chunks()
    parent = pc.list_parent_indices(lists[names[0]].combine_chunks())
    columns = {name: lists[name].take(parent) for name in by}
    columns[series] = parent
    return pa.table(columns | {name: pc.list_flatten(lists[name]) for name in names})


def _table(scores: Any) -> pa.Table:
    if isinstance(scores, pa.Table):
        return scores
    if isinstance(scores, pa.RecordBatch):
        return pa.Table.from_batches([scores])
    try:
        if type(scores).__module__.partition(".")[0] == "pandas":
            named = any(name is not None for name in scores.index.names)
            frame = scores.reset_index() if named else scores
            return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        if hasattr(scores, "__arrow_c_stream__"):
            return pa.table(scores)
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        raise ScoresError(f"the frame of scores cannot be read: {error}") from error
    raise ScoresError(f"a frame of scores is wanted, not {type(scores).__name__}")


def _numbers(table: pa.Table, name: str, type_: pa.DataType) -> NDArray[Any]:
    """Return a column of numbers, null as NaN or 0."""
    column = table.column(name)
    try:
        column = column.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ScoresError(f"column {name!r} must hold numbers, not {column.type}") from error
    return column.fill_null(0 if pa.types.is_integer(type_) else float("nan")).to_numpy()  # type: ignore[no-any-return]


def _valid(weights: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ScoresError(f"weights in column {name!r} must be finite, and not negative")
    return weights
