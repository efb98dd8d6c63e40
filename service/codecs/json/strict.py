"""The strict reader of JSON requests: slow, and the one that words what is wrong.

It reads what ``service.codecs.json.read`` gives up on, a long body in pieces: between them other
threads run, memory is reserved for what is kept, and a request that has ended is called off. Once
there are as many faults as are listed, the rest of a long body is not read.
"""

import itertools
import math
import sys
from array import array
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from loss_scoring.core import Ragged
from loss_scoring.core.table import VALID_WEIGHT, suggestion
from loss_scoring.service.codecs.json.loop import COMMA, count_of
from loss_scoring.service.codecs.json.parse import (
    OBJECT_BYTES,
    PIECE,
    LongValue,
    elements_of,
    fields_of,
    read_document,
)
from loss_scoring.service.codecs.mistaken import suggest_frame
from loss_scoring.service.codecs.options import JSON_OPTIONS, escape, kind_of, options_from_json
from loss_scoring.service.codecs.pools import NUMBERS
from loss_scoring.service.codecs.request import (
    MAX_ID_BYTES,
    NULL,
    UNLIMITED,
    ListRequest,
    Memory,
    NamesBytes,
    check_elements,
    position,
)
from loss_scoring.service.errors import MAX_LISTED_ERRORS, Faults, InvalidError

_SIDES = ("prediction", "target", "weight")
_WEIGHT = 2
_FIELDS = ("id", *_SIDES, "scale")
_NUMBERS = {int, float, type(None)}
_TOO_LARGE = 2**1024 - 2**970
"""The least integer that ``float`` refuses."""
_PENDING = 1 << 13
"""Numbers that are converted at once."""
_PAIR_BYTES = 24
"""What two numbers take, if they become float32 as well."""
_ROW_BYTES = 56
"""What the length, the channels, the scale and the place of an id take."""


def decode_strictly(
    body: bytes | memoryview, max_elements: int, memory: Memory = UNLIMITED
) -> ListRequest:
    """Read any request, or say all that is wrong with it.

    Raises:
        UnreadableError: If the body is not JSON in UTF-8.
        InvalidError: If it breaks the contract; every offending series is named, up to a limit.
        TooLargeError: If it has more than ``max_elements`` elements, or takes too much memory.
        OverloadedError: If there is no memory left.
        DeadlineError: If the request is cancelled or its deadline passes.
    """
    pairs = (count_of(np.frombuffer(memoryview(body).toreadonly(), np.uint8), COMMA) + 1) // 2
    fixed_bytes = _PAIR_BYTES * pairs + OBJECT_BYTES * min(len(body), PIECE)
    memory.reserve(fixed_bytes)
    value = read_document(body, memory.check)
    document = fields_of(value)
    if document is None:
        meant = suggest_frame(next(iter(elements_of(value) or ()), None))
        raise InvalidError(meant or f"the body must be an object, not {_kind_of(value)}")
    faults = Faults()
    long = [name for name in JSON_OPTIONS if isinstance(document.get(name), LongValue)]
    named = {name: _short(value) for name, value in document.items() if name not in long}
    options, dtype = options_from_json(named, faults)
    for name in long:
        faults.add(f"/{name}", f"is over {PIECE} bytes long")
    pieces = elements_of(document.get("series"))
    if pieces is None:
        kind = kind_of(named["series"]) if "series" in document else "absent"
        faults.add("/series", f"must be a list of series, not {kind}")
        if (meant := suggest_frame(named)) is not None:
            raise InvalidError(meant, tuple(faults.first), faults.count)
        pieces = []
    # Taken from the document, as a fault in another option puts the defaults into options.
    allows_null = document.get("missing", "error") != "error"
    sides = NUMBERS.empty(len(_SIDES) * pairs, np.float64).reshape(len(_SIDES), pairs)
    scaled = None if faults.count else options.scaled
    reader = _SeriesReader(sides, faults, max_elements, scaled, allows_null=allows_null)
    for piece in pieces:
        if faults.count >= MAX_LISTED_ERRORS:
            faults.is_complete = False
            break
        for fields in piece:
            reader.add(fields)
        memory.reserve(fixed_bytes + reader.kept_bytes)
    faults.check()
    values = [reader.numbers(side, dtype) for side in range(_WEIGHT)]
    weights = reader.weights()
    faults.check()
    channels = np.asarray(reader.channels)
    prediction = Ragged.from_lengths(values[0], reader.lengths)
    return ListRequest(
        prediction=prediction,
        target=prediction.like(values[1]),
        options=options,
        ids=reader.ids,
        channels=channels if channels.any() else None,
        names_bytes=NamesBytes(reader.id_bytes, reader.id_bytes),
        kept_bytes=reader.kept_bytes,
        weights=weights,
        scales=np.asarray(reader.scales) if reader.scales else None,
    )


class _SeriesReader:
    """Checks series one by one and gathers their numbers in one flat array a side.

    Args:
        sides: A row a side, each as long as half of the numbers that there can be.
        faults: Receives what is wrong.
        max_elements: The most elements.
        scaled: The losses that need a scale; None if they are not known.
        allows_null: Whether null is a number, of a prediction or a target.
    """

    def __init__(
        self,
        sides: NDArray[np.float64],
        faults: Faults,
        max_elements: int,
        scaled: tuple[str, ...] | None,
        *,
        allows_null: bool,
    ) -> None:
        self.lengths = array("q")
        self.channels = array("q")
        self.scales = array("d")
        self.ids: list[int | str] = []
        self.id_bytes = 0
        """What ids take in an answer."""
        self.kept_bytes = 0
        """What series take beside their numbers."""
        self._sides = sides
        self._filled = [0] * len(_SIDES)
        self._pending: tuple[list[Any], ...] = tuple([] for _ in _SIDES)
        self._scaled = scaled
        self._has: dict[str, bool] = {}
        """Whether the first series has a weight, and a scale."""
        self._series = 0
        self._faults = faults
        self._max_elements = max_elements
        self._allows_null = allows_null
        self._of = ""

    def add(self, value: object) -> None:
        index = self._series
        self._series += 1
        faults, pointer, fields = self._faults, f"/series/{index}", fields_of(value)
        if fields is None:
            faults.add(pointer, f"must be an object, not {_kind_of(value)}")
            return
        before = faults.count
        for name in fields:
            if name not in _FIELDS:
                meant = suggestion(name, _FIELDS) if faults.count < MAX_LISTED_ERRORS else ""
                faults.add(f"{pointer}/{escape(name)}", f"unknown field{meant}")
        self._of = f"of series {index}"
        self._add_id(fields.get("id", index), f"{pointer}/id")
        has_weight, has_scale = (self._has_too(x, fields, pointer) for x in ("weight", "scale"))
        sides = _SIDES if has_weight else _SIDES[:_WEIGHT]
        shapes = [
            self._add_side(side, fields, f"{pointer}/{name}") for side, name in enumerate(sides)
        ]
        if has_scale:
            self._add_scale(fields["scale"], f"{pointer}/scale")
        elif self._scaled and not self._has["scale"]:
            needed = f"is absent; {' and '.join(self._scaled)} must have one"
            faults.add(f"{pointer}/scale", f"{self._of} {needed}")
        if faults.count > before:
            return
        for name, shape in zip(sides[1:], shapes[1:], strict=True):
            if shape != shapes[0]:
                both = f"prediction ({_shape(shapes[0])}) and {name} ({_shape(shape)})"
                faults.add(pointer, f"{both} {self._of} differ in shape")
                return
        length, channels = shapes[0]
        self.lengths.append(length)
        self.channels.append(channels)

    def _has_too(self, name: str, fields: dict[str, Any], pointer: str) -> bool:
        """Return whether a series has what the first has, or has not, as all must."""
        is_given = name in fields
        if is_given == self._has.setdefault(name, is_given):
            return is_given
        others = f"{'is given' if is_given else 'is absent'}, but not of the first series"
        self._faults.add(f"{pointer}/{name}", f"{self._of} {others}: give all of them one, or none")
        return False

    def _add_scale(self, value: Any, pointer: str) -> None:
        if type(value) not in _NUMBERS:
            fault = f"{self._of} must be a number or null, not {_kind_of(value)}"
            self._faults.add(pointer, fault)
        elif self._scaled == ():
            self._faults.add(pointer, f"{self._of}: none of the losses asked for takes a scale")
        else:
            is_large = type(value) is int and abs(value) >= _TOO_LARGE
            self.scales.append(math.inf if is_large else math.nan if value is None else value)

    def _add_id(self, name: Any, pointer: str) -> None:
        fault = ""
        if isinstance(name, str):
            try:
                size = len(name.encode())
            except UnicodeEncodeError:
                fault = "holds half of a surrogate pair"
            else:
                if size > MAX_ID_BYTES:
                    fault = f"is {size} bytes long; {MAX_ID_BYTES} are allowed"
        elif isinstance(name, bool) or not isinstance(name, int):
            fault = f"must be a string or an integer, not {_kind_of(name)}"
            if isinstance(name, LongValue) and name.kind == "":
                fault = f"is over {PIECE} bytes long; {MAX_ID_BYTES} are allowed"
        elif not -(2**63) <= name < 2**63:
            fault = "must fit in 64 bits"
        if fault:
            self._faults.add(pointer, fault)
        else:
            self.ids.append(name)
            self.id_bytes += len(orjson.dumps(name))
            self.kept_bytes += _ROW_BYTES + sys.getsizeof(name)
            self._of = f"of series {name}"

    def _add_side(self, side: int, fields: dict[str, Any], pointer: str) -> tuple[int, int]:
        """Gather one side up to its first fault.

        Returns:
            The number of elements, and of channels, 0 for a plain list.
        """
        name, of, faults = _SIDES[side], self._of, self._faults
        pieces = iter(elements_of(fields.get(name)) or ())
        first = next(pieces, None)
        if first is None:
            kind = _kind_of(fields[name]) if name in fields else "absent"
            faults.add(pointer, f"{of} must be a list of numbers, not {kind}")
            return 0, 0
        if not first:
            faults.add(pointer, f"{of} is empty: a series has at least one element")
            return 0, 0
        if _is_list(first[0]) and all(map(_is_list, first)):
            return self._add_rows(side, itertools.chain([first], pieces), pointer)
        length = 0
        for part in itertools.chain([first], pieces):
            if not self._extend(side, part, pointer, length):
                break
            length += len(part)
        return length, 0

    def _add_rows(self, side: int, pieces: Iterable[list[Any]], pointer: str) -> tuple[int, int]:
        rows = channels = 0
        for values in pieces:
            if isinstance(values[0], LongValue):
                width = 0
                for part in elements_of(values[0]) or ():
                    if not self._extend(side, part, f"{pointer}/{rows}", width):
                        return 0, 0
                    width += len(part)
                channels = channels or width
                even = int(width == channels)
            else:
                channels = channels or len(values[0])
                uneven = (
                    i for i, x in enumerate(values) if type(x) is not list or len(x) != channels
                )
                even = next(uneven, len(values))
                flat = list(itertools.chain.from_iterable(values[:even]))
                if not self._extend(side, flat, pointer, rows * channels, channels):
                    return 0, 0
            if even < len(values) or channels == 0:
                detail = f"rows {self._of} must be equally long and not empty"
                self._faults.add(f"{pointer}/{rows + even * bool(channels)}", detail)
                return 0, 0
            rows += even
        return rows * channels, channels

    def _extend(
        self, side: int, values: list[Any], pointer: str, start: int, channels: int = 0
    ) -> bool:
        """Gather numbers, the first of which is at ``start``; return False after a fault."""
        kinds = set(map(type, values))
        if not kinds <= _NUMBERS:
            i = next(i for i, value in enumerate(values) if type(value) not in _NUMBERS)
            fault = f"must be a number or null, not {_kind_of(values[i])}"
        elif side == _WEIGHT and type(None) in kinds:
            i, fault = values.index(None), f"is null; it must be {VALID_WEIGHT}"
        elif not self._allows_null and type(None) in kinds:
            i, fault = values.index(None), NULL
        else:
            if not self._faults.count:  # or the request is refused
                pending = self._pending[side]
                pending += values
                if len(pending) >= _PENDING:
                    self._convert(side)
            return True
        self._faults.add(f"{pointer}/{position(channels, start + i)}", f"{self._of} {fault}")
        return False

    def _convert(self, side: int) -> None:
        """Move numbers from objects to the array."""
        flat = self._pending[side]
        try:
            wide = np.array(flat, np.float64)
        except OverflowError:
            finite = (math.inf if type(x) is int and abs(x) >= _TOO_LARGE else x for x in flat)
            wide = np.array(list(finite), np.float64)
        flat.clear()
        start = self._filled[side]
        self._filled[side] += len(wide)
        check_elements(self._filled[side], self._max_elements)
        if self._filled[side] <= self._sides.shape[1]:  # or one side is longer than the other
            self._sides[side, start : self._filled[side]] = wide

    def numbers(self, side: int, dtype: str) -> NDArray[Any]:
        """Return the numbers of one side, NaN for null; note those that do not fit."""
        self._convert(side)
        with np.errstate(over="ignore"):
            values = self._sides[side, : self._filled[side]].astype(dtype, copy=False)
        # null became NaN, so an infinity can only be a number that was too large.
        self._refuse(np.flatnonzero(np.isinf(values)), side, lambda _: f"is too large for {dtype}")
        return values

    def weights(self) -> NDArray[np.float64] | None:
        """Return the weights, if there are any; note those that are invalid."""
        if not self._has.get("weight"):
            return None
        weights = self.numbers(_WEIGHT, "float64")
        self._refuse(
            np.flatnonzero(weights < 0),
            _WEIGHT,
            lambda element: f"is {weights[element]:g}; it must be {VALID_WEIGHT}",
        )
        return weights

    def _refuse(self, elements: NDArray[np.int64], side: int, detail: Callable[[int], str]) -> None:
        """Note elements of one side."""
        offsets = np.cumsum(self.lengths)

        def fault(element: int) -> tuple[str, str]:
            series = int(np.searchsorted(offsets, element, side="right"))
            place = int(element - offsets[series]) + self.lengths[series]
            pointer = f"/series/{series}/{_SIDES[side]}/{position(self.channels[series], place)}"
            return pointer, f"of series {self.ids[series]} {detail(element)}"

        self._faults.add_each(elements, fault)


def _is_list(value: object) -> bool:
    return elements_of(value) is not None


def _shape(shape: tuple[int, int]) -> str:
    length, channels = shape
    return f"{length // channels} x {channels}" if channels else f"{length} elements"


def _short(value: Any) -> Any:
    """Return a value for a message on its kind."""
    return value.kind if isinstance(value, LongValue) else value


def _kind_of(value: object) -> str:
    return kind_of(_short(value))
