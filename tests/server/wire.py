"""Requests and answers as a client makes and reads them."""

from collections.abc import Sequence
from typing import Any

import httpx
import pyarrow as pa

ARROW = "application/vnd.apache.arrow.stream"


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def table_of(series: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(series))


def post_arrow(client: httpx.Client, table: pa.Table, **query: Any) -> pa.Table:
    answer = client.post(
        "/score", params=query, content=stream(table), headers={"Content-Type": ARROW}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ARROW
    return pa.ipc.open_stream(answer.content).read_all()


def flat(column: Sequence[Sequence[float]]) -> list[float]:
    return [value for series in column for value in series]
