"""Which column of a file is what, in either form."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from core import table
from core.table import faults_of, find_models, holds_numbers
from service.errors import InvalidError

ID_NAMES = ("unique_id", "id")
CUTOFF_NAME = "cutoff"


@dataclass(frozen=True)
class Layout(table.Layout):
    """Which column is what; see there.

    Attributes:
        nested: Whether a row is a whole series.
    """

    nested: bool = False

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        return [*self.keys, *self.numbers]


def find_layout(  # noqa: PLR0913 - one name a column
    schema: pa.Schema,
    *,
    id_col: str | None,
    time_col: str,
    target_col: str | None,
    cutoff_col: str | None,
    models: Sequence[str] | None,
) -> Layout:
    """Find the columns; None takes the name that the form uses (unique_id, y or id, target).

    Raises:
        InvalidError: If a column is absent, stands twice, or has the wrong type.
    """
    names = schema.names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidError(f"column {repeated[0]!r} stands more than once")
    id_col = _pick(names, id_col, ID_NAMES, "--id-col")
    target_col = _pick(names, target_col, ("y", "target"), "--target-col")
    nested = _is_list(schema.field(target_col).type)
    keys: tuple[str, ...] = (id_col,)
    if cutoff_col is not None or CUTOFF_NAME in names:
        keys += (_pick(names, cutoff_col, (CUTOFF_NAME,), "--cutoff-col"),)
    if models is None:
        elements = _elements(schema) if nested else schema
        models = find_models(elements, {*keys, time_col, target_col}).models
        if not models:
            raise InvalidError(f"no column of predictions among {', '.join(names)}")
    layout = Layout(keys, target_col, tuple(dict.fromkeys(models)), nested=nested)
    _check_columns(schema, layout)
    return layout


def _pick(names: list[str], given: str | None, usual: tuple[str, ...], flag: str) -> str:
    wanted = usual if given is None else (given,)
    for name in wanted:
        if name in names:
            return name
    raise InvalidError(
        f"no column {' or '.join(map(repr, wanted))} among {', '.join(names)}; name it by {flag}"
    )


def _is_list(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(type_) for is_kind in kinds)


def _elements(schema: pa.Schema) -> pa.Schema:
    """Return what stands in the columns of lists that can be scored, by their names."""
    lists = [field for field in schema if _holds_lists(field.type)]
    return pa.schema([field.with_type(field.type.value_type) for field in lists])


def _holds_lists(type_: pa.DataType) -> bool:
    return _is_list(type_) and bool(pa.types.is_floating(type_.value_type))


def _check_columns(schema: pa.Schema, layout: Layout) -> None:
    if not layout.nested:
        for name, detail in faults_of(schema, layout):
            raise InvalidError(f"column {name!r} {detail}")
        for name in layout.numbers:
            if not holds_numbers(type_ := schema.field(name).type):
                raise InvalidError(f"column {name!r} must hold numbers, not {type_}")
        return
    for name in layout.numbers:
        if name not in schema.names:
            raise InvalidError(f"no column {name!r} among {', '.join(schema.names)}")
        if not _holds_lists(type_ := schema.field(name).type):
            raise InvalidError(f"column {name!r} must hold lists of float or double, not {type_}")
