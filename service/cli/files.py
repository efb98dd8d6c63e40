"""Files of forecasts, by their endings, a batch of rows at a time."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from loss_scoring.core.table import as_type, is_text, plain_type
from loss_scoring.service.cli.csv_files import SNIFFED, CsvFormat, open_csv
from loss_scoring.service.cli.locations import File
from loss_scoring.service.cli.source import Source, explained
from loss_scoring.service.errors import UnreadableError

BATCH_ROWS = 1 << 17
_READ_AHEAD_BYTES = 64 << 20
FORMATS = (".parquet", ".csv", ".arrow", ".feather", ".ipc", ".arrows")
"""Endings; ``.arrows`` is written as an Arrow stream, and any Arrow ending may be read as one."""
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip")


def open_source(
    file: File,
    batch_rows: int = BATCH_ROWS,
    text: Callable[[Sequence[str]], Collection[str]] = lambda _names: (),
    *,
    numbers: Callable[[Sequence[str]], Collection[str]] = lambda _names: (),
    csv: CsvFormat = SNIFFED,
) -> Source:
    """Open a Parquet, CSV or Arrow file by its ending.

    Args:
        file: The file.
        batch_rows: The most rows in a batch.
        text: Returns the columns of a CSV file that are text whatever they look like, of all names.
        numbers: Likewise those that are numbers, although 007 looks like a code.
        csv: How it is written, if it is a CSV file.

    Raises:
        UnreadableError: If it is absent, has another ending, or is not what its ending says.
    """
    if file.ending not in FORMATS:
        hint = ""
        if file.ending in _COMPRESSED:
            hint = "is compressed; decompress it first (Parquet and Arrow are compressed inside); "
        raise UnreadableError(f"{file}: {hint}the ending must be one of {' '.join(FORMATS)}")
    with explained(file):
        if file.ending == ".csv":
            return open_csv(file, text, numbers, csv)
        read = _parquet if file.ending == ".parquet" else _arrow
        return _plain_source(read(file), batch_rows)


def _plain_source(source: Source, batch_rows: int) -> Source:
    schema = pa.schema([field.with_type(plain_type(field.type)) for field in source.schema])

    def read(columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        fields = pa.schema([schema.field(name) for name in columns])
        kept = [name for name in coded if is_text(schema.field(name).type)]
        for batch in source.read(columns, kept):
            for start in range(0, len(batch), batch_rows):
                part = batch.slice(start, batch_rows)
                arrays = []
                for name, type_ in zip(fields.names, fields.types, strict=True):
                    cells = part.column(name)
                    is_coded = pa.types.is_dictionary(cells.type) and cells.type.value_type == type_
                    keep = is_coded and name in kept
                    arrays.append(cells if keep else as_type(cells, type_, safe=True))
                yield pa.RecordBatch.from_arrays(arrays, fields.names)

    categories = frozenset(
        was.name
        for was, field in zip(source.schema, schema, strict=True)
        if pa.types.is_dictionary(was.type) and is_text(field.type)
    )
    return replace(source, schema=schema, read=read, categories=categories)


def _parquet(file: File) -> Source:
    first = pq.ParquetFile(file.open())

    def read(columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        options = {"metadata": first.metadata, "read_dictionary": coded}
        with file.open() as content:
            # What is read ahead, as is worth its memory at an address, stays as long as its reader.
            ahead = not isinstance(content, pa.OSFile)
            for part in _runs(first.metadata, _READ_AHEAD_BYTES if ahead else math.inf):
                again = pq.ParquetFile(content, pre_buffer=ahead, **options)
                yield from again.iter_batches(BATCH_ROWS, part, list(columns))

    return Source(first.schema_arrow, first.metadata.num_rows, read, is_columnar=True)


def _runs(metadata: pq.FileMetaData, most_bytes: float) -> Iterator[list[int]]:
    """Yield row groups in runs that hold so many bytes, or one group."""
    run: list[int] = []
    size = 0
    for group in range(metadata.num_row_groups):
        own = metadata.row_group(group).total_byte_size
        if run and size + own > most_bytes:
            yield run
            run, size = [], 0
        run.append(group)
        size += own
    if run:
        yield run


def _arrow(file: File) -> Source:
    with file.open() as content:
        is_file = content.read(6) == b"ARROW1"

    def open_(fields: list[int] | None = None) -> Any:
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        reader = pa.ipc.open_file if is_file else pa.ipc.open_stream
        return reader(file.open(), options=options)

    try:
        schema = open_().schema
    except pa.ArrowInvalid as error:
        kind = "Arrow file" if is_file else "Arrow file or stream"
        raise pa.ArrowInvalid(f"is not a complete {kind}: {error}") from error

    def read(columns: Sequence[str], _coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        reader = open_([schema.get_field_index(name) for name in columns])
        for batch in map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader:
            batch.validate(full=True)
            yield batch

    return Source(schema, None, read)
