"""Files of forecasts in and of scores out, a batch of rows at a time."""

import codecs
import io
import os
import re
import secrets
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from loss_scoring.core.table import TableError, holds_codes, is_text, text_faults
from loss_scoring.service.cli.threads import Behind
from loss_scoring.service.errors import InvalidError, ServiceError, UnreadableError, UsageError

BATCH_ROWS = 1 << 17
_ROWS_WRITTEN = 1 << 17
_CSV_BLOCK_BYTES = 1 << 23
_CSV_NULLS = [*pa.csv.ConvertOptions().null_values, "None", "<NA>", *map(" ".__mul__, range(1, 17))]
"""Nulls in a column of numbers: what Arrow takes for one, what pandas does, and blanks."""

_ENDS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
FORMATS = (".parquet", ".csv", ".arrow", ".feather", ".ipc", ".arrows")
"""Endings; ``.arrows`` is written as an Arrow stream, and any Arrow ending may be read as one."""
_CSV_COMPRESSED = (".csv.gz", ".csv.zst")
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip")
_EXHAUSTED = "out of memory", "can't allocate memory", "not enough memory"
"""What torch says on a GPU, and on a CPU by its version."""
_CSV_COLUMN = re.compile(r"In CSV column #(?P<number>\d+): (?P<detail>.*)", re.DOTALL)


class Reader(Protocol):
    """Reads columns of a file."""

    def __call__(
        self, columns: Sequence[str], coded: Sequence[str] = (), /
    ) -> Iterator[pa.RecordBatch]: ...


@dataclass(frozen=True)
class Source:
    """A file of forecasts.

    Attributes:
        schema: Its columns. Categories, runs and views have the type of what they hold.
        rows: How many rows it has, None if that is not known beforehand.
        read: Returns batches of the named columns, in the types of the schema, and no others; each
            call reads the file again. Text in columns that a second list names may be coded by a
            dictionary, as it may be in the file.
        categories: Columns of text that are categories in the file.
    """

    schema: pa.Schema
    rows: int | None
    read: "Reader"
    categories: frozenset[str] = frozenset()

    def head(self, columns: Collection[str]) -> pa.Table:
        """Return the first rows of some columns, so many that each column has a value if it can."""
        fields = pa.schema([self.schema.field(name) for name in columns])
        return _head(self.read(fields.names), fields)


def open_source(
    path: Path,
    batch_rows: int = BATCH_ROWS,
    text: Callable[[Sequence[str]], Collection[str]] = lambda _names: (),
    *,
    numbers: Callable[[Sequence[str]], Collection[str]] = lambda _names: (),
) -> Source:
    """Open a Parquet, CSV or Arrow file by its ending.

    Args:
        path: The file.
        batch_rows: The most rows in a batch.
        text: Returns the columns of a CSV file that are text whatever they look like, of all names.
        numbers: Likewise those that are numbers, although 007 looks like a code.

    Raises:
        UnreadableError: If it is absent, has another ending, or is not what its ending says.
    """
    if (reason := _unread_kind(path)) is not None:
        raise UnreadableError(f"{path}: {reason}")
    with explained(path):
        if _ending(path) == ".csv":
            return _csv(path, text, numbers)
        read = _parquet if path.suffix.lower() == ".parquet" else _arrow
        return _plain_source(read(path), batch_rows)


class ExhaustedError(ServiceError):
    """There is not enough memory; the file may be valid."""


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Name the file that an error is about."""
    try:
        yield
    except BrokenPipeError:  # nobody reads standard output any more, which is no error
        raise
    except MemoryError as error:
        raise ExhaustedError(f"{path}: not enough memory: {error}") from error
    except (InvalidError, TableError) as error:
        raise InvalidError(f"{path}: {error}") from error
    except (pa.ArrowException, OSError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error).split("\n", 1)[0]
        raise UnreadableError(f"{path}: {reason}") from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _EXHAUSTED):
            raise
        raise ExhaustedError(f"{path}: not enough memory: {error}") from error


def is_readable(path: Path) -> bool:
    """Tell by its ending whether a file can be read: CSV also as gzip and zstd compress it."""
    return _ending(path) in FORMATS


def _ending(path: Path) -> str:
    name = path.name.lower()
    return ".csv" if name.endswith(_CSV_COMPRESSED) else Path(name).suffix


def _unread_kind(path: Path) -> str | None:
    """Return why a path cannot be read, where that is known without opening it."""
    if str(path) == "-" or path.is_fifo() or path.is_char_device():
        return f"is a pipe; write it to a file that ends in {' '.join(FORMATS)}, and score that"
    if re.match(r"\w\w+:/", str(path)):
        return "is an address; download the file and score that"
    if path.is_dir():
        return (
            "is a folder; score its files one by one, or write them to one file first, as "
            "pyarrow.dataset.dataset(folder, partitioning='hive') and polars.scan_parquet can"
        )
    if path.suffix.lower() in _COMPRESSED and not is_readable(path):
        return "is compressed; decompress it first (Parquet and Arrow are compressed inside)"
    if not is_readable(path):
        return f"the ending must be one of {' '.join(FORMATS)}"
    return None


def _head(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    read, blank = [], set(schema.names)
    for batch in batches:
        read.append(batch)
        blank -= {name for name in blank if batch.column(name).null_count < len(batch)}
        if not blank:
            break
    return pa.Table.from_batches(read, schema)


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
                    arrays.append(cells if keep else _plain(cells, type_))
                yield pa.RecordBatch.from_arrays(arrays, fields.names)

    categories = frozenset(
        was.name
        for was, field in zip(source.schema, schema, strict=True)
        if pa.types.is_dictionary(was.type) and is_text(field.type)
    )
    return Source(schema, source.rows, read, categories)


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return what Arrow can compare, sort, take and write in every format."""
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return plain_type(type_.value_type)
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return views.get(type_, type_)


def _plain(array: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(array.type):  # batches may have different dictionaries
        return _plain(array.dictionary, type_).take(array.indices)
    if pa.types.is_run_end_encoded(array.type):
        return _plain(pc.run_end_decode(array), type_)
    return array if array.type == type_ else array.cast(type_)


def _parquet(path: Path) -> Source:
    file = pq.ParquetFile(path)

    def read(columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(path, metadata=file.metadata, read_dictionary=coded) as again:
            yield from again.iter_batches(BATCH_ROWS, columns=list(columns))

    return Source(file.schema_arrow, file.metadata.num_rows, read)


def _arrow(path: Path) -> Source:
    with path.open("rb") as start:
        is_file = start.read(6) == b"ARROW1"

    def open_(fields: list[int] | None = None) -> Any:
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        reader = pa.ipc.open_file if is_file else pa.ipc.open_stream
        return reader(pa.memory_map(str(path)), options=options)

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


def _csv(
    path: Path,
    text: Callable[[Sequence[str]], Collection[str]],
    numbers: Callable[[Sequence[str]], Collection[str]],
) -> Source:
    _check_header(path)
    with _open_csv(path, {}) as first_block:
        seen = first_block.schema
    # A later block may hold a fraction: read numbers as double.
    types = {field.name: pa.float64() for field in seen if pa.types.is_integer(field.type)}
    named = numbers(seen.names)
    codes = _codes(path, [name for name in types if seen.names.count(name) == 1])
    types |= dict.fromkeys([name for name in codes if name not in named], pa.string())
    types |= dict.fromkeys(text(seen.names), pa.string())
    blank = [field.name for field in seen if pa.types.is_null(field.type)]
    types |= _types_of_blank(path, [name for name in blank if name not in types])

    def read(columns: Sequence[str], _coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        try:
            yield from _without_blank_end(_open_csv(path, types, columns))
        except pa.ArrowInvalid as error:
            if (fault := _CSV_COLUMN.search(str(error))) is None:
                raise
            name = seen.names[int(fault["number"])]
            way_out = "" if name in named else ", or leave the column out by --exclude"
            raise TableError((name, _cell_fault(path, name, fault["detail"], way_out))) from error

    schema = pa.schema([(field.name, types.get(field.name, field.type)) for field in seen])
    return Source(schema, None, read)


def _without_blank_end(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Leave out the last rows without a value in any column, which spreadsheets write."""
    blank: list[pa.RecordBatch] = []  # rows that may be the last
    for batch in batches:
        end = len(batch)
        while end and all(cell[end - 1].as_py() in (None, "") for cell in batch.columns):
            end -= 1
        if end:
            yield from blank
            blank = []
            yield batch.slice(0, end)
        if end < len(batch):
            blank.append(batch.slice(end))


def _check_header(path: Path) -> None:
    with pa.input_stream(str(path)) as stream, io.BufferedReader(stream) as file:
        line = file.readline(1 << 24)
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise pa.ArrowInvalid("is in UTF-16; convert it to UTF-8, as iconv does")
    try:
        header = line.decode()
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid("is not in UTF-8; convert it, as iconv does") from error
    if "," not in header and (separator := re.search(r"[;\t|]", header)):
        raise pa.ArrowInvalid(f"has {separator[0]!r} between its columns; write it with commas")


def _open_csv(
    path: Path,
    types: dict[str, pa.DataType],
    columns: Sequence[str] = (),
    *,
    text_nulls: bool = False,
) -> pa.csv.CSVStreamingReader:
    return pa.csv.open_csv(
        path,
        read_options=pa.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
        convert_options=pa.csv.ConvertOptions(
            column_types=types,
            include_columns=list(columns),
            null_values=_CSV_NULLS,
            strings_can_be_null=text_nulls,
        ),
    )


def _codes(path: Path, names: Sequence[str]) -> list[str]:
    """Return the columns of integers that have leading zeros in the first block."""
    if not names:
        return []
    schema = pa.schema(dict.fromkeys(names, pa.string()))
    with _open_csv(path, dict(zip(names, schema.types, strict=True)), names) as blocks:
        cells = _head(blocks, schema)
    return [name for name in names if holds_codes(cells[name])]


def _types_of_blank(path: Path, names: Sequence[str]) -> dict[str, pa.DataType]:
    """Return what columns hold of which the first block has no value."""
    types = dict.fromkeys(names, pa.string())
    if not types:
        return types
    schema = pa.schema(types)
    cells = _head(_open_csv(path, types, schema.names, text_nulls=True), schema)
    empty = (name for name in types if cells[name].null_count == len(cells))
    numbers = (name for name, _ in text_faults(cells, (), schema.names))
    return types | dict.fromkeys([*empty, *numbers], pa.float64())


def _cell_fault(path: Path, name: str, detail: str, way_out: str) -> str:
    """Say which text stopped Arrow from reading a column, as ``text_faults`` does."""
    if "UTF8" in detail:
        return "holds text that is not in UTF-8; convert the file, as iconv does"
    value = re.search(r"invalid value '(.*)'", detail, re.DOTALL)
    row = 0
    for batch in _open_csv(path, {name: pa.string()}, [name]) if value else ():
        cells = batch.column(0)
        place = pc.utf8_trim_whitespace(cells).index(value[1] if value else "").as_py()
        if place >= 0:
            return (
                f"holds numbers, but {cells[place].as_py()!r} in row {row + place} is text; "
                f"convert it to a number or a null{way_out}"
            )
        row += len(cells)
    return f"cannot be read: {detail}"


@contextmanager
def open_output(path: Path | None, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that appends rows; the file appears only once all are written.

    Until then they are in a file that no other writer uses, and that no signal leaves behind.

    Raises:
        UsageError: If the ending names no format, or there is no such folder.
        UnreadableError: If it cannot be written.
    """
    if path is None:
        yield lambda _rows: None
        return
    check_output(path)
    part = path.with_name(f".{secrets.token_hex(8)}.part")

    behind = Behind()
    unwritten: list[pa.Table] = []

    def write(rows: pa.Table) -> None:
        unwritten.append(rows)
        if sum(map(len, unwritten)) >= _ROWS_WRITTEN:
            flush()

    def flush() -> None:
        with explained(path):
            if unwritten:
                behind.call(partial(writer.write_table, pa.concat_tables(unwritten)))
                unwritten.clear()

    with ended_by_signals():
        try:
            with explained(path):
                file = part.open("xb")  # never a file or a link that is there
            writer: Any = file
            try:
                with explained(path):
                    writer = _writer(path.suffix.lower(), file, schema)
                yield write
                flush()
                with explained(path):
                    behind.wait()
                    writer.close()
            except BaseException:
                behind.close()
                for unneeded in (writer, file):  # closed now, and not by a __del__ that complains
                    with suppress(Exception):  # the disk may be full
                        unneeded.close()
                raise
            with explained(path):
                file.close()
                part.replace(path)
        finally:
            behind.close()
            part.unlink(missing_ok=True)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let the first signal that would end the process raise, so that ``finally`` is reached."""

    def end(number: int, _frame: object) -> None:
        for other in handlers:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    handlers = {number: signal.getsignal(number) for number in _ENDS}
    handlers = {
        number: was for number, was in handlers.items() if was not in {signal.SIG_IGN, None}
    }
    for number in handlers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, was in handlers.items():
            signal.signal(number, was)


def check_output(path: Path) -> None:
    """Refuse an output that could not be written once everything is scored."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: the ending must be one of {' '.join(FORMATS)}")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")


def _writer(suffix: str, file: BinaryIO, schema: pa.Schema) -> Any:
    if suffix == ".parquet":
        repeated = [field.name for field in schema if not pa.types.is_float64(field.type)]
        return pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=repeated)
    if suffix == ".csv":
        return pa.csv.CSVWriter(file, schema)
    return (pa.ipc.new_stream if suffix == ".arrows" else pa.ipc.new_file)(file, schema)
