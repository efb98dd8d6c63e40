"""The options of a request, from a JSON object or from query parameters."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast, get_args

from loss_scoring.core import LOSSES, LossSpec, Missing, ScoreOptions, ZeroDivision
from loss_scoring.core.table import Duplicates, suggestion
from loss_scoring.service.errors import Faults

_T = TypeVar("_T")

CHOICES: Mapping[str, tuple[str, ...]] = {
    "missing": get_args(Missing),
    "zero_division": get_args(ZeroDivision),
}
DTYPES = ("float64", "float32")
JSON_OPTIONS = ("losses", "gradients", *CHOICES, "dtype")
PARAMETERS = sorted({name for loss in LOSSES.values() for name in loss.parameters})
LONG_COLUMNS = (
    "group_columns",
    "time_column",
    "target_column",
    "prediction_columns",
    "exclude_columns",
    "duplicates",
)
QUERY_OPTIONS = ("losses", "gradients", *PARAMETERS, *CHOICES, *LONG_COLUMNS)
MAX_GROUP_COLUMNS = 8
"""Each is compared from row to row, and has its part in what a row takes meanwhile."""


def kind_of(value: object) -> str:
    """Name the JSON type of a decoded value, for messages."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def escape(name: str) -> str:
    """Escape a name for use in a JSON Pointer, and half a surrogate pair for use in UTF-8."""
    name = name.encode(errors="backslashreplace").decode()
    return name.replace("~", "~0").replace("/", "~1")


def options_from_json(document: Mapping[str, Any], faults: Faults) -> ScoreOptions:
    """Read the options among a request's top-level fields; the defaults stand in for faults."""
    chosen: dict[str, Any] = {}
    if "losses" in document:
        chosen["losses"] = _losses_from_json(document["losses"], faults)
    if "gradients" in document:
        gradients = document["gradients"]
        if not isinstance(gradients, bool):
            faults.add("/gradients", f"must be true or false, not {kind_of(gradients)}")
        chosen["gradients"] = gradients
    for name in CHOICES:
        if name in document:
            chosen[name] = _choice(name, document[name], f"/{name}", faults)
    return _build(chosen, "/losses", faults)


def dtype_from_json(document: Mapping[str, Any], faults: Faults) -> str:
    """Read the element type that JSON numbers become."""
    dtype = document.get("dtype", DTYPES[0])
    if dtype not in DTYPES:
        faults.add("/dtype", f"must be one of {', '.join(DTYPES)}")
        return DTYPES[0]
    return str(dtype)


@dataclass(frozen=True)
class LongColumns:
    """The columns that a request in the long form names.

    Attributes:
        groups: Those that together name a series.
        target: That of the actual values.
        predictions: One a model; None takes what ``core.table.find_models`` does.
        time: Tells which rows are in a series twice; never taken for a model.
        excluded: Never taken for models either.
        duplicates: What rows that are in a series twice do.
    """

    groups: tuple[str, ...]
    target: str = "y"
    predictions: tuple[str, ...] | None = None
    time: str = "ds"
    excluded: tuple[str, ...] = ()
    duplicates: Duplicates = "error"


def columns_from_query(query: Sequence[tuple[str, str]], faults: Faults) -> LongColumns | None:
    """Read which columns are what; None if the request is not in the long form."""
    given = {name: text for name, text in query if name in LONG_COLUMNS}
    if "group_columns" not in given:
        for name in given:
            faults.add(f"?{name}", "is of the long form, in which group_columns names a series")
        return None
    groups = _names("group_columns", given, faults)
    if len(groups) > MAX_GROUP_COLUMNS:
        faults.add(
            "?group_columns", f"names {len(groups)} columns; {MAX_GROUP_COLUMNS} are allowed"
        )
    target = given.get("target_column", "y")
    if not target or target in groups:
        faults.add("?target_column", "must be the name of a column that is no group column")
    time = given.get("time_column", "ds")
    if not time:
        faults.add("?time_column", "must be the name of a column")
    excluded = _names("exclude_columns", given, faults) if "exclude_columns" in given else ()
    duplicates = given.get("duplicates", "error")
    if duplicates not in get_args(Duplicates):
        faults.add("?duplicates", f"must be one of {', '.join(get_args(Duplicates))}")
    predictions = None
    if "prediction_columns" in given:
        predictions = _names("prediction_columns", given, faults)
        for name in {*groups, target}.intersection(predictions):
            faults.add("?prediction_columns", f"names {name!r}, which is named otherwise")
        if excluded:
            faults.add("?exclude_columns", "is for where prediction_columns names no models")
    return LongColumns(groups, target, predictions, time, excluded, cast("Duplicates", duplicates))


def _names(parameter: str, given: Mapping[str, str], faults: Faults) -> tuple[str, ...]:
    names = given[parameter].split(",")
    if "" in names:
        faults.add(f"?{parameter}", "must be names of columns, with commas between them")
    for name, count in Counter(names).items():
        if name and count > 1:
            faults.add(f"?{parameter}", f"names {name!r} more than once")
    return tuple(names)


def options_from_query(query: Sequence[tuple[str, str]], faults: Faults) -> ScoreOptions:
    """Read the options from decoded query parameters, in the order they were sent."""
    given: dict[str, str] = {}
    for name, text in query:
        if name not in QUERY_OPTIONS:
            known = ", ".join(QUERY_OPTIONS)
            meant = suggestion(name, QUERY_OPTIONS)
            faults.add(f"?{name}", f"unknown query parameter{meant}; known are {known}")
        elif name in given:
            faults.add(f"?{name}", "appears more than once")
        else:
            given[name] = text
    chosen: dict[str, Any] = {}
    if "gradients" in given:
        chosen["gradients"] = _boolean("gradients", given["gradients"], faults)
    for name in CHOICES:
        if name in given:
            chosen[name] = _choice(name, given[name], f"?{name}", faults)
    parameters = {name: _boolean(name, given[name], faults) for name in PARAMETERS if name in given}
    names = given["losses"].split(",") if "losses" in given else list(LOSSES)
    if len(names) > len(LOSSES):
        faults.add("?losses", _too_many(len(names)))
        return ScoreOptions()
    chosen["losses"] = tuple(
        spec
        for name in names
        if (spec := _spec(name, _taken(name, parameters), "?losses", faults)) is not None
    )
    for name in parameters:
        if not any(name in LOSSES[loss].parameters for loss in names if loss in LOSSES):
            faults.add(f"?{name}", "none of the losses asked for takes it")
    return _build(chosen, "?losses", faults)


def _taken(loss: str, parameters: Mapping[str, bool]) -> dict[str, bool]:
    """Pick the parameters that a loss takes."""
    takes = LOSSES[loss].parameters if loss in LOSSES else {}
    return {name: value for name, value in parameters.items() if name in takes}


def _losses_from_json(losses: object, faults: Faults) -> tuple[LossSpec, ...]:
    if not isinstance(losses, list):
        faults.add("/losses", f"must be a list of losses, not {kind_of(losses)}")
        return ()
    if len(losses) > len(LOSSES):
        faults.add("/losses", _too_many(len(losses)))
        return ()
    specs = []
    for i, loss in enumerate(losses):
        pointer = f"/losses/{i}"
        if isinstance(loss, str):
            specs.append(_spec(loss, {}, pointer, faults))
        elif isinstance(loss, dict):
            specs.append(_spec_from_object(loss, pointer, faults))
        else:
            faults.add(pointer, f"must be a name or an object with a name, not {kind_of(loss)}")
    return tuple(spec for spec in specs if spec is not None)


def _too_many(count: int) -> str:
    return f"names {count} losses; there are {len(LOSSES)}, and each may be named once"


def _spec_from_object(loss: dict[str, Any], pointer: str, faults: Faults) -> LossSpec | None:
    name = loss.get("name")
    if not isinstance(name, str):
        faults.add(f"{pointer}/name", f"must be the name of a loss: {', '.join(LOSSES)}")
        return None
    parameters = {}
    for key, value in loss.items():
        if key == "name":
            continue
        if name in LOSSES and key not in LOSSES[name].parameters:
            faults.add(f"{pointer}/{escape(key)}", f"unknown parameter of {name}")
        elif not isinstance(value, bool):
            faults.add(f"{pointer}/{escape(key)}", f"must be true or false, not {kind_of(value)}")
        else:
            parameters[key] = value
    return _spec(name, _taken(name, parameters), pointer, faults)


def _spec(
    name: str, parameters: Mapping[str, bool], pointer: str, faults: Faults
) -> LossSpec | None:
    return _attempt(lambda: LossSpec(name, **parameters), pointer, faults)


def _choice(name: str, value: object, pointer: str, faults: Faults) -> object:
    if value not in CHOICES[name]:
        faults.add(pointer, f"must be one of {', '.join(CHOICES[name])}")
    return value


def _boolean(name: str, text: str, faults: Faults) -> bool:
    if text not in ("true", "false"):
        faults.add(f"?{name}", "must be true or false")
    return text == "true"


def _build(chosen: dict[str, Any], pointer: str, faults: Faults) -> ScoreOptions:
    """Build the options; only the list of losses can still be wrong, so it gets the blame."""
    if faults.count:
        return ScoreOptions()
    return _attempt(lambda: ScoreOptions(**chosen), pointer, faults) or ScoreOptions()


def _attempt(build: Callable[[], _T], pointer: str, faults: Faults) -> _T | None:
    try:
        return build()
    except ValueError as error:
        faults.add(pointer, str(error))
        return None
