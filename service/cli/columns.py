"""Which column of a file is what, in either form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from loss_scoring.core.table import (
    Duplicates,
    Layout,
    ModelColumns,
    TableError,
    faults_of,
    find_models,
    find_time,
    is_text,
    listed,
    suggestion,
    text_faults,
)
from loss_scoring.service.cli.csv_files import SEPARATORS, comma_advice, spelled
from loss_scoring.service.cli.source import Source

_ID_NAMES = ("unique_id", "id")
_TARGET_NAMES = ("y", "target")
_CUTOFF_NAMES = ("cutoff",)


@dataclass(frozen=True)
class Roles:
    """The columns that the user names; None takes the name that the form uses.

    Attributes:
        id: ``unique_id``, or ``id``.
        time: Read only to find the same row twice.
        target: ``y``, or ``target``.
        cutoff: ``cutoff``, if there is one.
        models: Names, or text in which they are comma-separated. Default: those that
            ``find_models`` finds.
        exclude: No models, where nobody names them.
        duplicates: What two rows of a series with the same time are.
        weight: What each element weighs.
        scale: What scaled losses of a series are divided by.
        by: Columns that are no models, as elements are pooled by them.
    """

    id: str | None = None
    time: str = "ds"
    target: str | None = None
    cutoff: str | None = None
    models: str | tuple[str, ...] | None = None
    exclude: str | None = None
    duplicates: Duplicates = "error"
    weight: str | None = None
    scale: str | None = None
    by: tuple[str, ...] = ()

    def keys(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the columns that together name a series.

        Raises:
            TableError: If one is absent, or there is more than one of the name.
        """
        keys = (_pick(names, self.id, _ID_NAMES, "--id-col"),)
        if self.cutoff is None and not set(_CUTOFF_NAMES) & set(names):
            return keys
        return (*keys, _pick(names, self.cutoff, _CUTOFF_NAMES, "--cutoff-col"))

    def text(self, names: Sequence[str]) -> set[str]:
        """Return the columns that are text whatever they look like: the id 007 is not 7."""
        return {*self.keys(names), self.time} & set(names) - set(_listed(self.models, names))

    def numbers(self, names: Sequence[str]) -> set[str]:
        """Return the columns that are numbers whatever they look like: the target 007 is 7."""
        targets = _TARGET_NAMES if self.target is None else (self.target,)
        doubles = filter(None, (self.weight, self.scale))
        return {*targets, *_listed(self.models, names), *doubles}


@dataclass(frozen=True)
class FileColumns(Layout):
    """Which column of a file is what.

    Attributes:
        nested: Whether a row is a whole series.
        duplicates: What two rows of one series are in the nested form.
    """

    nested: bool = False
    duplicates: Duplicates = "error"

    @property
    def cutoff(self) -> str:
        """The column of cutoffs, if there is one."""
        return (*self.keys, "cutoff")[1]

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        times = () if self.time is None else (self.time,)
        return list(dict.fromkeys((*self.keys, *self.numbers, *self.doubles, *times)))


def find_columns(source: Source, roles: Roles) -> FileColumns:
    """Find the columns.

    Raises:
        TableError: If a column that is read is absent, twice there or of the wrong type, or one
            that nobody excluded holds numbers as text.
    """
    schema, names = source.schema, source.schema.names
    keys = roles.keys(names)
    target = _pick(names, roles.target, _TARGET_NAMES, "--target-col")
    nested = is_series(schema.field(target).type)
    named, excluded = _listed(roles.models, names), _listed(roles.exclude, names)
    of_models = "--model or --baseline" if isinstance(roles.models, tuple) else "--models"
    for given, flag in ((named, of_models), (excluded, "--exclude")):
        if absent := [name for name in given if name not in names]:
            raise TableError(("", _absence(names, absent[:1], flag)))
    doubles = {
        role: _pick(names, given, (), f"--{role}-col")
        for role, given in (("weight", roles.weight), ("scale", roles.scale))
        if given is not None
    }
    elements = _elements(schema) if nested else schema
    if roles.models is None:
        taken = {*keys, *roles.by, roles.time, target, *doubles.values()}
        found = find_models(elements, taken, exclude=excluded)
        found = _lists_only(found, schema) if nested else found
    else:
        found = ModelColumns(named)
    models = tuple(dict.fromkeys(found.models))
    layout = FileColumns(
        keys, target, models, found.left_out, nested=nested, duplicates=roles.duplicates, **doubles
    )
    if roles.duplicates == "error" and not nested:
        if roles.time != Roles.time and roles.time not in names:
            raise TableError(("", _absence(names, [roles.time], "--time-col")))
        layout = replace(layout, time=find_time(schema, roles.time, layout))
    faults = [*faults_of(elements, layout), *(_list_faults(schema, layout) if nested else ())]
    if not faults or not found.models:  # a model may be among the texts
        texts = _nested_text_faults if nested else _text_faults
        faults = [*texts(source, layout, found), *faults]
    if faults:
        raise TableError(*faults)
    return layout


def is_series(type_: pa.DataType) -> bool:
    """Tell whether a column of this type holds series."""
    if not pa.types.is_nested(type_):
        return False
    from loss_scoring.service.codecs.arrow import lists  # takes pydantic

    return lists.is_series(type_)


def _listed(given: str | tuple[str, ...] | None, names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a comma-separated list, or those that are listed already."""
    parts = given.split(",") if isinstance(given, str) else given or ()
    return tuple(dict.fromkeys(name if name in names else name.strip() for name in parts))


def _pick(names: Sequence[str], given: str | None, usual: tuple[str, ...], flag: str) -> str:
    wanted = usual if given is None else (given,)
    for name in wanted:
        if names.count(name) == 1:
            return name
        if name in names:
            raise TableError((name, "is in the file more than once"))
    raise TableError(("", _absence(names, wanted, flag)))


def _absence(names: Sequence[str], wanted: Sequence[str], flag: str) -> str:
    """Say that no column is what a flag should name."""
    meant = next(filter(None, (suggestion(name, names) for name in wanted)), "")
    missing = f"no column {' or '.join(map(repr, wanted))} among {listed(names)}"
    held = [separator for separator in SEPARATORS if any(separator in name for name in names)]
    hint = f", or pass --delimiter, as names hold {spelled(held)}" if held else ""
    return f"{missing}; name it by {flag}{meant}{hint}"


def _elements(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a nested file, those of series with the type of their elements."""
    fields = []
    for field in schema:
        type_ = field.type
        while is_series(field.type) and hasattr(type_, "value_type"):
            type_ = type_.value_type
        fields.append(field.with_type(type_))
    return pa.schema(fields)


def _lists_only(found: ModelColumns, schema: pa.Schema) -> ModelColumns:
    types = {name: schema.field(name).type for name in found.models}
    others = {
        name: f"holds {type_}, not lists" for name, type_ in types.items() if not is_series(type_)
    }
    reasons = dict(found.left_out) | others
    return ModelColumns(
        tuple(name for name in found.models if name not in others),
        tuple((name, reasons[name]) for name in schema.names if name in reasons),
    )


def _list_faults(schema: pa.Schema, layout: Layout) -> Iterator[tuple[str, str]]:
    for name in (*layout.numbers, *filter(None, [layout.weight])):
        place = schema.get_field_index(name)  # -1 where it is absent or there twice
        if place >= 0 and not is_series(type_ := schema.field(place).type):
            yield name, f"must hold lists of numbers, not {type_}"


def _text_faults(source: Source, layout: Layout, found: ModelColumns) -> Iterator[tuple[str, str]]:
    """Yield columns of numbers that the file has as text."""
    schema, named = source.schema, (*layout.numbers, *layout.doubles)
    texts = [name for name in (*named, *found.texts) if schema.names.count(name) == 1]
    texts = [name for name in texts if is_text(schema.field(name).type)]
    if texts:
        named = tuple(name for name in texts if name in named)
        rows = source.head(texts)
        others = [name for name in texts if name not in named]
        for name, detail in text_faults(rows, named, others, exclude="--exclude"):
            if name in others and name in source.categories:
                yield from text_faults(_coded(source, name), (), [name], exclude="--exclude")
            else:
                yield name, detail + (comma_advice(detail) if source.takes_decimal else "")


def _coded(source: Source, name: str) -> pa.Table:
    """Return all of a column of categories, whose first rows do not say what there is."""
    parts = [batch.column(0).dictionary_encode() for batch in source.read([name])]
    return pa.table({name: pa.chunked_array(parts)})


def _nested_text_faults(
    source: Source, _layout: Layout, found: ModelColumns
) -> Iterator[tuple[str, str]]:
    """Yield columns of lists that nobody excluded and that have numbers as text."""
    for name, reason in found.left_out:
        type_ = source.schema.field(source.schema.names.index(name)).type
        while hasattr(type_, "value_type"):
            type_ = type_.value_type
        if reason.startswith("holds") and is_text(type_) and source.schema.names.count(name) == 1:
            lists = source.head([name]).column(name)
            texts = pa.table({name: pc.list_flatten(lists, recursive=True)})
            yield from text_faults(texts, (), [name], exclude="--exclude", unit="element")
