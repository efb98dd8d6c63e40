"""JSON bodies to requests: common ones without a Python object per number or series.

A compiled loop reads the list of series without the GIL; what surrounds it, the skeleton, is read
by an ordinary parser, once for all requests of a client. A body that is uncommon in any way is left
to ``service.codecs.json.strict``, which also finds the words for what is wrong.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import DTypeLike, NDArray

from loss_scoring.core import Ragged, ScoreOptions
from loss_scoring.service.codecs.json.loop import COMMA, OBJECT, count_of, read_series
from loss_scoring.service.codecs.json.parse import PIECE, parse
from loss_scoring.service.codecs.json.strict import decode_strictly
from loss_scoring.service.codecs.options import options_from_json
from loss_scoring.service.codecs.pools import NUMBERS
from loss_scoring.service.codecs.request import (
    UNLIMITED,
    ListRequest,
    Memory,
    NamesBytes,
    check_elements,
)
from loss_scoring.service.errors import Faults, ServiceError

find_series = re.compile(rb'"series"[ \t\r\n]*:[ \t\r\n]*\[').search
_LONGEST_SKELETON = 4096
"""Bytes that may surround the series."""
_SHORTEST_SERIES = len('{"prediction":[1],"target":[1]}')
_SMALL = 1 << 16
"""Bytes of a body for which an upper bound of what is in it will do."""
_PAIR_BYTES = 16
"""What a pair of numbers takes, and the offset and width of a series."""
_ID_BYTES = 96
"""What an id takes as an object, beside four bytes for each of its text."""
_ID_PIECE_BYTES = 1 << 16
"""Bytes of ids that are read without letting other threads run."""
_PARSER_BYTES = 16 * _ID_PIECE_BYTES
"""What orjson takes meanwhile."""


def decode(
    body: bytes | memoryview, *, max_elements: int, memory: Memory = UNLIMITED
) -> ListRequest:
    """Read a request; raises as ``decode_strictly`` does."""
    request = decode_common(body, max_elements, memory)
    return decode_strictly(body, max_elements, memory) if request is None else request


def warm_up() -> None:
    """Compile what decoding needs, or load it from numba's cache."""
    body = b'{"series": [{"prediction": [1], "target": [1]}]}'
    for size in (0, max(_SMALL, PIECE)):  # with so many blanks it is uncommon as well
        decode(body + size * b" ", max_elements=1)


def decode_common(
    body: bytes | memoryview, max_elements: int, memory: Memory = UNLIMITED
) -> ListRequest | None:
    """Read a request; None if it is not a common one.

    Args:
        body: All of it.
        max_elements: The most elements.
        memory: Asked for what a body takes that is not small.

    Raises:
        TooLargeError: If it has more than ``max_elements`` elements.
        InvalidError: If all that is wrong with it is that it has nulls and does not allow them.
    """
    found = find_series(body, 0, _LONGEST_SKELETON)
    if found is None:
        return None
    start = found.end() - 1
    # All are read-only and so of one type, for which the loop is compiled.
    text = np.frombuffer(memoryview(body).toreadonly(), np.uint8)
    size = len(text)
    limit = size // _SHORTEST_SERIES + 1
    reserved = id_objects = 0
    empty: Callable[[int, DTypeLike], NDArray[Any]]
    if size <= _SMALL:
        empty, most = np.empty, size // 4  # a pair of numbers takes four bytes
    else:
        empty, most = NUMBERS.empty, (count_of(text, COMMA) + 1) // 2
        limit = min(limit, count_of(text, OBJECT) + 1)
        reserved = _PAIR_BYTES * (most + limit) + size
        memory.reserve(reserved)
    values = empty(2 * most, np.float64)
    layout = empty(2 * limit, np.int64)
    id_text = empty(size, np.uint8)
    stop, series, id_bytes, nulls, has_rows = read_series(text, start, values, layout, id_text)
    if series == 0 or start + 1 + size - stop > _LONGEST_SKELETON:
        return None
    plan = _plan(b"".join((body[: start + 1], body[stop:])))
    if plan is None:
        return None
    options, dtype = plan
    offsets, widths = layout[: series + 1], layout[limit : limit + series]
    elements = int(offsets[series])
    if reserved:
        narrow_bytes = _PAIR_BYTES // 2 * elements if dtype == "float32" else 0
        id_objects = _ID_BYTES * series + 4 * id_bytes + _PARSER_BYTES if id_bytes else 0
        memory.reserve(reserved + narrow_bytes + id_objects)
    ids = _read_ids(id_text[:id_bytes].tobytes()) if id_bytes else range(series)
    if ids is None:
        return None
    prediction, target = values[:elements], values[most : most + elements]
    request = ListRequest(
        prediction=Ragged.trusted(prediction, offsets),
        target=Ragged.trusted(target, offsets),
        options=options,
        ids=ids,
        channels=widths if has_rows else None,
        names_bytes=NamesBytes(id_bytes, id_bytes),  # an id is never longer when it is written
        kept_bytes=id_objects,
    )
    if nulls and options.missing == "error":
        request.check_missing()
    check_elements(elements, max_elements)
    if dtype == "float32":
        narrow = empty(2 * elements, np.float32)
        with np.errstate(over="ignore"):
            narrow[:elements], narrow[elements:] = prediction, target
        if np.isinf(narrow).any():
            return None
        request.prediction = Ragged.trusted(narrow[:elements], offsets)
        request.target = Ragged.trusted(narrow[elements:], offsets)
    return request


@lru_cache(maxsize=512)
def _plan(skeleton: bytes) -> tuple[ScoreOptions, str] | None:
    """Read what surrounds an empty list of series; None if anything is uncommon."""
    try:
        document = parse(skeleton)
    except ServiceError:
        return None
    if not isinstance(document, dict) or document.get("series") != []:
        return None
    faults = Faults()
    plan = options_from_json(document, faults)
    return None if faults.count or plan[0].scaled else plan  # a scale is uncommon


def _read_ids(text: bytes) -> Sequence[int | str] | None:
    """Read ids that each end in a line break and a comma; None if one is not JSON in UTF-8."""
    ids: list[int | str] = []
    start = 0
    while start < len(text):
        stop = text.find(b"\n", start + _ID_PIECE_BYTES)
        stop = stop if stop >= 0 else len(text) - 2
        try:
            ids += orjson.loads(b"[%b]" % text[start:stop])
        except orjson.JSONDecodeError:
            return None
        start = stop + 2
    return ids
