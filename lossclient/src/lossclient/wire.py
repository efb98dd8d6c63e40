"""The one file that knows how series look on the wire.

It writes one row a series, with the lists ``prediction`` and ``target``; so each model has requests
of its own, and takes the target along. (The service's long form would take it once.)
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossclient.forecasts import Floats, Forecasts

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
_SERIES_BYTES = 16
"""Two offsets."""


class Part(NamedTuple):
    """What one request carries: some neighbouring series of one model."""

    model: int
    start: int
    stop: int

    @property
    def series(self) -> int:
        """How many there are."""
        return self.stop - self.start


class Weight(NamedTuple):
    """What a request weighs: its body, and the gradients that come back."""

    element: int
    series: int = _SERIES_BYTES

    def of(self, part: Part, forecasts: Forecasts) -> int:
        """Return the bytes of one part."""
        elements = int(forecasts.offsets[part.stop] - forecasts.offsets[part.start])
        return self.element * elements + self.series * part.series


def weight(forecasts: Forecasts, model: int, gradients: int) -> Weight:
    """Return what an element and a series of one model weigh, with so many gradients."""
    prediction = forecasts.predictions[model].itemsize
    return Weight((1 + gradients) * prediction + forecasts.target.itemsize)


def encode(forecasts: Forecasts, part: Part) -> memoryview:
    """Return the body of a request; its lists are the forecasts' own memory until they are sent."""
    offsets = forecasts.offsets[part.start : part.stop + 1]
    prediction, target = (
        _lists(offsets, side) for side in (forecasts.predictions[part.model], forecasts.target)
    )
    batch = pa.record_batch({"prediction": prediction, "target": target})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def compress(body: memoryview, coding: str) -> memoryview:
    """Return a body in a content coding: ``zstd`` or ``gzip``."""
    # As bytes: the memoryview of a compressed buffer is as long as that was before it shrank.
    return memoryview(pa.compress(pa.py_buffer(body), codec=coding, asbytes=True))


def decode(body: bytes, series: int) -> pa.Table:
    """Return the columns of an answer: length, the losses, masked counts, gradients.

    Raises:
        ValueError: If it is not an answer for so many series.
    """
    try:
        with pa.ipc.open_stream(body) as reader:
            table = reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a sound Arrow stream: {error}") from error
    if table.num_rows != series or table.column_names[:2] != ["id", "length"]:
        raise ValueError(f"columns {table.column_names} with {table.num_rows} rows for {series}")
    return table.drop_columns("id").replace_schema_metadata()  # series are in their order


def _lists(offsets: npt.NDArray[np.int64], values: Floats) -> pa.Array:
    part = np.ascontiguousarray(values[offsets[0] : offsets[-1]])
    return pa.LargeListArray.from_arrays(offsets - offsets[0], part)
