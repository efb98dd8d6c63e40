"""Requests as they are once decoded: flat buffers that the layers below trust.

A request came as lists, a series each, or in the long form, a row an element. Each of the two kinds
knows what its series are called, which element of the caller's is missing, and what its answer is
in JSON and in Arrow.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, overload

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core import Ragged, ScoreOptions, Scores
from loss_scoring.core.table import Groups, Layout, answer_table, interleave, spell_series, speller
from loss_scoring.service.codecs.arrow.write import write_lists, write_table
from loss_scoring.service.codecs.options import escape
from loss_scoring.service.errors import Faults, TooLargeError

MAX_ID_BYTES = 512
_ALLOW_MISSING = "missing=skip leaves such elements out, missing=propagate keeps them"
MISSING = f"is missing or not finite; {_ALLOW_MISSING}"
NULL = f"is null; {_ALLOW_MISSING}"
_HEAD_BYTES = 4096
"""What an answer takes whatever is in it."""
_FLOAT_BYTES = {8: 25, 4: 16}
"""What a float of so many bytes takes in JSON at most, with a comma."""
_COUNT_BYTES = 10
"""The same of a length, a masked count, a position, or the brackets around a gradient."""
_COLUMN_BYTES = 9
"""What a row of a column takes in Arrow, where it may be null."""
_FEW_ROWS = 1 << 10
"""Rows of an answer in JSON that are made at once."""
_FLOATS = {4: pa.float32(), 8: pa.float64()}


class Limits(NamedTuple):
    """The most that a body may be: bytes without its content coding or compression, elements."""

    bytes: int
    elements: int


class NamesBytes(NamedTuple):
    """What the names of series take in an answer at most, as often as they are in it."""

    arrow: int = 0
    json: int = 0


NO_NAMES = NamesBytes()


Headers = list[tuple[bytes, bytes]]
Columns = tuple[
    Ragged, Ragged, ScoreOptions, NDArray[np.float64] | None, NDArray[np.float64] | None
]


class Memory(Protocol):
    """What one request may use; each method raises a ``ServiceError`` where there is no more."""

    def receive(self, size: int) -> None:
        """Reserve what a body of this size, or a part of one, is likely to need."""

    def reserve(self, added: int) -> None:
        """Hold at least the bytes of the body and ``added`` bytes."""

    def settle(self, added: int) -> None:
        """Hold exactly the bytes of the body and ``added`` bytes."""

    def check(self) -> None:
        """Raise ``DeadlineError`` if the request has ended; called between pieces of work."""


class _Unlimited:
    def receive(self, size: int) -> None: ...
    def reserve(self, added: int) -> None: ...
    def settle(self, added: int) -> None: ...
    def check(self) -> None: ...


UNLIMITED = _Unlimited()
"""Memory for warming up, tests and benchmarks."""


@dataclass(slots=True, eq=False)  # not frozen: that takes three times as long to make
class ScoreRequest(ABC):
    """Many series of (prediction, target) and what to compute of them.

    Attributes:
        prediction: float32 or float64.
        target: The same dtype and offsets.
        options: What to compute.
        copied: Whether numbers were laid out beside the body, and are not read in place.
        names_bytes: What the names of series take in the answer.
        kept_bytes: What names and the order of rows take beside the body until then.
        weights: float64, one an element, if they have any.
        scales: float64, one a series, if they have any.
        answer_bytes: The most bytes of the answer, once its format is known.
    """

    reorders: ClassVar[bool]
    """Whether gradients are in another order in an answer in Arrow if numbers were laid out."""

    prediction: Ragged
    target: Ragged
    options: ScoreOptions
    copied: bool = True
    names_bytes: NamesBytes = NO_NAMES
    kept_bytes: int = 0
    weights: NDArray[np.float64] | None = None
    scales: NDArray[np.float64] | None = None
    answer_bytes: int = field(init=False, default=0)

    @property
    def columns(self) -> Columns:
        """What an engine takes."""
        return self.prediction, self.target, self.options, self.weights, self.scales

    @property
    def answer_headers(self) -> Headers | None:
        """What the head of the answer says of its format, once written; None if that says it."""
        return None

    @abstractmethod
    def document(self, scores: Scores) -> dict[str, Any]:
        """Return the answer for JSON, in which what is NaN or infinite becomes null."""

    @abstractmethod
    def stream(self, scores: Scores) -> list[memoryview]:
        """Return the answer in Arrow, in parts that are views of the scores where they are large.

        A loss without an element left is null. A NaN that MAE propagated stays NaN.
        """

    @abstractmethod
    def find_missing(self, faults: Faults) -> None:
        """Note elements that are missing or not finite, in the order of what was sent."""

    def check_missing(self) -> None:
        """Raise ``InvalidError`` if elements are missing or not finite."""
        faults = Faults()
        self.find_missing(faults)
        faults.check()

    def estimate(self, format_: str, batch_elements: int) -> int:
        """Set ``answer_bytes``, and return what the request takes beside its body at most.

        Gradients are written in place. Text is kept beside the numbers, and gradients of a request
        that is cut into batches are kept in parts and joined.

        Args:
            format_: Of the answer.
            batch_elements: The most elements of a batch.
        """
        values, options = self.prediction.array, self.options
        losses = len(options.losses)
        gradients = losses if options.gradients else 0
        rows = len(self.prediction.offsets) - 1
        counts = 2 + losses + gradients  # ids, lengths and masked counts
        if format_ == "json":
            is_laid_out = True
            element = _FLOAT_BYTES[values.itemsize]
            answer = self.names_bytes.json
            answer += (_FLOAT_BYTES[8] * losses + _COUNT_BYTES * counts) * rows
        else:
            is_laid_out = self.copied and self.reorders
            element = values.itemsize
            answer = self.names_bytes.arrow + _COLUMN_BYTES * (losses + counts) * rows
        answer += _HEAD_BYTES + element * values.size * gradients
        self.answer_bytes = answer
        copies = is_laid_out + (values.size > batch_elements)
        # Offsets and scores, which an answer of models has in another order.
        beside = self.kept_bytes + (16 + 32 * losses) * rows
        for doubles in (self.weights, self.scales):
            beside += doubles.nbytes * self.copied if doubles is not None else 0
        if is_laid_out and format_ == "arrow":
            beside += 16 * values.size * options.gradients  # where each element was
        return answer + beside + values.nbytes * (2 * self.copied + gradients * copies)


class Rows(Sequence[Any]):
    """A column of an answer in JSON, of which only the rows that are written are made.

    Args:
        count: Of rows.
        make: Returns those from one to before another.
    """

    def __init__(self, count: int, make: Callable[[int, int], list[Any]]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            start, stop, _ = index.indices(self._count)
            return self._make(start, stop)
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._make(index, index + 1)[0]


@dataclass(slots=True, eq=False, kw_only=True)
class ListRequest(ScoreRequest):
    """A request of lists.

    Attributes:
        ids: One a series, in order.
        channels: The width C of each T x C series, 0 for a plain one; None if all are plain.
        gradient_type: The Arrow type of a gradient column; None for a request in JSON.
    """

    reorders = False

    ids: Sequence[int | str] | pa.Array
    channels: NDArray[np.int64] | None = None
    gradient_type: pa.DataType | None = None

    def id_list(self) -> list[int | str]:
        """Return the ids as Python objects."""
        return self.ids.to_pylist() if isinstance(self.ids, pa.Array) else list(self.ids)

    def document(self, scores: Scores) -> dict[str, Any]:
        losses, masked, gradients = scores.arrays()
        ids = self.ids
        document: dict[str, Any] = {
            "ids": ids if isinstance(ids, list) else _rows(len(ids), self._id_rows),
            "lengths": self.prediction.lengths,
            "losses": losses,
            "masked": masked,
        }
        if gradients:
            document["gradients"] = {
                name: _rows(len(self.prediction), partial(self._gradient_rows, flat))
                for name, flat in gradients.items()
            }
        return document

    def _id_rows(self, start: int, stop: int) -> list[Any]:
        ids = self.ids[start:stop]
        return ids.to_pylist() if isinstance(ids, pa.Array) else list(ids)

    def _gradient_rows(self, flat: NDArray[Any], start: int, stop: int) -> list[NDArray[Any]]:
        offsets = self.prediction.offsets[start : stop + 1].tolist()
        rows = [flat[a:b] for a, b in itertools.pairwise(offsets)]
        if self.channels is None:
            return rows
        widths = self.channels[start:stop].tolist()
        return [row.reshape(-1, c) if c else row for row, c in zip(rows, widths, strict=True)]

    def stream(self, scores: Scores) -> list[memoryview]:
        type_ = self._list_type() if self.options.gradients else None
        columns = scores, self.options, self.ids, self.prediction.offsets, type_
        return write_lists(*columns, weighted=self.weights is not None)

    def _list_type(self) -> pa.DataType:
        if self.gradient_type is not None:
            return self.gradient_type
        element = _FLOATS[self.prediction.itemsize]
        widths = set() if self.channels is None else set(self.channels.tolist())
        channels = widths.pop() if len(widths) == 1 else 0  # flat if the widths of series differ
        return pa.large_list(pa.list_(element, channels) if channels else element)

    def find_missing(self, faults: Faults) -> None:
        """Note the first missing element of each side of each series."""
        offsets = self.prediction.offsets
        found = []
        for side, ragged in enumerate((self.prediction, self.target)):
            elements = missing_elements(ragged.array)
            owners = np.searchsorted(offsets, elements, side="right") - 1
            series, first = np.unique(owners, return_index=True)
            positions = elements[first] - offsets[series]
            found.append(np.stack([series, np.full(len(series), side), positions], axis=1))
        rows = np.concatenate(found)
        faults.add_each(np.lexsort((rows[:, 1], rows[:, 0])), lambda i: self._missing(*rows[i]))

    def _missing(self, series: int, is_target: int, element: int) -> tuple[str, str]:
        side = "target" if is_target else "prediction"
        channels = 0 if self.channels is None else int(self.channels[series])
        of = f"of series {self.ids[series]}"
        if self.gradient_type is None:
            return f"/series/{series}/{side}/{position(channels, element)}", f"{of} {NULL}"
        return f"/{side}/{series}/{position(channels, element)}", f"{of} {MISSING}"


@dataclass(slots=True, eq=False, kw_only=True)
class LongRequest(ScoreRequest):
    """A request in the long form.

    Its series are those of the first model, then those of the second, and so on, each with the one
    target; in the answer a row is a series and model, the models of a series together.

    Attributes:
        layout: Which column was what.
        groups: The series, each of which every model predicted.
    """

    reorders = True

    layout: Layout
    groups: Groups

    def document(self, scores: Scores) -> dict[str, Any]:
        groups, models = self.groups, self.layout.models
        rows, count = len(self.prediction), len(models)
        losses, masked, gradients = scores.arrays()
        document: dict[str, Any] = {
            "groups": {
                name: _rows(rows, partial(_key_rows, column, speller(column), count))
                for name, column in zip(groups.keys.column_names, groups.keys.columns, strict=True)
            },
            "models": _rows(rows, lambda a, b: [models[i % count] for i in range(a, b)]),
            "lengths": np.repeat(np.diff(groups.offsets), count),
            "losses": {name: interleave(column, count) for name, column in losses.items()},
            "masked": {name: interleave(column, count) for name, column in masked.items()},
            "left_out": dict(self.layout.left_out),
        }
        if gradients:
            document["gradients"] = {
                name: _rows(rows, partial(self._gradient_rows, flat))
                for name, flat in gradients.items()
            }
        return document

    def _gradient_rows(self, flat: NDArray[Any], start: int, stop: int) -> list[NDArray[Any]]:
        series, model = np.divmod(np.arange(start, stop), len(self.layout.models))
        places = model * len(self.groups) + series
        offsets = self.prediction.offsets
        ends = zip(offsets[places].tolist(), offsets[places + 1].tolist(), strict=True)
        return [flat[a:b] for a, b in ends]

    def stream(self, scores: Scores) -> list[memoryview]:
        groups, layout = self.groups, self.layout
        table = answer_table(groups.keys, groups.offsets, layout.models, scores, self.options)
        left_out = orjson.dumps(dict(layout.left_out))
        return write_table(table.replace_schema_metadata({"left_out": left_out}))

    def find_missing(self, faults: Faults) -> None:
        """Note every missing element, by the row of the table as it was sent."""
        groups, rows = self.groups, int(self.groups.offsets[-1])
        # The target is there once for each model.
        sides = [
            self.target.array[:rows],
            *np.split(self.prediction.array, len(self.layout.models)),
        ]
        for name, side in zip(self.layout.numbers, sides, strict=True):
            elements = missing_elements(side)
            elements = elements[np.argsort(groups.rows_at(elements))]
            faults.add_each(elements, partial(self._missing, f"/{escape(name)}"))

    def _missing(self, pointer: str, element: int) -> tuple[str, str]:
        groups = self.groups
        row = int(groups.rows_at(np.array(element)))
        series = int(np.searchsorted(groups.offsets, element, side="right")) - 1
        return f"{pointer}/{row}", f"of the series {spell_series(groups.keys, series)} {MISSING}"


def _rows(count: int, make: Callable[[int, int], list[Any]]) -> Sequence[Any]:
    return make(0, count) if count <= _FEW_ROWS else Rows(count, make)


def _key_rows(
    column: pa.ChunkedArray,
    spelled: Callable[[pa.ChunkedArray], list[Any]],
    models: int,
    start: int,
    stop: int,
) -> list[Any]:
    first = start // models
    keys = spelled(column.slice(first, -(-stop // models) - first))
    return [keys[row // models - first] for row in range(start, stop)]


def missing_elements(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return where elements are NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.add.reduce(values))
    if math.isfinite(total):  # so is every term, which needs no memory to know
        return np.empty(0, np.int64)
    return np.flatnonzero(~np.isfinite(values))


def position(channels: int, element: int) -> str:
    """Spell the position of an element in its series, as a pointer's last steps."""
    return "/".join(map(str, divmod(element, channels))) if channels else str(element)


def check_elements(elements: int, limit: int) -> None:
    """Raise ``TooLargeError`` above the limit."""
    if elements > limit:
        raise TooLargeError(
            f"the request has {elements} elements, this server takes {limit}; split it by series"
        )
