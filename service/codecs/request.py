"""Requests as they are once decoded: flat buffers that the layers below trust.

A request came as lists, a series each, or in the long form, a row an element. Each of the two kinds
knows what its series are called, which element of the caller's is missing, and what its answer is
in JSON and in Arrow.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import orjson
import pyarrow as pa
import torch
from numpy.typing import NDArray

from loss_scoring.core import Ragged, ScoreOptions, Scores
from loss_scoring.core.table import Groups, Layout, answer_table, interleave, spell, spell_series
from loss_scoring.service.codecs.arrow.write import write_lists, write_table
from loss_scoring.service.codecs.options import escape
from loss_scoring.service.errors import Faults, TooLargeError

MAX_ID_BYTES = 512
_ALLOW_MISSING = "missing=skip leaves such elements out, missing=propagate keeps them"
MISSING = f"is missing or not finite; {_ALLOW_MISSING}"
NULL = f"is null; {_ALLOW_MISSING}"
_ROW_BYTES = 64
"""What a series takes in an answer, its id and gradients aside."""
_JSON_BYTES = 20
"""What a gradient's element takes in JSON."""
_FLOATS = {torch.float32: pa.float32(), torch.float64: pa.float64()}


class Limits(NamedTuple):
    """The most that a body may be: bytes without its content coding or compression, elements."""

    bytes: int
    elements: int


class Memory(Protocol):
    """What one request may use; each method raises a ``ServiceError`` where there is no more."""

    def receive(self, size: int) -> None:
        """Reserve what a body of this size, or a part of one, is likely to need."""

    def reserve(self, added: int) -> None:
        """Hold at least the bytes of the body and ``added`` bytes."""

    def settle(self, added: int) -> None:
        """Hold exactly the bytes of the body and ``added`` bytes."""

    def check(self) -> None:
        """Raise ``DeadlineError`` if nobody waits for the answer; called between pieces of work."""


@dataclass(slots=True, eq=False)  # not frozen: that takes three times as long to make
class ScoreRequest(ABC):
    """Many series of (prediction, target) and what to compute of them.

    Attributes:
        prediction: float32 or float64.
        target: The same dtype and offsets.
        options: What to compute.
        copied: Whether numbers were laid out beside the body, and are not read in place.
        names_bytes: About what the names of series take in the answer, as often as they are in it.
        answer_bytes: About the size of the answer, once its format is known.
    """

    reorders: ClassVar[bool]
    """Whether gradients are in another order in an answer in Arrow if numbers were laid out."""

    prediction: Ragged
    target: Ragged
    options: ScoreOptions
    copied: bool = True
    names_bytes: int = 0
    answer_bytes: int = field(init=False, default=0)

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
        """Set ``answer_bytes``, and return about what the request takes beside its body.

        Gradients are written in place. Text is kept beside the numbers, and gradients of a request
        that is cut into batches are kept in parts and joined.

        Args:
            format_: Of the answer.
            batch_elements: The most elements of a batch.
        """
        values, options = self.prediction.array, self.options
        gradients = len(options.losses) if options.gradients else 0
        is_json = format_ == "json"
        element = _JSON_BYTES if is_json else values.itemsize
        rows = len(self.prediction.offsets) - 1
        answer = self.names_bytes + _ROW_BYTES * rows + element * values.size * gradients
        is_laid_out = is_json or (self.copied and self.reorders)
        copies = is_laid_out + (values.size > batch_elements)
        self.answer_bytes = answer
        return answer + values.nbytes * (2 * self.copied + gradients * copies)


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
        document: dict[str, Any] = {
            "ids": self.id_list(),
            "lengths": self.prediction.lengths,
            "losses": losses,
            "masked": masked,
        }
        if gradients:
            offsets = self.prediction.offsets.tolist()
            document["gradients"] = {
                name: self._rows(flat, offsets) for name, flat in gradients.items()
            }
        return document

    def _rows(self, flat: NDArray[Any], offsets: list[int]) -> list[NDArray[Any]]:
        rows = [flat[a:b] for a, b in itertools.pairwise(offsets)]
        if self.channels is None:
            return rows
        widths = self.channels.tolist()
        return [row.reshape(-1, c) if c else row for row, c in zip(rows, widths, strict=True)]

    def stream(self, scores: Scores) -> list[memoryview]:
        type_ = self._list_type() if self.options.gradients else None
        return write_lists(scores, self.options, self.ids, self.prediction.offsets, type_)

    def _list_type(self) -> pa.DataType:
        if self.gradient_type is not None:
            return self.gradient_type
        element = _FLOATS[self.prediction.dtype]
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
        count = len(models)
        losses, masked, gradients = scores.arrays()
        document: dict[str, Any] = {
            "groups": {
                name: [key for key in spell(column) for _ in models]
                for name, column in zip(groups.keys.column_names, groups.keys.columns, strict=True)
            },
            "models": list(models) * len(groups),
            "lengths": np.repeat(np.diff(groups.offsets), count),
            "losses": {name: interleave(column, count) for name, column in losses.items()},
            "masked": {name: interleave(column, count) for name, column in masked.items()},
            "left_out": dict(self.layout.left_out),
        }
        if gradients:
            offsets = self.prediction.offsets
            starts, stops = (interleave(x, count).tolist() for x in (offsets[:-1], offsets[1:]))
            document["gradients"] = {
                name: [flat[a:b] for a, b in zip(starts, stops, strict=True)]
                for name, flat in gradients.items()
            }
        return document

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
            if groups.order is not None:
                elements = elements[np.argsort(groups.order[elements])]
            faults.add_each(elements, partial(self._missing, f"/{escape(name)}"))

    def _missing(self, pointer: str, element: int) -> tuple[str, str]:
        groups = self.groups
        row = element if groups.order is None else int(groups.order[element])
        series = int(np.searchsorted(groups.offsets, element, side="right")) - 1
        return f"{pointer}/{row}", f"of the series {spell_series(groups.keys, series)} {MISSING}"


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
