"""Requests in lists, from Arrow: prediction and target, and, if given, id, weight and scale.

The buffers of the body become the buffers of the request without a copy wherever the layout allows
it: one record batch, float values without nulls, both sides of one type.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loss_scoring.core import Ragged, ScoreOptions, invalid_weights
from loss_scoring.core.table import (
    VALID_WEIGHT,
    array_of_column,
    holds_numbers,
    is_text,
    narrowest,
    one_array,
    spell_type,
    suggestion,
)
from loss_scoring.service.codecs.arrow.lists import (
    Side,
    check_nulls,
    flatten,
    gradient_type,
    is_series,
)
from loss_scoring.service.codecs.arrow.names import join_bytes, names_bytes
from loss_scoring.service.codecs.arrow.plain import decode_plain
from loss_scoring.service.codecs.arrow.stream import read_table
from loss_scoring.service.codecs.mistaken import suggest_long_form
from loss_scoring.service.codecs.options import escape
from loss_scoring.service.codecs.request import (
    NO_NAMES,
    Limits,
    ListRequest,
    Memory,
    position,
)
from loss_scoring.service.errors import MAX_LISTED_ERRORS, Faults, InvalidError

_SIDES = ("prediction", "target")
_KNOWN = ("id", *_SIDES, "weight", "scale")


def decode(body: memoryview, options: ScoreOptions, limits: Limits, memory: Memory) -> ListRequest:
    """Read a request from a stream.

    Memory is asked for what is decompressed before it is and, before each copy of numbers that
    cannot be read in place, for what all copies take by then.

    Raises:
        UnreadableError: If the body is not a valid Arrow IPC stream.
        InvalidError: If columns, types, shapes or values break the contract.
        TooLargeError: If it is over a limit.
    """
    request = decode_plain(body, options, limits.elements)
    if request is not None:
        return request
    table = read_table(body, limits.bytes, partial(_columns, scaled=options.scaled), memory)
    copied = 0

    def reserve_copy(size: int) -> None:
        nonlocal copied
        copied += size
        memory.check()
        memory.reserve(copied)

    has_ids = "id" in table.schema.names
    kept = join_bytes(table.column("id")) if has_ids else 0
    if kept:
        reserve_copy(kept)
    ids = _ids(table)
    names = names_bytes(pa.chunked_array([ids])) if has_ids else NO_NAMES
    read = partial(flatten, max_elements=limits.elements, ids=ids, reserve=reserve_copy)
    prediction = read("prediction", table.column("prediction"))
    target = read("target", table.column("target"), like=prediction)
    _check_shapes(prediction, target, "target", ids)
    weight = scales = None
    if "weight" in table.schema.names:
        weight = read("weight", table.column("weight"), like=prediction)
        _check_shapes(prediction, weight, "weight", ids)
        reserve_copy(weight.copied_bytes(pa.float64()))
    if "scale" in table.schema.names:
        column = table.column("scale")
        reserve_copy(8 * len(column) if column.type != pa.float64() or column.null_count else 0)
        scales = array_of_column(column, pa.float64())

    element = narrowest([prediction.flat.type, target.flat.type])
    reserve_copy(sum(side.copied_bytes(element) for side in (prediction, target)))
    # read_table has checked the offsets.
    return ListRequest(
        prediction=(ragged := Ragged.trusted(prediction.numbers(element), prediction.offsets)),
        target=ragged.like(target.numbers(element)),
        options=options,
        ids=ids,
        channels=np.full(table.num_rows, prediction.channels) if prediction.channels else None,
        gradient_type=gradient_type(table.schema.field("prediction").type, element),
        copied=copied > kept,
        names_bytes=names,
        kept_bytes=kept,
        weights=None if weight is None else _weights(weight, ids),
        scales=scales,
    )


def _columns(schema: pa.Schema, scaled: tuple[str, ...]) -> list[str]:
    faults, count = Faults(), Counter(schema.names)
    for name in count:
        if name not in _KNOWN:
            meant = suggestion(name, _KNOWN) if faults.count < MAX_LISTED_ERRORS else ""
            faults.add(f"/{escape(name)}", f"unknown column{meant}")
        elif count[name] > 1:
            faults.add(f"/{name}", "appears more than once")
    for side in (*_SIDES, "weight"):
        if not count[side] and side in _SIDES:
            faults.add(f"/{side}", "the column is absent")
        elif count[side] == 1 and not is_series(schema.field(side).type):
            faults.add(
                f"/{side}",
                f"must be lists of numbers (or of a fixed_size_list of numbers, one a channel), "
                f"not {spell_type(schema.field(side).type)}",
            )
    _check_series(schema, scaled, faults)
    if faults.count and not any(is_series(field.type) for field in schema):
        hint = suggest_long_form(schema)
        if hint is not None:
            raise InvalidError(hint, tuple(faults.first), faults.count)
    faults.check()
    return list(schema.names)


def _check_series(schema: pa.Schema, scaled: tuple[str, ...], faults: Faults) -> None:
    """Check the columns with a cell a series."""
    count = Counter(schema.names)
    if count["id"] == 1 and not _is_id(type_ := schema.field("id").type):
        detail = f"must be strings or integers, not {spell_type(type_)}; cast it to strings"
        faults.add("/id", detail)
    if scaled and not count["scale"]:
        faults.add("/scale", f"the column is absent; {' and '.join(scaled)} must have it")
    elif count["scale"] and not scaled:
        faults.add("/scale", "none of the losses asked for takes it")
    elif count["scale"] == 1 and not holds_numbers(type_ := schema.field("scale").type):
        faults.add("/scale", f"must be numbers, not {spell_type(type_)}")


def _is_id(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return is_text(type_) or pa.types.is_integer(type_)


def _check_shapes(
    prediction: Side, other: Side, name: str, ids: Sequence[int | str] | pa.Array
) -> None:
    if prediction.channels != other.channels:
        raise InvalidError(f"prediction has {_width(prediction)}, {name} {_width(other)}")
    if prediction.offsets is other.offsets or np.array_equal(prediction.offsets, other.offsets):
        return
    faults = Faults()
    lengths = np.diff(prediction.offsets), np.diff(other.offsets)
    faults.add_each(
        np.flatnonzero(lengths[0] != lengths[1]),
        lambda row: (
            f"/prediction/{row}",
            f"of series {ids[row]} has {lengths[0][row]} elements, its {name} {lengths[1][row]}",
        ),
    )
    faults.check()


def _weights(side: Side, ids: Sequence[int | str] | pa.Array) -> NDArray[np.float64]:
    weights = side.numbers(pa.float64())

    def fault(element: int) -> tuple[str, str]:
        series = int(np.searchsorted(side.offsets, element, side="right")) - 1
        place = position(side.channels, int(element - side.offsets[series]))
        rule = f"is {weights[element]:g}; it must be {VALID_WEIGHT}"
        return f"/weight/{series}/{place}", f"of series {ids[series]} {rule}"

    faults = Faults()
    faults.add_each(invalid_weights(weights), fault)
    faults.check()
    return weights


def _width(side: Side) -> str:
    return f"rows of {side.channels} channels" if side.channels else "plain elements"


def _ids(table: pa.Table) -> Sequence[int | str] | pa.Array:
    if "id" not in table.schema.names:
        return range(table.num_rows)
    ids = one_array(table.column("id"))
    faults = Faults()
    check_nulls("id", ids, faults)
    names = ids.dictionary if pa.types.is_dictionary(ids.type) else ids
    if pa.types.is_dictionary(ids.type) and names.null_count:
        faults.add("/id", "its dictionary holds a null")
    faults.check()
    return ids
