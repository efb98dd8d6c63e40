"""A service tuned by hand for this one task: FastAPI, numpy, orjson or Arrow, one process.

What a careful engineer makes fast where the formulas are few and known: a raw route without models,
numbers packed straight into an array, losses and gradients in closed form over all series at once,
answers written from the arrays, Arrow read in place, nothing that waits for a batch. It refuses
what is not finite, empty, or of unequal lengths.

uvicorn tuned_app:app --loop uvloop --http httptools
"""

import gc
import math
import struct
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from operator import itemgetter
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import orjson
import pyarrow as pa
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

Array = NDArray[Any]
Columns = dict[str, Array]
JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
SIZES: dict[str, Callable[[Array, Array], Array]] = {
    "mape": lambda _, y: np.abs(y),
    "smape": lambda p, y: np.abs(p) + np.abs(y),
}
NAMES = ("mae", *SIZES)
SERIES = pa.list_(pa.float64())
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def score(
    names: list[str], p: Array, y: Array, offsets: Array, *, gradients: bool
) -> tuple[Columns, Columns]:
    """Return by name of the loss a value for each series and, if wanted, a flat gradient."""
    starts, lengths = offsets[:-1], offsets[1:] - offsets[:-1]
    if len(lengths) == 0 or lengths.min() < 1:
        raise ValueError("there is no series, or one without an element")
    difference = p - y
    error = np.abs(difference)
    total = np.add.reduceat(error, starts)
    if not is_finite(total) and not (np.isfinite(p).all() and np.isfinite(y).all()):
        raise ValueError("an element is not finite")
    slope = np.sign(difference) * np.repeat(1 / lengths, lengths) if gradients else None
    values, slopes = {}, {}
    for name in names:
        sums, slopes[name] = (
            (total, slope) if name == "mae" else relative(error, SIZES[name](p, y), starts, slope)
        )
        values[name] = sums / lengths
    return values, slopes if gradients else {}


def relative(error: Array, size: Array, starts: Array, slope: Array | None) -> tuple[Array, Array]:
    """Return the sums of error / size by series, and slope / size; what is not finite is 0."""
    share = np.reciprocal(size)
    sums = np.add.reduceat(error * share, starts)
    if not is_finite(sums):
        terms = error / size
        terms[~np.isfinite(terms)] = 0
        sums = np.add.reduceat(terms, starts)
    if slope is not None:
        share *= slope
        if not is_finite(share):
            share[~np.isfinite(share)] = 0
    return sums, share


def is_finite(column: Array) -> bool:
    """Tell whether a sum is finite, and so all that is in it."""
    return math.isfinite(np.add.reduce(column))


def score_json(body: bytes) -> bytes:
    request = orjson.loads(body)
    gradients = request.get("gradients") is True
    sides = [list(map(itemgetter(side), request["series"])) for side in ("prediction", "target")]
    lengths = list(map(len, sides[0]))
    if lengths != list(map(len, sides[1])):
        raise ValueError("prediction and target differ in length")
    offsets = np.array([*accumulate(lengths, initial=0)])
    values, slopes = score(
        request.get("losses", NAMES), *map(flat, sides), offsets, gradients=gradients
    )
    answer: dict[str, Any] = {"losses": values}
    if gradients:
        answer["gradients"] = {name: rows(slope, lengths) for name, slope in slopes.items()}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def flat(lists: list[list[float]]) -> Array:
    """Return all numbers as one array: quicker than numpy does it, and no text is a number."""
    numbers = [*chain.from_iterable(lists)]
    return np.frombuffer(struct.pack(f"{len(numbers)}d", *numbers))


def rows(column: Array, lengths: list[int]) -> Array | list[Array]:
    if lengths.count(lengths[0]) == len(lengths):
        return column.reshape(len(lengths), -1)
    return [column[a:b] for a, b in pairwise(accumulate(lengths, initial=0))]


def score_arrow(body: bytes, query: bytes) -> bytes:
    names, gradients = options(query)
    with pa.ipc.open_stream(body) as reader:
        table = reader.read_all()
    table.validate()
    offsets, p = side(table, "prediction")
    other, y = side(table, "target")
    if not np.array_equal(offsets, other):
        raise ValueError("prediction and target differ in length")
    values, slopes = score(names, p, y, offsets, gradients=gradients)
    columns = {name: pa.array(value) for name, value in values.items()}
    if gradients:
        ends = pa.array(offsets)
        for name, slope in slopes.items():
            columns[f"{name}_gradient"] = pa.ListArray.from_arrays(ends, pa.array(slope))
    batch = pa.record_batch(columns)
    return b"".join((batch.schema.serialize(), batch.serialize(), END_OF_STREAM))


@lru_cache
def options(query: bytes) -> tuple[list[str], bool]:
    given = parse_qs(query.decode())
    names = given["losses"][0].split(",") if "losses" in given else [*NAMES]
    return names, given.get("gradients") == ["true"]


def side(table: pa.Table, name: str) -> tuple[Array, Array]:
    """Return offsets and values of a column of lists, in place if it is one chunk of doubles."""
    column = table.column(name)
    if column.type != SERIES:
        column = column.cast(SERIES)
    lists = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    values = lists.values
    if lists.null_count or values.null_count:
        raise ValueError(f"{name} holds a null")
    offsets = lists.offsets.to_numpy()
    first, last = offsets[0], offsets[-1]
    return offsets - first, values.to_numpy()[first:last]


async def answer(request: Request) -> Response:
    body = await request.body()
    try:
        if request.headers.get("content-type") == ARROW:
            return Response(score_arrow(body, request.scope["query_string"]), media_type=ARROW)
        return Response(score_json(body), media_type=JSON)
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        struct.error,
        pa.ArrowException,
    ) as error:
        return Response(orjson.dumps({"detail": str(error)}), 422, media_type=JSON)


async def alive(_request: Request) -> Response:
    return Response()


np.seterr(all="ignore")  # what is not finite is looked for
app = FastAPI(openapi_url=None)
app.add_route("/score", answer, methods=["POST"])
app.add_route("/livez", alive)
gc.collect()
gc.freeze()  # a full collection would walk all that the libraries made
