"""The strict reader of JSON requests: slow, and the one that words what is wrong.

It reads what ``service.codecs.json.read`` gives up on, with the parser of the standard library,
which can refuse a duplicate key and says where a body stops being JSON.
"""

import itertools
import json
import math
from codecs import BOM_UTF8
from collections import Counter
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from loss_scoring.core import Ragged
from loss_scoring.core.table import suggestion
from loss_scoring.service.codecs.mistaken import frame_meant, what_it_is
from loss_scoring.service.codecs.options import escape, kind_of, options_from_json
from loss_scoring.service.codecs.request import (
    MAX_ID_BYTES,
    NULL,
    ListRequest,
    check_elements,
    position,
)
from loss_scoring.service.errors import MAX_LISTED_ERRORS, Faults, InvalidError, UnreadableError

_SIDES = ("prediction", "target")
_FIELDS = ("id", *_SIDES)
_NUMBERS = {int, float, type(None)}
_TOO_LARGE = 2**1024 - 2**970
"""The least integer that ``float`` refuses."""


def decode_strictly(body: bytes | memoryview, max_elements: int) -> ListRequest:
    """Read any request, or say all that is wrong with it.

    Raises:
        UnreadableError: If the body is not JSON in UTF-8.
        InvalidError: If it breaks the contract; every offending series is named, up to a limit.
        TooLargeError: If it has more than ``max_elements`` elements.
    """
    document = parse(bytes(body))
    if not isinstance(document, dict):
        meant = frame_meant(document)
        raise InvalidError(meant or f"the body must be an object, not {kind_of(document)}")
    faults = Faults()
    options, dtype = options_from_json(document, faults)
    series = document.get("series")
    if not isinstance(series, list):
        kind = kind_of(series) if "series" in document else "absent"
        faults.add("/series", f"must be a list of series, not {kind}")
        if (meant := frame_meant(document)) is not None:
            raise InvalidError(meant, tuple(faults.first), faults.count)
        series = []
    # Taken from the document, as a fault in another option puts the defaults into options.
    reader = _SeriesReader(faults, allows_null=document.get("missing", "error") != "error")
    for i, fields in enumerate(series):
        reader.add(i, fields)
    faults.check()
    check_elements(len(reader.sides[0]), max_elements)
    values = [reader.numbers(side, dtype) for side in range(2)]
    faults.check()
    prediction = Ragged.from_lengths(values[0], reader.lengths)
    return ListRequest(
        prediction=prediction,
        target=prediction.like(values[1]),
        options=options,
        ids=reader.ids,
        channels=np.array(reader.channels, np.int64) if any(reader.channels) else None,
    )


class _SeriesReader:
    """Checks series one by one and gathers their numbers in one flat list a side."""

    def __init__(self, faults: Faults, *, allows_null: bool) -> None:
        self.sides: tuple[list[Any], list[Any]] = ([], [])
        self.lengths: list[int] = []
        self.channels: list[int] = []
        self.ids: list[int | str] = []
        self._faults = faults
        self._allows_null = allows_null
        self._of = ""

    def add(self, index: int, fields: object) -> None:
        faults, pointer = self._faults, f"/series/{index}"
        if not isinstance(fields, dict):
            faults.add(pointer, f"must be an object, not {kind_of(fields)}")
            return
        before = faults.count
        for name in fields:
            if name not in _FIELDS:
                meant = suggestion(name, _FIELDS) if faults.count < MAX_LISTED_ERRORS else ""
                faults.add(f"{pointer}/{escape(name)}", f"unknown field{meant}")
        self._of = f"of series {index}"
        self._add_id(fields.get("id", index), f"{pointer}/id")
        (prediction, width), (target, target_width) = (
            self._side(fields, side, f"{pointer}/{side}") for side in _SIDES
        )
        if faults.count > before:
            return
        if (len(prediction), width) != (len(target), target_width):
            shapes = _shape(prediction, width), _shape(target, target_width)
            detail = "prediction ({}) and target ({}) {} differ in shape"
            faults.add(pointer, detail.format(*shapes, self._of))
            return
        self.sides[0].extend(prediction)
        self.sides[1].extend(target)
        self.lengths.append(len(prediction))
        self.channels.append(width)

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
            fault = f"must be a string or an integer, not {kind_of(name)}"
        elif not -(2**63) <= name < 2**63:
            fault = "must fit in 64 bits"
        if fault:
            self._faults.add(pointer, fault)
        else:
            self.ids.append(name)
            self._of = f"of series {name}"

    def _side(self, fields: dict[str, Any], side: str, pointer: str) -> tuple[list[Any], int]:
        """Return the numbers of one side and its channels, 0 for a plain list."""
        of, faults, values = self._of, self._faults, fields.get(side)
        if not isinstance(values, list):
            kind = kind_of(values) if side in fields else "absent"
            faults.add(pointer, f"{of} must be a list of numbers, not {kind}")
            return [], 0
        if not values:
            faults.add(pointer, f"{of} is empty: a series has at least one element")
            return [], 0
        channels = 0
        kinds = set(map(type, values))
        if kinds == {list}:
            channels = len(values[0])
            for i, row in enumerate(values):
                if not row or len(row) != channels:
                    faults.add(f"{pointer}/{i}", f"rows {of} must be equally long and not empty")
                    return [], 0
            values = list(itertools.chain.from_iterable(values))
            kinds = set(map(type, values))
        if not kinds <= _NUMBERS:
            i = next(i for i, value in enumerate(values) if type(value) not in _NUMBERS)
            detail = f"{of} must be a number or null, not {kind_of(values[i])}"
            faults.add(f"{pointer}/{position(channels, i)}", detail)
        elif not self._allows_null and type(None) in kinds:
            faults.add(f"{pointer}/{position(channels, values.index(None))}", f"{of} {NULL}")
        return values, channels

    def numbers(self, side: int, dtype: str) -> NDArray[Any]:
        """Return the numbers of one side, NaN for null; note those that do not fit."""
        flat = self.sides[side]
        try:
            wide = np.array(flat, np.float64)
        except OverflowError:
            finite = (math.inf if type(x) is int and abs(x) >= _TOO_LARGE else x for x in flat)
            wide = np.array(list(finite), np.float64)
        with np.errstate(over="ignore"):
            values = wide.astype(dtype, copy=False)
        # null became NaN, so an infinity can only be a number that was too large.
        infinite = np.flatnonzero(np.isinf(values))
        offsets = np.cumsum(self.lengths)

        def fault(element: int) -> tuple[str, str]:
            series = int(np.searchsorted(offsets, element, side="right"))
            place = int(element - offsets[series]) + self.lengths[series]
            pointer = f"/series/{series}/{_SIDES[side]}/{position(self.channels[series], place)}"
            return pointer, f"of series {self.ids[series]} is too large for {dtype}"

        self._faults.add_each(infinite, fault)
        return values


def _shape(values: list[Any], width: int) -> str:
    return f"{len(values) // width} x {width}" if width else f"{len(values)} elements"


def parse(body: bytes) -> object:
    """Return what a request body says.

    Raises:
        UnreadableError: If it is not JSON in UTF-8.
        InvalidError: If a key appears twice in one object.
    """
    try:
        return json.loads(
            str(body, "utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as error:
        where = f": {error.reason} at byte {error.start}"
        raise UnreadableError(f"the body is not UTF-8{_meant(body) or where}") from error
    except json.JSONDecodeError as error:
        where = f": {error.msg} at line {error.lineno} column {error.colno}"
        if body.startswith(BOM_UTF8):
            where = "; save it without a byte order mark"
        raise UnreadableError(f"the body is not JSON{_meant(body) or where}") from error
    except RecursionError as error:
        raise UnreadableError("the body is nested too deeply") from error
    except ValueError as error:
        raise UnreadableError(f"the body holds a number that cannot be read: {error}") from error


def _meant(body: bytes) -> str:
    return "" if body.lstrip()[:1] in {b"{", b"["} else what_it_is(body)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidError(f"the key {name!r} appears more than once in one object")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableError(f"{name} is not JSON; send a missing value as null")
