"""Arrow streams as a client writes them."""

from typing import Any

import numpy as np
import pyarrow as pa

from loss_scoring.core import ScoreOptions, Scores, score
from loss_scoring.service.codecs.arrow import read as lists
from loss_scoring.service.codecs.codec import encode
from loss_scoring.service.codecs.request import Limits, ScoreRequest

GRADIENTS = ScoreOptions(gradients=True)


class Account:
    """Memory without an end, which notes what is reserved and what Arrow has used by then."""

    def __init__(self) -> None:
        self.before = pa.total_allocated_bytes()
        self.reserved: list[int] = []
        self.used: list[int] = []
        self.received = 0

    def receive(self, size: int) -> None:
        self.received += size

    def reserve(self, size: int) -> None:
        self.used.append(pa.total_allocated_bytes() - self.before)
        self.reserved.append(size)

    def settle(self, size: int) -> None:
        pass

    def check(self) -> None:
        pass


def write(table: pa.Table | list[pa.RecordBatch], **options: Any) -> bytes:
    batches = table.to_batches() if isinstance(table, pa.Table) else table
    schema = table.schema if isinstance(table, pa.Table) else table[0].schema
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def pair(prediction: pa.Array, target: pa.Array | None = None, **more: Any) -> pa.Table:
    return pa.table(
        {**more, "prediction": prediction, "target": prediction if target is None else target}
    )


def plain(rows: int, **more: Any) -> pa.Table:
    """Rows of one element each."""
    offsets = np.arange(rows + 1, dtype=np.int32)
    return pair(pa.ListArray.from_arrays(offsets, pa.array(np.arange(rows) + 1.0)), **more)


def read(
    body: bytes | memoryview,
    options: ScoreOptions = GRADIENTS,
    *,
    max_bytes: int = 1 << 24,
    max_elements: int = 1 << 20,
    account: Account | None = None,
) -> ScoreRequest:
    limits = Limits(max_bytes, max_elements)
    return lists.decode(memoryview(body), options, limits, account or Account())


def scored(request: ScoreRequest) -> Scores:
    options = request.options
    return score(
        request.prediction,
        request.target,
        options.losses,
        gradients=options.gradients,
        missing=options.missing,
        zero_division=options.zero_division,
    )


def answers(request: ScoreRequest) -> tuple[pa.Table, bytes]:
    """Score a request; the answer in Arrow and in JSON."""
    scores = scored(request)
    table = pa.ipc.open_stream(b"".join(encode(request, scores, "arrow"))).read_all()
    table.validate(full=True)
    return table, b"".join(encode(request, scores, "json"))
