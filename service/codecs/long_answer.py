"""Answers in the long form: a row is a series and model; in Arrow, or columns of a document."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from core import Scores
from core.table import answer_table, interleave
from service.codecs.options import escape
from service.codecs.request import ALLOW_MISSING, LongForm, ScoreRequest
from service.errors import Faults


def check_missing(request: ScoreRequest, long: LongForm) -> None:
    """Refuse elements that are missing or not finite; see ``service.codecs.arrow``."""
    groups, rows = long.groups, int(long.groups.edges[-1])
    target, predictions = request.target.array, request.prediction.array
    sides = [
        target[:rows],
        *(predictions[m * rows :][:rows] for m in range(len(long.layout.models))),
    ]
    faults = Faults()
    for name, side in zip(long.layout.numbers, sides, strict=True):
        places = np.flatnonzero(~np.isfinite(side))
        found = np.sort(places if groups.order is None else groups.order[places])
        pointer = f"/{escape(name)}"
        faults.add_each(
            found,
            lambda row: (f"{pointer}/{row}", f"is missing or not finite; {ALLOW_MISSING}"),  # noqa: B023 - called at once
        )
    faults.check()


def answer(request: ScoreRequest, long: LongForm, scores: Scores) -> pa.Table:
    """Return an answer in Arrow: one row a series and model."""
    groups, layout = long.groups, long.layout
    table = answer_table(groups.keys, groups.edges, layout.models, scores, request.options)
    return table.replace_schema_metadata({"left_out": orjson.dumps(dict(layout.left_out))})


def document(request: ScoreRequest, long: LongForm, scores: Scores) -> dict[str, Any]:
    """Return an answer in JSON: the same rows, as columns."""
    groups, models = long.groups, long.layout.models
    losses, masked, gradients = scores.arrays()
    made: dict[str, Any] = {
        "groups": dict(_json_keys(groups.keys, len(models))),
        "models": list(models) * len(groups),
        "lengths": np.repeat(np.diff(groups.edges), len(models)),
        "losses": {name: interleave(column, len(models)) for name, column in losses.items()},
        "masked": {name: interleave(column, len(models)) for name, column in masked.items()},
        "left_out": dict(long.layout.left_out),
    }
    if request.options.gradients:
        edges = request.prediction.edges
        starts, stops = (
            interleave(bound, len(models)).tolist() for bound in (edges[:-1], edges[1:])
        )
        made["gradients"] = {
            name: [flat[a:b] for a, b in zip(starts, stops, strict=True)]
            for name, flat in gradients.items()
        }
    return made


def _json_keys(keys: pa.Table, models: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield the columns of keys as JSON has them.

    Dates and times are text of ISO 8601; a float that JSON has no number for is text as well.
    """
    for name, column in zip(keys.column_names, keys.columns, strict=True):
        type_ = column.type
        if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
            listed = _iso(column)
        elif pa.types.is_floating(type_):
            listed = [key if math.isfinite(key) else _name(key) for key in column.to_pylist()]
        elif pa.types.is_decimal(type_) or pa.types.is_time(type_):
            listed = column.cast(pa.string()).to_pylist()
        else:
            listed = column.to_pylist()
        yield name, [key for key in listed for _ in range(models)]


def _name(key: float) -> str:
    """Name a float that is not finite as JavaScript does."""
    return "NaN" if math.isnan(key) else "Infinity" if key > 0 else "-Infinity"


def _iso(column: pa.ChunkedArray) -> list[str]:
    """Write dates and times; those of a zone in UTC, so that no table of zones is needed."""
    type_ = column.type
    is_date = pa.types.is_date(type_)
    unit = {pa.date32(): "D", pa.date64(): "ms"}[type_] if is_date else type_.unit
    integer = pa.int32() if unit == "D" else pa.int64()
    numbers = np.concatenate([chunk.view(integer).to_numpy() for chunk in column.chunks])
    moments = numbers.astype(np.int64).view(f"datetime64[{unit}]")
    for coarser in ("D",) if is_date else ("s", "ms", "us"):
        rounded = moments.astype(f"datetime64[{coarser}]")
        if (rounded == moments).all():
            moments = rounded
            break
    zone = "" if is_date or not type_.tz else "Z"
    return [f"{text}{zone}" for text in np.datetime_as_string(moments).tolist()]
