"""Elements of series, pooled by other columns: a category, a weekday, the horizon."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .frames import codes

HORIZON = "horizon"
"""Where no column has this name: the place of an element in its series by time, from 1."""


class UnorderedError(ValueError):
    """Text of which it is not known what comes first, such as 3/4/2026."""


class Pools(NamedTuple):
    """Elements that were pooled: groups in ascending order, the elements of each by series.

    Attributes:
        offsets: Where each group starts and ends, one more than there are.
        rows: Which row of the table each element is from.
        horizon: Its step in its series by time, from 1.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    horizon: NDArray[np.int64]


def columns_to_pool_by(by: str | Sequence[str]) -> tuple[str, ...]:
    """Return the columns, each once; ``model`` goes without saying, as each row is of one."""
    names = (by,) if isinstance(by, str) else by
    return tuple(name for name in dict.fromkeys(names) if name != "model")


def pool(
    table: pa.Table,
    by: Sequence[str],
    rows: NDArray[np.int64],
    member: NDArray[np.int64],
    moments: NDArray[np.int64] | None = None,
) -> Pools:
    """Group elements by some columns, in an order that does not depend on that of the rows.

    Args:
        table: One row an element; what ``by`` names and the table lacks is the horizon.
        by: The columns to pool by; without any, all elements are one group.
        rows: All rows, in any order.
        member: The series of each of them; series are numbered by their keys.
        moments: The time of each of them, as a number; None leaves the rows of a series in order.

    Example:
        >>> table, ids = pa.table({"shop": ["b", "a", "a"]}), np.array([0, 0, 1])
        >>> offsets, rows, horizon = pool(table, ["shop"], np.arange(3), ids)
        >>> offsets.tolist(), rows.tolist(), horizon.tolist()
        ([0, 2, 3], [1, 2, 0], [2, 1, 1])
    """
    order = np.lexsort((member,) if moments is None else (moments, member))
    rows, sizes = rows[order], np.bincount(member)
    horizon = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    present = [name for name in by if name in table.column_names]
    group = (
        codes(table.select(present), present)[rows] if present else np.zeros(len(rows), np.int64)
    )
    if len(present) < len(by):
        derived = [name if name in present else HORIZON for name in by]
        columns = {name: codes(table, [name])[rows] for name in present} | {HORIZON: horizon}
        group = codes(pa.table(columns), derived)
    within = np.argsort(group, kind="stable")
    counts = np.bincount(group, minlength=0 if by else 1)
    return Pools(np.append(0, np.cumsum(counts)), rows[within], horizon[within])


def moments_of(times: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Number times without nulls in their order; text by what it means.

    Raises:
        UnorderedError: If they are text, and neither whole numbers nor ISO 8601.

    Example:
        >>> moments_of(pa.array(["10", "9"])).tolist()
        [1, 0]
    """
    times = times if isinstance(times, pa.ChunkedArray) else pa.chunked_array([times])
    if any(is_text(times.type) for is_text in (pa.types.is_string, pa.types.is_large_string)):
        times = _meant(times)
    elif pa.types.is_string_view(times.type) or pa.types.is_dictionary(times.type):
        return moments_of(times.cast(getattr(times.type, "value_type", pa.large_string())))
    return codes(pa.table({"time": times}), ["time"])


def _meant(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    for type_ in (pa.int64(), pa.timestamp("ns"), pa.timestamp("ns", "UTC")):
        try:
            return texts.cast(type_)
        except pa.ArrowInvalid:
            continue
    raise UnorderedError(
        f"holds text such as {str(texts[0])[:64]!r}, of unknown order; "
        "cast it to times for a horizon"
    )
