"""Where forecasts and actual values are: files, patterns, folders with partitions."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path, PurePath
from urllib.parse import unquote

import pyarrow as pa

from loss_scoring.core.table import Actuals, TableError, spell_type
from loss_scoring.service.cli.columns import Roles
from loss_scoring.service.cli.csv_files import CsvFormat
from loss_scoring.service.cli.files import FORMATS, open_source
from loss_scoring.service.cli.locations import (
    STANDARD,
    File,
    ending_of,
    find_remote,
    is_address,
    label_of,
    standard_input,
)
from loss_scoring.service.cli.source import Source, explained
from loss_scoring.service.errors import InvalidError, UnreadableError, UsageError

Names = Callable[[Sequence[str]], Collection[str]]
_PARTITION = re.compile(r"(?P<name>[^=]+)=(?P<value>.*)", re.DOTALL)
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"0|-?[1-9]\d{0,17}")


def _none(_names: Sequence[str]) -> Collection[str]:
    return ()


@dataclass(frozen=True)
class Part:
    """A file, and what the names of its folders say: ``cutoff=2026-01-01``."""

    file: File
    values: dict[str, str | None]


@dataclass(frozen=True)
class Inputs:
    """What the user names.

    Attributes:
        files: Files, patterns and folders of forecasts.
        actuals: The same of actual values, if they are apart.
        on: The columns by which rows of the two belong together.
        csv: How those are written that are CSV files.
    """

    files: tuple[str, ...]
    actuals: str | None
    on: tuple[str, ...]
    csv: CsvFormat

    def __str__(self) -> str:
        """Return what messages call the forecasts, and which rows they number from 0."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        rows = "" if self.actuals is None else " (rows that have an actual value)"
        return f"{label_of(self.files[0])}{more}{rows}"

    def open(self, roles: Roles) -> tuple[Source, Actuals | None]:
        """Return the forecasts, with their actual values if these are apart.

        Raises:
            InvalidError: If the parts do not fit together.
            UnreadableError: If one cannot be read.
        """
        actuals = self.read_actuals(roles)
        if actuals is None:
            return self.forecasts(roles.text, roles.numbers), None

        def text(names: Sequence[str]) -> Collection[str]:
            return {*roles.text(names), *({*actuals.on} & {*names})}

        forecasts = self.forecasts(text, roles.numbers)
        with explained(str(self)):
            return with_actuals(forecasts, actuals), actuals

    def read_actuals(self, roles: Roles) -> Actuals | None:
        """Return the actual values, if these are apart; as ``open``."""
        if self.actuals is None:
            if self.on:
                raise UsageError("--on is for --actuals")
            return None
        on = self.on or (roles.id or "unique_id", roles.time)
        target = roles.target or "y"

        def text(names: Sequence[str]) -> Collection[str]:
            return {*on} & {*names}

        source = open_inputs([self.actuals], text, lambda _names: {target}, csv=self.csv)
        with explained(label_of(self.actuals)):
            absent = [name for name in (*on, target) if name not in source.schema.names]
            if absent:
                raise TableError((absent[0], "is absent; name columns by --on and --target-col"))
            fields = pa.schema([source.schema.field(name) for name in (*on, target)])
            return Actuals(pa.Table.from_batches(source.read(fields.names), fields), on, target)

    def forecasts(self, text: Names = _none, numbers: Names = _none) -> Source:
        """Return the forecasts alone; see ``open_inputs``."""
        return open_inputs(self.files, text, numbers, csv=self.csv)


def open_inputs(
    files: Sequence[str], text: Names, numbers: Names = _none, *, csv: CsvFormat
) -> Source:
    """Open files as one: the rows of the first, then of the second, and so on.

    Args:
        files: Files, patterns and folders; files of a folder are in the order of their names.
        text: The columns of CSV files that are text; see ``open_source``.
        numbers: Likewise those that are numbers.
        csv: How CSV files are written.

    Raises:
        InvalidError: If their columns differ in type.
        UnreadableError: If there is none, or one cannot be read.
    """
    parts = [part for given in files for part in find_parts(given)]
    sources = [open_source(part.file, text=text, numbers=numbers, csv=csv) for part in parts]
    if len(parts) == 1 and not parts[0].values:
        return sources[0]
    return _joined(parts, sources)


def find_parts(given: str) -> list[Part]:
    """Return the files that a path, an address, a pattern of either or a folder stands for.

    Raises:
        UnreadableError: If there is none.
    """
    if given == STANDARD:
        return [Part(standard_input(), {})]
    if is_address(given):
        found = [Part(each.file, _values(each.path)) for each in find_remote(given, _holds_rows)]
        if not found:
            raise UnreadableError(f"{given}: no file that ends in {' '.join(FORMATS)} is there")
        return found
    path = Path(given)
    if path.is_fifo() or path.is_char_device():
        raise UnreadableError(
            f"{given}: is a pipe; send an Arrow stream to standard input and pass -, or write it "
            f"to a file that ends in {' '.join(FORMATS)}"
        )
    if path.is_dir():
        inside = [each.relative_to(path) for each in sorted(path.rglob("*")) if each.is_file()]
        below = list(filter(_holds_rows, inside))
        if not below:
            raise UnreadableError(f"{given}: holds no file that ends in {' '.join(FORMATS)}")
        return [Part(File.at(path / each), _values(each)) for each in below]
    if has_magic(given) and not path.exists():
        names = sorted(glob(given, recursive=True))  # noqa: PTH207 - Path's takes no absolute one
        if not names:
            raise UnreadableError(f"{given}: no file has such a name")
        parts = [part for name in names for part in find_parts(name)]
        return [replace(part, values=_values(Path(part.file.label))) for part in parts]
    return [Part(File.at(path), {})]


def _holds_rows(path: PurePath) -> bool:
    """Tell whether a file of a folder holds rows: engines write markers and temporary files too."""
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    return not hidden and ending_of(path.name) in FORMATS


def _values(path: PurePath) -> dict[str, str | None]:
    matches = filter(None, map(_PARTITION.fullmatch, path.parts[:-1]))
    values = {match["name"]: unquote(match["value"]) for match in matches}
    return {name: None if value == _NO_PARTITION else value for name, value in values.items()}


def _joined(parts: Sequence[Part], sources: Sequence[Source]) -> Source:
    schema = pa.schema([*_common_fields(parts, sources), *_partition_fields(parts, sources)])

    def read(columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        fields = [schema.field(name) for name in columns]
        for part, source in zip(parts, sources, strict=True):
            own = [name for name in columns if name in source.schema.names]
            kept = [name for name in coded if name in own]
            with explained(part.file):
                for batch in source.read(own or source.schema.names[:1], kept):
                    arrays = [_cells(batch, field, part) for field in fields]
                    yield pa.RecordBatch.from_arrays(arrays, list(columns))

    rows = [source.rows for source in sources]
    total = None if None in rows else sum(filter(None, rows))
    categories = frozenset().union(*(source.categories for source in sources))
    takes_decimal = any(source.takes_decimal for source in sources)
    is_columnar = all(source.is_columnar for source in sources)
    return Source(schema, total, read, categories, takes_decimal, is_columnar)


def _common_fields(parts: Sequence[Part], sources: Sequence[Source]) -> Iterator[pa.Field]:
    """Yield the columns of all files, each in a type that holds what every file has."""
    first = sources[0].schema
    for part, source in zip(parts, sources, strict=True):
        for name in {*first.names} ^ {*source.schema.names}:
            other = part.file if name in first.names else parts[0].file
            raise InvalidError(f"{other}: column {name!r} is absent, which other files have")
    for name in first.names:
        field = first.field(first.names.index(name))
        for part, source in zip(parts, sources, strict=True):
            own = source.schema.field(source.schema.names.index(name))
            try:
                pair = [pa.schema([(name, each.type)]) for each in (field, own)]
                field = pa.unify_schemas(pair, promote_options="permissive").field(0)
            except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
                types = f"{spell_type(own.type)} here and {spell_type(field.type)} in other files"
                raise InvalidError(f"{part.file}: column {name!r} is {types}") from error
        yield field


def _partition_fields(parts: Sequence[Part], sources: Sequence[Source]) -> Iterator[pa.Field]:
    """Yield the columns that only the names of folders have: text, or whole numbers."""
    for name in parts[0].values:
        if name in sources[0].schema.names:
            continue
        values = [part.values.get(name) for part in parts]
        whole = all(value is None or _INTEGER.fullmatch(value) for value in values)
        yield pa.field(name, pa.int64() if whole else pa.string())


def _cells(batch: pa.RecordBatch, field: pa.Field, part: Part) -> pa.Array:
    """Return a column of a batch, or of the names of its folders; text may stay coded."""
    if field.name not in batch.schema.names:
        value = part.values.get(field.name)
        if value is not None and pa.types.is_integer(field.type):
            return pa.repeat(pa.scalar(int(value), field.type), len(batch))
        return pa.repeat(pa.scalar(value, field.type), len(batch))
    cells = batch.column(field.name)
    if field.type in {cells.type, getattr(cells.type, "value_type", None)}:
        return cells
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    return cells.cast(field.type)


def with_actuals(forecasts: Source, actuals: Actuals) -> Source:
    """Return forecasts with a column of actual values, without the rows that have none."""
    target = actuals.target
    if target in forecasts.schema.names:
        raise TableError((target, "is in the forecasts too; leave out --actuals, or rename it"))

    def read(columns: Sequence[str], coded: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        actuals.start()
        own = [name for name in dict.fromkeys([*columns, *actuals.on]) if name != target]
        for batch in forecasts.read(own, coded):
            joined = actuals.join(pa.Table.from_batches([batch])).select(list(columns))
            yield from joined.combine_chunks().to_batches()

    return replace(forecasts, schema=actuals.schema(forecasts.schema), read=read, is_columnar=False)
