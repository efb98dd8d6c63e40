"""The strict reader of JSON requests: slow, and the one that words what is wrong.

It sees what ``service.codecs.json.read`` gives up on.
"""

import itertools
import json
import math
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import orjson

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

SIDES = ("prediction", "target")
_NUMBERS = {int, float, type(None)}


def decode_strictly(body: bytes | memoryview, max_elements: int) -> ListRequest:
    """Read any request, or say all that is wrong with it.

    Raises:
        UnreadableError: If the body is not JSON in UTF-8.
        InvalidError: If it breaks the contract; every offending series is named, up to a limit.
        TooLargeError: If it has more than ``max_elements`` elements.
    """
    document = parse(bytes(body))
    faults = Faults()
    if not isinstance(document, dict):
        meant = frame_meant(document)
        raise InvalidError(meant or f"the body must be an object, not {kind_of(document)}")
    options, dtype = options_from_json(document, faults)
    series = document.get("series")
    if not isinstance(series, list):
        kind = kind_of(series) if "series" in document else "absent"
        faults.add("/series", f"must be a list of series, not {kind}")
        if (meant := frame_meant(document)) is not None:
            raise InvalidError(meant, tuple(faults.first), faults.count)
        faults.check()
    # Taken from the document, as a fault in another option puts the defaults into options.
    reader = _SeriesReader(faults, allows_null=document.get("missing", "error") != "error")
    for i, one in enumerate(series or ()):
        reader.add(i, one)
    faults.check()
    check_elements(len(reader.flat["prediction"]), max_elements)

    lengths = reader.lengths
    sides = {}
    for side in SIDES:
        values = _numbers(reader, side, dtype, faults)
        faults.check()
        sides[side] = Ragged.from_lengths(values, lengths)
    channels = np.array(reader.channels, np.int64) if any(reader.channels) else None
    return ListRequest(
        prediction=sides["prediction"],
        target=sides["prediction"].like(sides["target"].array),
        options=options,
        ids=reader.ids,
        channels=channels,
    )


def _add_unknown(
    fields: Mapping[str, Any], known: tuple[str, ...], pointer: str, faults: Faults
) -> None:
    for name in fields:
        if name not in known:
            meant = suggestion(name, known) if faults.count < MAX_LISTED_ERRORS else ""
            faults.add(f"{pointer}/{escape(name)}", f"unknown field{meant}")


class _SeriesReader:
    """Checks series one by one and gathers their numbers into one flat list a side."""

    def __init__(self, faults: Faults, *, allows_null: bool) -> None:
        self.faults = faults
        self.allows_null = allows_null
        self.flat: dict[str, list[Any]] = {side: [] for side in SIDES}
        self.lengths: list[int] = []
        self.channels: list[int] = []
        self.ids: list[int | str] = []
        self._of = ""

    def add(self, index: int, series: object) -> None:
        pointer = f"/series/{index}"
        if not isinstance(series, dict):
            self.faults.add(pointer, f"must be an object, not {kind_of(series)}")
            return
        before = self.faults.count
        _add_unknown(series, ("id", *SIDES), pointer, self.faults)
        self._of = f"of series {index}"
        self._add_id(series.get("id", index), f"{pointer}/id")
        sides = [self._side(series, side, pointer) for side in SIDES]
        if self.faults.count > before:
            return
        (prediction, width), (target, target_width) = sides
        if (len(prediction), width) != (len(target), target_width):
            self.faults.add(
                pointer,
                f"prediction ({_shape(prediction, width)}) and target "
                f"({_shape(target, target_width)}) {self._of} differ in shape",
            )
            return
        self.flat["prediction"] += prediction
        self.flat["target"] += target
        self.lengths.append(len(prediction))
        self.channels.append(width)

    def _add_id(self, name: object, pointer: str) -> None:
        if isinstance(name, str):
            try:
                size = len(name.encode())
            except UnicodeEncodeError:
                self.faults.add(pointer, "holds half of a surrogate pair")
                return
            if size > MAX_ID_BYTES:
                self.faults.add(pointer, f"is {size} bytes long; {MAX_ID_BYTES} are allowed")
            else:
                self._of = f"of series {name}"
        elif isinstance(name, bool) or not isinstance(name, int):
            self.faults.add(pointer, f"must be a string or an integer, not {kind_of(name)}")
            return
        elif not -(2**63) <= name < 2**63:
            self.faults.add(pointer, "must fit in 64 bits")
        else:
            self._of = f"of series {name}"
        self.ids.append(name)

    def _side(self, series: dict[str, Any], side: str, pointer: str) -> tuple[list[Any], int]:
        """Return the numbers of one side and its channels, 0 for a plain list."""
        pointer = f"{pointer}/{side}"
        values = series.get(side)
        if not isinstance(values, list):
            kind = kind_of(values) if side in series else "absent"
            self.faults.add(pointer, f"{self._of} must be a list of numbers, not {kind}")
            return [], 0
        if not values:
            self.faults.add(pointer, f"{self._of} is empty: a series has at least one element")
            return [], 0
        channels = 0
        if list in (kinds := set(map(type, values))) and kinds == {list}:
            channels = len(values[0])
            widths = list(map(len, values))
            if channels == 0 or widths != [channels] * len(values):
                odd = next(i for i, width in enumerate(widths) if width == 0 or width != channels)
                self.faults.add(
                    f"{pointer}/{odd}",
                    f"rows {self._of} must be equally long and not empty",
                )
                return [], 0
            values = list(itertools.chain.from_iterable(values))
            kinds = set(map(type, values))
        if not kinds <= _NUMBERS:
            odd = next(i for i, value in enumerate(values) if type(value) not in _NUMBERS)
            self.faults.add(
                f"{pointer}/{position(channels, odd)}",
                f"{self._of} must be a number or null, not {kind_of(values[odd])}",
            )
        elif not self.allows_null and type(None) in kinds:
            hole = position(channels, values.index(None))
            self.faults.add(f"{pointer}/{hole}", f"{self._of} {NULL}")
        return values, channels


def _shape(values: list[Any], width: int) -> str:
    return f"{len(values) // width} x {width}" if width else f"{len(values)} elements"


def _numbers(
    reader: _SeriesReader, side: str, dtype: str, faults: Faults
) -> npt.NDArray[np.floating[Any]]:
    """Make an array of numbers and None (which becomes NaN); refuse what does not fit."""
    flat = reader.flat[side]
    try:
        wide = np.array(flat, np.float64)
    except OverflowError:  # an integer beyond the range of float64
        wide = np.array([_to_float(x) for x in flat], np.float64)
    with np.errstate(over="ignore"):
        values = wide.astype(dtype, copy=False)
    # null became NaN, so an infinity can only be a number that was too large.
    overflowed = np.flatnonzero(np.isinf(values))
    offsets = np.concatenate([[0], np.cumsum(reader.lengths)])

    def fault(i: int) -> tuple[str, str]:
        element = overflowed[i]
        series = int(np.searchsorted(offsets, element, side="right")) - 1
        place = position(reader.channels[series], int(element - offsets[series]))
        return (
            f"/series/{series}/{side}/{place}",
            f"of series {reader.ids[series]} is too large for {dtype}",
        )

    faults.add_each(range(len(overflowed)), fault)
    return values


def _to_float(number: float | None) -> float:
    if number is None:
        return math.nan
    try:
        return float(number)
    except OverflowError:
        return math.inf


def parse(body: bytes) -> object:
    """Return what a request body says.

    Raises:
        UnreadableError: If it is not JSON in UTF-8.
        InvalidError: If a key appears twice in one object.
    """
    if b"\\" not in body:  # an escaped colon would upset the account
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return _parse_slowly(body)
        if _count_keys(document) == body.count(b":"):
            return document
    return _parse_slowly(body)


def _count_keys(document: object) -> int:
    """Count the keys of a request, and the colons in its ids: all the colons its body may have."""
    if not isinstance(document, dict):
        return 0
    count = len(document)
    for name in ("losses", "series"):
        listed = document.get(name)
        for one in listed if isinstance(listed, list) else ():
            if isinstance(one, dict):
                count += len(one)
                id_ = one.get("id")
                if isinstance(id_, str):
                    count += id_.count(":")
    return count


def _parse_slowly(body: bytes) -> object:
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


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise InvalidError(f"the key {twice!r} appears more than once in one object")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableError(f"{name} is not JSON; send a missing value as null")
