"""Ordinary JSON requests, read without a Python object per number or series.

A compiled loop reads the list of series without the GIL; what is around it, the skeleton, is
read by an ordinary parser, once for all requests of a client. A body that is unusual in any way is
left to ``service.codecs.json.strict``, which also finds the words for what is wrong.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import DTypeLike, NDArray

from loss_scoring.core import Ragged, ScoreOptions
from loss_scoring.service.codecs.json.loops import LONGEST_SKELETON, count_commas, read_series
from loss_scoring.service.codecs.json.numbers import UNCERTAIN, narrow
from loss_scoring.service.codecs.json.strict import SIDES, position
from loss_scoring.service.codecs.json.text import parse
from loss_scoring.service.codecs.options import options_from_json
from loss_scoring.service.codecs.pools import NUMBERS
from loss_scoring.service.codecs.request import ALLOW_MISSING, ScoreRequest, check_elements
from loss_scoring.service.errors import Faults, ServiceError

_SHORTEST_SERIES = len('{"prediction":[1],"target":[1]}')
SMALL = 1 << 16
"""Bytes of a body for which an upper bound of what is in it will do."""
_IDS_AT_ONCE = 1 << 16
"""Bytes of ids that are read without letting other threads run."""
_number_at = re.compile(rb"[-+.eE0-9]+").match


def decode_ordinary(body: bytes | memoryview, max_elements: int) -> ScoreRequest | None:
    """Read a request; None if it is not an ordinary one.

    Raises:
        TooLargeError: If it has more than ``max_elements`` elements.
        InvalidError: If all that is wrong with it is that it has nulls and does not allow them.
    """
    text = np.frombuffer(body, np.uint8)
    text.flags.writeable = False  # bytes or buffer: one type, so one compiled loop
    size = len(text)
    # A pair of numbers takes four bytes, or two commas.
    empty, most = (np.empty, size // 4) if size <= SMALL else _room(text)
    most_series = size // _SHORTEST_SERIES
    values = empty(2 * most, np.float64)
    offsets = empty(most_series + 1, np.int64)
    widths = empty(most_series, np.int64)
    names = empty(size, np.uint8)
    start, stop, series, named, nulls, odds, nested = read_series(
        text, values, offsets, widths, names
    )
    if series == 0 or start + size - stop > LONGEST_SKELETON:
        return None
    plan = _plan(bytes(body[: start + 1]) + bytes(body[stop:]))
    if plan is None:
        return None
    options, dtype = plan
    offsets, widths = offsets[: series + 1], widths[:series]
    ids = _read_ids(names[:named].tobytes()) if named else range(series)
    if ids is None:
        return None
    elements = int(offsets[series])
    prediction, target = values[:elements], values[most : most + elements]
    if odds and not (_read_odd(prediction, body) and _read_odd(target, body)):
        return None
    if nulls and options.missing == "error":
        _refuse_nulls((prediction, target), offsets, widths, ids)
    check_elements(elements, max_elements)
    if dtype == "float32":
        narrower = empty(elements, np.float32), empty(elements, np.float32)
        if not (narrow(prediction, narrower[0]) and narrow(target, narrower[1])):
            return None
        prediction, target = narrower
    return ScoreRequest(
        prediction=Ragged.trusted(prediction, offsets),
        target=Ragged.trusted(target, offsets),
        options=options,
        ids=ids,
        channels=widths if nested else None,
    )


def _room(text: NDArray[np.uint8]) -> tuple[Callable[[int, DTypeLike], NDArray[Any]], int]:
    """Return what makes the arrays for a large body, and how many elements it can have."""
    return NUMBERS.empty, (count_commas(text) + 1) // 2


@lru_cache(maxsize=512)
def _plan(skeleton: bytes) -> tuple[ScoreOptions, str] | None:
    """Read what is around an empty list of series; None if anything is amiss."""
    try:
        document = parse(skeleton)
    except ServiceError:
        return None
    if not isinstance(document, dict):
        return None
    faults = Faults()
    plan = options_from_json(document, faults)
    return None if faults.count else plan


def _read_ids(text: bytes) -> Sequence[int | str] | None:
    """Read ids that each end in a line break and a comma; None if one is not JSON in UTF-8."""
    ids: list[int | str] = []
    start = 0
    while start < len(text):
        stop = text.find(b"\n", start + _IDS_AT_ONCE)
        stop = stop if stop >= 0 else len(text) - 2
        try:
            ids += orjson.loads(b"[%b]" % text[start:stop])
        except orjson.JSONDecodeError:
            return None
        start = stop + 2
    return ids


def _read_odd(side: NDArray[np.float64], body: bytes | memoryview) -> bool:
    """Read the numbers that were left to ``float``; False if one is infinite."""
    bits = side.view(np.uint64)
    odd = np.flatnonzero(bits >> np.uint64(48) == UNCERTAIN >> np.uint64(48))
    for element, start in zip(odd.tolist(), (bits[odd] - UNCERTAIN).tolist(), strict=True):
        found = _number_at(body, start)
        number = float(found[0]) if found else math.inf
        if math.isinf(number):
            return False
        side[element] = number
    return True


def _refuse_nulls(
    sides: tuple[NDArray[Any], NDArray[Any]],
    offsets: NDArray[np.int64],
    widths: NDArray[np.int64],
    ids: Sequence[int | str],
) -> None:
    """Raise what is wrong with the first null of each side of each series."""
    places = []
    for k, side in enumerate(sides):
        nulls = np.flatnonzero(np.isnan(side))
        series = np.searchsorted(offsets, nulls, side="right") - 1
        series, first = np.unique(series, return_index=True)
        positions = nulls[first] - offsets[series]
        places.append(np.stack([series, np.full(len(series), k), positions], axis=1))
    every = np.concatenate(places)
    every = every[np.lexsort((every[:, 1], every[:, 0]))]
    faults = Faults()

    def fault(i: int) -> tuple[str, str]:
        series, side, place = every[i].tolist()
        pointer = f"/series/{series}/{SIDES[side]}/{position(int(widths[series]), place)}"
        return pointer, f"of series {ids[series]} is null; {ALLOW_MISSING}"

    faults.add_each(range(len(every)), fault)
    faults.check()
