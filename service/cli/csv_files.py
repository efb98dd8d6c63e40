"""CSV files of forecasts: what is between columns, what is before fractions, types."""

import codecs
import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from loss_scoring.core.table import TableError, holds_codes, is_text, text_faults
from loss_scoring.service.cli.locations import File
from loss_scoring.service.cli.source import Source, first_rows
from loss_scoring.service.errors import UsageError

_CSV_BLOCK_BYTES = 1 << 23
_CSV_NULLS = [*pa.csv.ConvertOptions().null_values, "None", "<NA>", *map(" ".__mul__, range(1, 17))]
"""Nulls in a column of numbers: what Arrow takes for one, what pandas does, and blanks."""
SEPARATORS = ";\t|"
"""What is between columns where commas are not."""
_QUOTED = re.compile(r'"[^"]*"')
_COMMAS = r"^\s*[-+]?\d*(,\d+)?([eE][-+]?\d+)?\s*$"
"""A number with a decimal comma, or a whole one."""
_NO_THOUSANDS = r",(\d\d?|\d{4,})\s*$"
"""A comma that is not before three digits."""
_CSV_COLUMN = re.compile(r"In CSV column #(?P<number>\d+): (?P<detail>.*)", re.DOTALL)
_OpenCsv = Callable[..., pa.csv.CSVStreamingReader]
"""`_stream_csv` of a file, which is written in a known way."""


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


SNIFFED = CsvFormat()


def comma_advice(text: str) -> str:
    """Return what else there is to do about a cell of a CSV file, empty if it has no comma.

    Example:
        >>> comma_advice("1,500"), comma_advice("north")
        ('; if that is a decimal comma, pass --decimal ,', '')
    """
    return "; if that is a decimal comma, pass --decimal ," if re.search(r"\d,\d", text) else ""


def open_csv(
    file: File,
    text: Callable[[Sequence[str]], Collection[str]],
    numbers: Callable[[Sequence[str]], Collection[str]],
    csv: CsvFormat,
) -> Source:
    """Open a CSV file; see ``open_source``."""
    csv = replace(csv, delimiter=_delimiter(file, csv.delimiter))
    seen = _schema(open_ := partial(_stream_csv, file, csv))
    named = numbers(seen.names)
    if csv.decimal is None and _has_commas(open_, [field for field in seen if field.name in named]):
        seen = _schema(open_ := partial(_stream_csv, file, replace(csv, decimal=",")))
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


def _stream_csv(
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
        cells = first_rows(blocks, schema)
    return [name for name in names if holds_codes(cells[name])]


def _types_of_blank(open_: _OpenCsv, names: Sequence[str]) -> dict[str, pa.DataType]:
    """Return what columns hold of which the first block has no value."""
    types = dict.fromkeys(names, pa.string())
    if not types:
        return types
    schema = pa.schema(types)
    cells = first_rows(open_(types, schema.names, text_nulls=True), schema)
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
        index = pc.utf8_trim_whitespace(cells).index(value[1] if value else "").as_py()
        if index >= 0:
            return (
                f"holds numbers, but {cells[index].as_py()!r} in row {row + index} is text; "
                f"convert it to a number or a null{way_out}{comma_advice(cells[index].as_py())}"
            )
        row += len(cells)
    return f"cannot be read: {detail}"
