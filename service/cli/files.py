"""Files of forecasts in and of scores out, a batch of rows at a time."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from service.errors import InvalidError, UnreadableError

BATCH_ROWS = 1 << 17
_CSV_BLOCK_BYTES = 1 << 23

ARROW = (".arrow", ".feather", ".ipc", ".arrows")
READABLE = (".parquet", ".csv", *ARROW)
WRITABLE = (".parquet", ".csv", ".arrow")


@dataclass(frozen=True)
class Source:
    """An open file of forecasts.

    Attributes:
        schema: Its columns.
        rows: How many rows it has, None if that is not known beforehand.
        read: Returns batches of the named columns, in order; call it once.
    """

    schema: pa.Schema
    rows: int | None
    read: Callable[[list[str]], Iterator[pa.RecordBatch]]


def open_source(path: Path, batch_rows: int = BATCH_ROWS, text: Collection[str] = ()) -> Source:
    """Open a Parquet, CSV or Arrow file by its ending.

    Args:
        path: The file.
        batch_rows: The most rows in a batch.
        text: Columns of a CSV file that are text whatever they look like: the id 007 is not 7.

    Raises:
        UnreadableError: If it is absent, has another ending, or is not what its ending says.
    """
    suffix = path.suffix.lower()
    if suffix not in READABLE:
        raise UnreadableError(f"{path}: the ending must be one of {' '.join(READABLE)}")
    with explained(path):
        if suffix == ".parquet":
            return _parquet(path, batch_rows)
        return _csv(path, text) if suffix == ".csv" else _arrow(path, batch_rows)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Tell which file an Arrow or operating system error is about."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n", 1)[0]
        raise UnreadableError(f"{path}: {reason}") from error


def _parquet(path: Path, batch_rows: int) -> Source:
    file = pq.ParquetFile(path)

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        yield from file.iter_batches(batch_rows, columns=columns)

    return Source(file.schema_arrow, file.metadata.num_rows, read)


def _csv(path: Path, text: Collection[str]) -> Source:
    options = pa.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    with pa.csv.open_csv(path, read_options=options) as first_block:
        seen = first_block.schema
    # A later block may hold a fraction, or the first value of a column: read numbers as double.
    types = {
        field.name: pa.float64()
        for field in seen
        if pa.types.is_integer(field.type) or pa.types.is_null(field.type)
    }
    types |= {name: pa.string() for name in text if name in seen.names}
    reader = pa.csv.open_csv(
        path,
        read_options=options,
        convert_options=pa.csv.ConvertOptions(column_types=types),
    )

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            yield batch.select(columns)

    return Source(reader.schema, None, read)


def _arrow(path: Path, batch_rows: int) -> Source:
    mapped = pa.memory_map(str(path))
    try:
        file = pa.ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        reader = pa.ipc.open_stream(mapped)
        return Source(reader.schema, None, lambda columns: _sliced(reader, columns, batch_rows))
    batches = (file.get_batch(i) for i in range(file.num_record_batches))
    return Source(file.schema, None, lambda columns: _sliced(batches, columns, batch_rows))


def _sliced(
    batches: Iterator[pa.RecordBatch], columns: list[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        batch.validate(full=True)
        for start in range(0, batch.num_rows, batch_rows):
            yield batch.select(columns).slice(start, batch_rows)


@contextmanager
def open_output(path: Path | None, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that appends rows; the file appears only once all are written.

    Raises:
        InvalidError: If the ending names no format.
    """
    if path is None:
        yield lambda _rows: None
        return
    check_output(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with explained(path), _writer(path.suffix.lower(), part, schema) as writer:
            yield writer.write_table
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_output(path: Path) -> None:
    """Refuse an output whose ending names no format."""
    if path.suffix.lower() not in WRITABLE:
        raise InvalidError(f"{path}: the ending must be one of {' '.join(WRITABLE)}")


def _writer(suffix: str, part: Path, schema: pa.Schema) -> Any:
    if suffix == ".parquet":
        return pq.ParquetWriter(part, schema, compression="zstd")
    if suffix == ".csv":
        return pa.csv.CSVWriter(part, schema)
    return pa.ipc.new_file(part, schema)
