"""Files of forecasts in and of scores out, a batch of rows at a time."""

import codecs
import io
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from loss_scoring.core.table import TableError, holds_codes, is_text, text_faults
from loss_scoring.service.cli.locations import STANDARD, File, is_address, is_web, label_of, upload
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
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip")
_EXHAUSTED = "out of memory", "can't allocate memory", "not enough memory"
"""What torch says on a GPU, and on a CPU by its version."""
SEPARATORS = ";\t|"
"""What is between columns where commas are not."""
_QUOTED = re.compile(r'"[^"]*"')
_COMMAS = r"^\s*[-+]?\d*(,\d+)?([eE][-+]?\d+)?\s*$"
"""A number with a decimal comma, or a whole one."""
_NO_THOUSANDS = r",(\d\d?|\d{4,})\s*$"
"""A comma that is not before three digits."""
_CSV_COLUMN = re.compile(r"In CSV column #(?P<number>\d+): (?P<detail>.*)", re.DOTALL)


_OpenCsv = Callable[..., pa.csv.CSVStreamingReader]
"""`_open_csv` of a file, which is written in a known way."""


class Reader(Protocol):
    """Reads columns of a file."""

    def __call__(
        self, columns: Sequence[str], coded: Sequence[str] = (), /
    ) -> Iterator[pa.RecordBatch]: ...


@dataclass(frozen=True)
class CsvFormat:
    """How CSV files are written; None is found out where it is certain.

    Attributes:
        delimiter: What is between columns: one character, or ``tab``.
        decimal: What is before fractions.
    """

    delimiter: str | None = None
    decimal: Literal[".", ","] | None = None

    def __post_init__(self) -> None:
        names = {"tab": "\t", "\\t": "\t"}
        object.__setattr__(self, "delimiter", names.get(self.delimiter or "", self.delimiter))
        given = self.delimiter
        if given is not None and (len(given) != 1 or not given.isascii() or given in '"\r\n'):
            raise UsageError(f"--delimiter {given!r}: must be one character, or tab")


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
        takes_decimal: Whether a decimal comma can be told by ``--decimal``.
        is_columnar: Whether a column is read without reading others.
    """

    schema: pa.Schema
    rows: int | None
    read: "Reader"
    categories: frozenset[str] = frozenset()
    takes_decimal: bool = False
    is_columnar: bool = False

    def head(self, columns: Collection[str]) -> pa.Table:
        """Return the first rows of some columns, so many that each column has a value if it can."""
        fields = pa.schema([self.schema.field(name) for name in columns])
        return _head(self.read(fields.names), fields)


def open_source(
    file: File,
    batch_rows: int = BATCH_ROWS,
    text: Callable[[Sequence[str]], Collection[str]] = lambda _names: (),
    *,
    numbers: Callable[[Sequence[str]], Collection[str]] = lambda _names: (),
    csv: CsvFormat = CsvFormat(),
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
            return _csv(file, text, numbers, csv)
        read = _parquet if file.ending == ".parquet" else _arrow
        return _plain_source(read(file), batch_rows)


class ExhaustedError(ServiceError):
    """There is not enough memory; the file may be valid."""


def comma_advice(text: str) -> str:
    """Return what else there is to do about a cell of a CSV file, empty if it has no comma.

    Example:
        >>> comma_advice("1,500"), comma_advice("north")
        ('; if that is a decimal comma, pass --decimal ,', '')
    """
    return "; if that is a decimal comma, pass --decimal ," if re.search(r"\d,\d", text) else ""


@contextmanager
def explained(path: File | Path | str) -> Iterator[None]:
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
    return replace(source, schema=schema, read=read, categories=categories)


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


def _parquet(file: File) -> Source:
    first = pq.ParquetFile(file.open())

    def read(columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        options = {"metadata": first.metadata, "read_dictionary": coded}
        with file.open() as content:
            # What is read ahead, as is worth its memory at an address, stays as long as its reader.
            ahead = not isinstance(content, pa.OSFile)
            groups = range(first.num_row_groups)
            for part in [[group] for group in groups] if ahead else [[*groups]]:
                again = pq.ParquetFile(content, pre_buffer=ahead, **options)
                yield from again.iter_batches(BATCH_ROWS, part, list(columns))

    return Source(first.schema_arrow, first.metadata.num_rows, read, is_columnar=True)


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


def _csv(
    file: File,
    text: Callable[[Sequence[str]], Collection[str]],
    numbers: Callable[[Sequence[str]], Collection[str]],
    csv: CsvFormat,
) -> Source:
    csv = replace(csv, delimiter=_delimiter(file, csv.delimiter))
    seen = _schema(open_ := partial(_open_csv, file, csv))
    named = numbers(seen.names)
    if csv.decimal is None and _has_commas(open_, [field for field in seen if field.name in named]):
        seen = _schema(open_ := partial(_open_csv, file, replace(csv, decimal=",")))
    # A later block may hold a fraction: read numbers as double.
    types = {field.name: pa.float64() for field in seen if pa.types.is_integer(field.type)}
    codes = _codes(open_, [name for name in types if seen.names.count(name) == 1])
    types |= dict.fromkeys([name for name in codes if name not in named], pa.string())
    types |= dict.fromkeys(text(seen.names), pa.string())
    blank = [field.name for field in seen if pa.types.is_null(field.type)]
    types |= _types_of_blank(open_, [name for name in blank if name not in types])

    def read(columns: Sequence[str], _coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        try:
            yield from _without_blank_end(open_(types, columns))
        except pa.ArrowInvalid as error:
            if (fault := _CSV_COLUMN.search(str(error))) is None:
                raise
            name = seen.names[int(fault["number"])]
            way_out = "" if name in named else ", or leave the column out by --exclude"
            raise TableError((name, _cell_fault(open_, name, fault["detail"], way_out))) from error

    schema = pa.schema([(field.name, types.get(field.name, field.type)) for field in seen])
    return Source(schema, None, read, takes_decimal=csv.decimal is None)


def _schema(open_: _OpenCsv) -> pa.Schema:
    with open_({}) as first_block:
        return first_block.schema


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


def _delimiter(file: File, given: str | None) -> str:
    """Return what is between the columns: what is given, or what the first line tells."""
    with file.stream() as stream, io.BufferedReader(stream) as content:
        line = content.readline(1 << 24)
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise pa.ArrowInvalid("is in UTF-16; convert it to UTF-8, as iconv does")
    try:
        header = _QUOTED.sub("", line.decode())
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid("is not in UTF-8; convert it, as iconv does") from error
    found = [separator for separator in f",{SEPARATORS}" if separator in header]
    if given is None and len(found) > 1 and found[0] != ",":
        raise pa.ArrowInvalid(f"has {spelled(found)} in its first line; pass --delimiter")
    if given is not None and found and given not in header:
        seen = f"has {spelled(found)} in its first line, and no {given!r}"
        raise pa.ArrowInvalid(f"{seen}; leave out --delimiter, or pass another")
    return given or (found[0] if found else ",")


def spelled(separators: Iterable[str]) -> str:
    """Return separators for a message."""
    return " and ".join(map(repr, separators))


def _open_csv(
    file: File,
    csv: CsvFormat,
    types: dict[str, pa.DataType],
    columns: Sequence[str] = (),
    *,
    text_nulls: bool = False,
) -> pa.csv.CSVStreamingReader:
    return pa.csv.open_csv(
        file.stream(),
        read_options=pa.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
        parse_options=pa.csv.ParseOptions(delimiter=csv.delimiter),
        convert_options=pa.csv.ConvertOptions(
            column_types=types,
            include_columns=list(columns),
            null_values=_CSV_NULLS,
            strings_can_be_null=text_nulls,
            decimal_point=csv.decimal or ".",
        ),
    )


def _has_commas(open_: _OpenCsv, numbers: Sequence[pa.Field]) -> bool:
    """Tell whether a column of numbers is text as it has decimal commas: 1,5 and not 1,500."""
    names = [field.name for field in numbers if is_text(field.type)]
    if not names:
        return False
    with open_(dict.fromkeys(names, pa.string()), names, text_nulls=True) as blocks:
        block = next(iter(blocks), None)
    for column in () if block is None else block.columns:
        cells = column.drop_null()
        if pc.all(pc.match_substring_regex(cells, _COMMAS)).as_py():
            return bool(pc.any(pc.match_substring_regex(cells, _NO_THOUSANDS)).as_py())
    return False


def _codes(open_: _OpenCsv, names: Sequence[str]) -> list[str]:
    """Return the columns of integers that have leading zeros in the first block."""
    if not names:
        return []
    schema = pa.schema(dict.fromkeys(names, pa.string()))
    with open_(dict(zip(names, schema.types, strict=True)), names) as blocks:
        cells = _head(blocks, schema)
    return [name for name in names if holds_codes(cells[name])]


def _types_of_blank(open_: _OpenCsv, names: Sequence[str]) -> dict[str, pa.DataType]:
    """Return what columns hold of which the first block has no value."""
    types = dict.fromkeys(names, pa.string())
    if not types:
        return types
    schema = pa.schema(types)
    cells = _head(open_(types, schema.names, text_nulls=True), schema)
    empty = (name for name in types if cells[name].null_count == len(cells))
    numbers = (name for name, _ in text_faults(cells, (), schema.names))
    return types | dict.fromkeys([*empty, *numbers], pa.float64())


def _cell_fault(open_: _OpenCsv, name: str, detail: str, way_out: str) -> str:
    """Say which text stopped Arrow from reading a column, as ``text_faults`` does."""
    if "UTF8" in detail:
        return "holds text that is not in UTF-8; convert the file, as iconv does"
    value = re.search(r"invalid value '(.*)'", detail, re.DOTALL)
    row = 0
    for batch in open_({name: pa.string()}, [name]) if value else ():
        cells = batch.column(0)
        place = pc.utf8_trim_whitespace(cells).index(value[1] if value else "").as_py()
        if place >= 0:
            return (
                f"holds numbers, but {cells[place].as_py()!r} in row {row + place} is text; "
                f"convert it to a number or a null{way_out}{comma_advice(cells[place].as_py())}"
            )
        row += len(cells)
    return f"cannot be read: {detail}"


class Output(NamedTuple):
    """Where scores go.

    Attributes:
        label: What messages call it.
        suffix: Its format.
        part: A file of this machine to write first, which no other writer uses.
        publish: Puts what is there in its place.
        mode: Who may read it.
    """

    label: str
    suffix: str
    part: Path
    publish: Callable[[Path], object]
    mode: int = 0o600


def find_output(given: str) -> Output:
    """Return where an output goes, or refuse what could not be written once everything is scored.

    Raises:
        UsageError: If the ending names no format, there is no such folder, or standard output is a
            terminal.
    """
    name = f".{secrets.token_hex(8)}.part"
    temporary = Path(tempfile.gettempdir()) / name
    if given == STANDARD:
        if sys.stdout.isatty():
            raise UsageError("-o -: standard output is a terminal; send the Arrow stream elsewhere")
        return Output("standard output", ".arrows", temporary, _to_standard_output)
    ending = Path(given).suffix.lower()
    if ending not in FORMATS:
        raise UsageError(f"{label_of(given)}: the ending must be one of {' '.join(FORMATS)}")
    if is_web(given):
        raise UsageError(f"{label_of(given)}: takes no files; name one, or one of s3://")
    if is_address(given):
        return Output(label_of(given), ending, temporary, partial(upload, address=given))
    path = Path(given)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    return Output(given, ending, path.with_name(name), partial(Path.replace, target=path), 0o666)


def _to_standard_output(part: Path) -> None:
    with part.open("rb") as content:
        shutil.copyfileobj(content, sys.stdout.buffer)
        sys.stdout.buffer.flush()


@contextmanager
def open_output(output: Output | None, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that appends rows; the output appears only once all are written.

    Until then they are in a file that no other writer uses, and that no signal leaves behind.

    Raises:
        UnreadableError: If it cannot be written.
    """
    if output is None:
        yield lambda _rows: None
        return
    label, suffix, part, publish, mode = output

    behind = Behind()
    unwritten: list[pa.Table] = []

    def write(rows: pa.Table) -> None:
        unwritten.append(rows)
        if sum(map(len, unwritten)) >= _ROWS_WRITTEN:
            flush()

    def flush() -> None:
        with explained(label):
            if unwritten:
                behind.call(partial(writer.write_table, pa.concat_tables(unwritten)))
                unwritten.clear()

    with ended_by_signals():
        try:
            with explained(label):
                part.touch(mode, exist_ok=False)  # never a file or a link that is there
                file = part.open("wb")
            writer: Any = file
            try:
                with explained(label):
                    writer = _writer(suffix, file, schema)
                yield write
                flush()
                with explained(label):
                    behind.wait()
                    writer.close()
            except BaseException:
                behind.close()
                for unneeded in (writer, file):  # closed now, and not by a __del__ that complains
                    with suppress(Exception):  # the disk may be full
                        unneeded.close()
                raise
            with explained(label):
                file.close()
                publish(part)
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


def _writer(suffix: str, file: BinaryIO, schema: pa.Schema) -> Any:
    if suffix == ".parquet":
        repeated = [field.name for field in schema if not pa.types.is_float64(field.type)]
        return pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=repeated)
    if suffix == ".csv":
        return pa.csv.CSVWriter(file, schema)
    return (pa.ipc.new_stream if suffix == ".arrows" else pa.ipc.new_file)(file, schema)
