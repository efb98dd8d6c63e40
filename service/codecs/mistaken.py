"""What a body is that is not what its content type says, and what its sender meant."""

from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from loss_scoring.core.table import holds_numbers, is_text

_STREAM = "an Arrow IPC stream (pa.ipc.new_stream, polars: write_ipc_stream)"
_MAGIC = {
    b"PAR1": f"it is a Parquet file; read it, and send its table as {_STREAM}",
    b"ARROW1": f"it is an Arrow or Feather file, not a stream; send {_STREAM}",
    b"FEA1": f"it is a Feather file; read it, and send its table as {_STREAM}",
    b"\x1f\x8b": "it is gzip; say so in Content-Encoding: gzip",
    b"\x28\xb5\x2f\xfd": "it is zstd; say so in Content-Encoding: zstd",
    b"\xff\xff\xff\xff": "it may be an Arrow IPC stream; then send Content-Type: "
    "application/vnd.apache.arrow.stream",
    b"{": "it may be JSON; then send Content-Type: application/json",
    b"[": "it may be JSON; then send Content-Type: application/json",
}
_IDS = ("unique_id", "id", "series_id", "item_id", "ts_id", "series")
_CUTOFFS = ("cutoff", "fcst_date", "forecast_date", "origin")
_TARGETS = ("y", "target", "actual", "actuals", "y_true")
_RECORDS = (
    'the body looks like a frame; did you mean {"series": [{"id": .., "prediction": [..], '
    '"target": [..]}, ..]}, a series an object? A frame with one column a model can be sent in '
    "Arrow, see ?group_columns"
)
_ONE_SERIES = 'the body looks like one series; did you mean {"series": [{..}]}?'


def describe_format(body: bytes | memoryview) -> str:
    """Return what a body appears to be, by its first bytes, for the end of a message.

    Example:
        >>> describe_format(b"PAR1....").startswith("; it is a Parquet file; read it")
        True
        >>> describe_format(b"unique_id,ds,y")
        ''
    """
    head = bytes(body[:8]).lstrip()
    return next((f"; {said}" for magic, said in _MAGIC.items() if head.startswith(magic)), "")


def describe_other_than_arrow(body: memoryview) -> str:
    """Return what a body that is no Arrow stream appears to be, for the end of a message.

    Example:
        >>> describe_other_than_arrow(memoryview(b"unique_id,ds,y")).partition("; read")[0]
        '; it is text, such as CSV'
    """
    head = bytes(body[:64]).removeprefix(BOM_UTF8).decode("utf-8", "ignore")
    is_written = "".join(head.split()).isprintable() and head.strip()
    text = f"; it is text, such as CSV; read it, and send its table as {_STREAM}"
    return describe_format(body) or (text if is_written else "")


def suggest_long_form(schema: pa.Schema) -> str | None:
    """Return the question whether the long form was meant, None if the columns are not like it.

    Example:
        >>> import pyarrow as pa
        >>> schema = pa.schema({"unique_id": "string", "ds": "date32", "y": "double"})
        >>> suggest_long_form(schema).rpartition("did you mean ")[2]
        '?group_columns=unique_id&target_column=y'
    """
    flat = [name for name, count in Counter(schema.names).items() if count == 1]
    numbers = {name for name in flat if holds_numbers(schema.field(name).type)}
    target = next((name for name in _TARGETS if name in numbers), None)
    texts = [name for name in flat if is_text(schema.field(name).type)]
    key = next((name for name in (*_IDS, *texts) if name in flat), None)
    if target is None or key is None or key == target:
        return None
    keys = [key, *(name for name in _CUTOFFS if name in flat)]
    query = f"?group_columns={quote(','.join(keys), safe=',')}&target_column={quote(target)}"
    if "ds" not in flat or "ds" in keys:
        times = [x for x in flat if x not in keys and pa.types.is_temporal(schema.field(x).type)]
        query += f"&time_column={quote(times[0])}" if times else ""
    return f"the columns look like the long form, a row an element; did you mean {query}"


def suggest_frame(document: object) -> str | None:
    """Return what was meant by a JSON document that has no series, None if it is not known.

    Example:
        >>> suggest_frame({"prediction": [1], "target": [2]})
        'the body looks like one series; did you mean {"series": [{..}]}?'
    """
    if isinstance(document, list):
        return _RECORDS if document and isinstance(document[0], dict) else None
    if not isinstance(document, Mapping) or "series" in document:
        return None
    if {"prediction", "target"} <= document.keys():
        return _ONE_SERIES
    return _RECORDS if _has_columns(document.values()) else None


def _has_columns(fields: Collection[Any]) -> bool:
    """Tell whether values are columns, as pandas' ``to_json`` and ``to_dict`` write them."""
    return sum(isinstance(field, (list, dict)) for field in fields) > 1
