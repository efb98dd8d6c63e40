"""The options of a request: one model for those of a JSON body and of a query.

pydantic checks them, points at faults and gives OpenAPI its schemas. Callers cache what is
read from a query, or from a body without its series, so most requests do without.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetPydanticSchema,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, from_json

from loss_scoring.core import (
    DEFAULT_LOSSES,
    LOSSES,
    Loss,
    LossSpec,
    Missing,
    Parameter,
    ScoreOptions,
    ZeroDivision,
)
from loss_scoring.core.options import parse_loss
from loss_scoring.core.table import Duplicates, suggestion
from loss_scoring.service.errors import Faults

MAX_GROUP_COLUMNS = 8
"""Each is compared from row to row, and takes memory for each row meanwhile."""
_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", NoneType: "null"}
_NO_LOSS = "loss_type"


class Strict(BaseModel):
    """What has these fields and no others, each of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _in_utf8(cls, fields: Any) -> Any:
        """Escape half a surrogate pair, which pydantic refuses without naming the field."""
        if not isinstance(fields, dict):
            return fields
        return {
            _in_utf8(name): _in_utf8(value) if isinstance(value, str) else value
            for name, value in fields.items()
        }


def _in_utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _tag_of(loss: object) -> str | None:
    """Return the model of a loss: its own for an object, "" for a name alone, None for neither."""
    name = loss.get("name") if isinstance(loss, dict) else loss
    if not isinstance(name, str):
        return None
    return name if isinstance(loss, dict) and name in LOSSES else ""


def _type_of(parameter: Parameter) -> Any:
    if parameter.is_flag:
        return bool
    above, below = (x if isfinite(x) else None for x in (parameter.above, parameter.below))
    return Annotated[float, Field(gt=above, lt=below, allow_inf_nan=False)]


def schema_of(parameter: Parameter) -> dict[str, Any]:
    """Return the JSON schema of a parameter: type, default and bounds."""
    return {**TypeAdapter(_type_of(parameter)).json_schema(), "default": parameter.default}


def _object_of(loss: Loss) -> Any:
    fields: dict[str, Any] = {
        name: (_type_of(parameter), parameter.default)
        for name, parameter in loss.parameters.items()
    }
    fields["name"] = Literal[loss.name], ...
    model = create_model(f"{loss.name.title()}Options", __base__=Strict, **fields)
    read = AfterValidator(lambda options: LossSpec.of(dict(options)))
    return Annotated[model, read, Tag(loss.name)]


PARAMETERS = sorted({name for loss in LOSSES.values() for name in loss.parameters})
_NAME = Annotated[
    Any,
    PlainValidator(lambda loss: LossSpec(loss["name"] if isinstance(loss, dict) else loss)),
    WithJsonSchema({"type": "string", "enum": [*LOSSES]}),
    Tag(""),
]
_CHOICE: Any = Annotated[
    Union[(_NAME, *map(_object_of, LOSSES.values()))],
    Discriminator(
        _tag_of,
        custom_error_type=_NO_LOSS,
        custom_error_message=f"must be a loss ({', '.join(LOSSES)}) or an object with its name",
    ),
]


class Options(Strict):
    """The options that a body and a query share."""

    losses: list[Annotated[LossSpec, GetPydanticSchema(lambda _, of: of(_CHOICE))]] = Field(
        default_factory=lambda: list(ScoreOptions().losses),
        max_length=len(LOSSES),
        json_schema_extra={"minItems": 1, "default": [*DEFAULT_LOSSES]},
    )
    gradients: bool = False
    missing: Missing = "error"
    zero_division: ZeroDivision = "zero"

    @field_validator("losses")
    @classmethod
    def _differ(cls, losses: list[LossSpec]) -> list[LossSpec]:
        ScoreOptions(tuple(losses))
        return losses

    def score_options(self) -> ScoreOptions:
        """Return them as the core takes them."""
        return ScoreOptions(
            tuple(self.losses),
            gradients=self.gradients,
            missing=self.missing,
            zero_division=self.zero_division,
        )


class BodyOptions(Options):
    """The options of a JSON body; ``dtype`` is what its numbers become."""

    dtype: Literal["float64", "float32"] = "float64"


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if "" in names:
        raise ValueError("must be names of columns, with commas between them")
    if repeated := [repr(name) for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"names {', '.join(repeated)} more than once")
    return names


_Names = Annotated[tuple[str, ...], BeforeValidator(_names), WithJsonSchema({"type": "string"})]


class LongColumns(Strict):
    """The columns that a request in the long form names."""

    groups: _Names = Field(
        alias="group_columns",
        description="The columns, with commas between them, that together name a series; naming "
        "them asks for this form, a row an element. Text, numbers, dates or times, never null; the "
        "rows of a series may be anywhere and keep their order. A column whose name has a comma "
        "cannot be named.",
    )
    time: str = Field(
        "ds",
        alias="time_column",
        description="The column of times, never taken for a model. Where it is in the table, two "
        "rows of one series and time are refused.",
    )
    target: str = Field("y", alias="target_column", description="The column of actual values.")
    weight: str | None = Field(
        None,
        alias="weight_column",
        description="The column of what each element weighs, finite and at least 0.",
    )
    scale: str | None = Field(
        None,
        alias="scale_column",
        description="The column of what scaled losses are divided by, the same in all rows of a "
        "series.",
    )
    predictions: Annotated[_Names | None, WithJsonSchema({"type": "string"})] = Field(
        None,
        alias="prediction_columns",
        description="The columns of predictions, one a model. Default: all of numbers that are not "
        "named otherwise, but for an index, forecast steps such as `horizon`, prediction intervals "
        "such as AutoETS-lo-90 and quantiles. What was taken for none is listed in the answer as "
        "`left_out`.",
    )
    excluded: _Names = Field(
        (),
        alias="exclude_columns",
        description="Columns, with commas between them, that are no models, where "
        "prediction_columns names none.",
    )
    duplicates: Duplicates = Field("error", description="What two rows of one series and time are.")

    @field_validator("*")
    @classmethod
    def _agree(cls, value: Any, info: ValidationInfo) -> Any:
        """Check a column against those that are declared before it."""
        groups, target = info.data.get("groups", ()), info.data.get("target")
        named = target, info.data.get("weight"), info.data.get("scale")
        match info.field_name:
            case "groups" if len(value) > MAX_GROUP_COLUMNS:
                raise ValueError(f"names {len(value)} columns; {MAX_GROUP_COLUMNS} are allowed")
            case "time" | "target" | "weight" | "scale" if value == "":
                raise ValueError("must be the name of a column")
            case "target" if value in groups:
                raise ValueError("must be the name of a column that is no group column")
            case "predictions" if taken := sorted({*groups, *named}.intersection(value or ())):
                raise ValueError(f"names {', '.join(map(repr, taken))}, which is named otherwise")
            case "excluded" if info.data.get("predictions", ()) is not None:
                raise ValueError("is for where the request names no models")
        return value


LONG_COLUMNS = tuple(field.alias or name for name, field in LongColumns.model_fields.items())
OTHER_NAMES = {
    "group_by": "group_columns",
    "time_col": "time_column",
    "target_col": "target_column",
    "weight_col": "weight_column",
    "scale_col": "scale_column",
    "models": "prediction_columns",
    "exclude": "exclude_columns",
}
"""What ``core.table``, the client and the command line call columns, taken in a query as well."""
JSON_OPTIONS = tuple(BodyOptions.model_fields)
JSON_FIELDS = (*JSON_OPTIONS, "series")
QUERY_OPTIONS = (*Options.model_fields, *PARAMETERS, *LONG_COLUMNS)
_Model = TypeVar("_Model", bound=Strict)


def options_from_json(document: Mapping[str, Any], faults: Faults) -> tuple[ScoreOptions, str]:
    """Read the options and the dtype of a document; after a fault, return the defaults."""
    given = {name: value for name, value in document.items() if name != "series"}
    options = checked(BodyOptions, given, faults) or BodyOptions()
    return options.score_options(), options.dtype


def options_from_query(query: Sequence[tuple[str, str]], faults: Faults) -> ScoreOptions:
    """Read the options from decoded query parameters, in the order they were sent."""
    given: dict[str, Any] = {}
    for name, text in query:
        if name in given:
            faults.add(f"?{name}", "appears more than once")
        given.setdefault(name, text if name == "losses" else _value(text))
    of_columns = {*LONG_COLUMNS, *OTHER_NAMES}
    given = {name: value for name, value in given.items() if name not in of_columns}
    parameters = {name: given.pop(name) for name in PARAMETERS if name in given}
    texts = given["losses"].split(",") if "losses" in given else DEFAULT_LOSSES
    given["losses"], unused = [], set(parameters)
    for text in texts:
        try:
            loss = parse_loss(text)
        except ValueError as error:
            faults.add("?losses", str(error))
            loss = {"name": DEFAULT_LOSSES[0]}
        row = LOSSES.get(loss["name"])
        takes = () if row is None else {*parameters} & {*row.parameters} - {*loss}
        given["losses"].append({**loss, **{taken: parameters[taken] for taken in takes}})
        unused -= set(takes)
    for name in unused:
        faults.add(f"?{name}", "none of the losses asked for takes it")
    options = checked(Options, given, faults, query=parameters.keys()) or Options()
    return options.score_options()


def options_from_parameters(
    loss: str, given: Mapping[str, Any], faults: Faults, *, gradients: bool
) -> ScoreOptions:
    """Read the options of a request for one loss from what it names beside the loss's parameters.

    Args:
        loss: A name of ``LOSSES``.
        given: Its parameters, ``missing`` and ``zero_division``, by name.
        faults: Where faults are noted; after one, the defaults are returned.
        gradients: Whether the gradient is asked for.
    """
    own, shared = [*LOSSES[loss].parameters], ["missing", "zero_division"]
    known = [*own, *shared]
    unknown = [name for name in given if name not in known]

    def fault(i: int) -> tuple[str, str]:
        hint = f"{suggestion(unknown[i], known)}; {loss} takes {', '.join(known)}"
        return f"/parameters/{escape(unknown[i])}", f"unknown parameter{hint}"

    faults.add_each(range(len(unknown)), fault)
    losses = [{"name": loss, **{name: given[name] for name in own if name in given}}]
    others = {name: given[name] for name in shared if name in given}
    found = Faults()
    options = checked(Options, {"losses": losses, "gradients": gradients, **others}, found)
    for wrong in found.first:
        faults.add(f"/parameters/{wrong.pointer.rpartition('/')[2]}", wrong.detail)
    return (options or Options()).score_options()


def columns_from_query(query: Sequence[tuple[str, str]], faults: Faults) -> LongColumns | None:
    """Read which columns are what; None if the request is not in the long form."""
    given: dict[str, str] = {}
    written: dict[str, str] = {}
    for name, text in query:
        column = OTHER_NAMES.get(name, name)
        if column in LONG_COLUMNS:
            if written.setdefault(column, name) != name:
                faults.add(f"?{name}", f"means {written[column]}, which is given too")
            given[column] = text
    if "group_columns" in given:
        return checked(LongColumns, given, faults, query=(), written=written)
    for name in written.values():
        faults.add(f"?{name}", "is of the long form, in which group_columns names a series")
    return None


def _value(text: str) -> Any:
    """Read a value as JSON has it, such as a boolean; anything else is text."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text


def checked(
    model: type[_Model],
    given: dict[str, Any],
    faults: Faults,
    *,
    query: Collection[str] | None = None,
    written: Mapping[str, str] = MappingProxyType({}),
) -> _Model | None:
    """Return the model of what is given; note its faults and return None if it is not one.

    Args:
        model: Of the options.
        given: Their values.
        faults: Where its faults are noted.
        query: Of options in a query, the parameters of losses that are not beside a name.
        written: How the query writes their names, where it may do so in two ways.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        # Unknown names come first: a misspelt one explains other faults.
        found = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    known = JSON_FIELDS if model is BodyOptions else tuple(model.model_fields)
    known = known if query is None else QUERY_OPTIONS
    faults.add_each(range(len(found)), lambda i: _fault(found[i], query, written, known))
    return None


def _fault(
    error: ErrorDetails,
    query: Collection[str] | None,
    written: Mapping[str, str],
    known: Sequence[str],
) -> tuple[str, str]:
    """Return the pointer of what pydantic found, and say it in the words of the request."""
    steps = [str(step) for step in error["loc"]]
    detail = _detail(error, steps, known)
    if query is not None and steps[-1] in query:
        return f"?{steps[-1]}", detail
    if query is not None:
        if len(steps) > 3:
            is_unknown = error["type"] == "extra_forbidden"
            detail = f"{steps[-1]} {'is an' if is_unknown else f'of {steps[2]}'} {detail}"
        return f"?{written.get(steps[0], steps[0])}", detail
    if steps[0] == "losses":
        del steps[2:3]  # the tag
    if error["type"] == _NO_LOSS and isinstance(error["input"], dict):
        steps.append("name")
    return "".join(f"/{escape(step)}" for step in steps), detail


def _detail(error: ErrorDetails, steps: list[str], known: Sequence[str]) -> str:
    kind = kind_of(error["input"])
    match error["type"]:
        case "value_error":
            detail = str(error["ctx"]["error"])
        case "missing":
            detail = "is absent"
        case "model_type":
            detail = f"must be an object, not {kind}"
        case "float_type" if type(error["input"]) is int:  # too large for one
            detail = "must be a finite number"
        case "extra_forbidden":
            detail = _unknown(steps, known)
        case type_:
            detail = error["msg"].replace("Input should be", "must be")
            detail = detail.replace("a valid boolean", "true or false")
            detail = detail.replace("a valid num", "a num").replace("a valid list", "a list")
            detail += f", not {kind}" if type_.endswith("_type") else ""
    return detail


def _unknown(steps: list[str], known: Sequence[str]) -> str:
    if len(steps) > 1:
        return f"unknown parameter of {steps[2]}" if steps[0] == "losses" else "unknown field"
    if known is QUERY_OPTIONS:
        known = (*known, *OTHER_NAMES)
        meant = suggestion(steps[0], known)
        return f"unknown query parameter{meant}; known are {', '.join(known)}"
    return f"unknown field{suggestion(steps[0], known)}"


def kind_of(value: object) -> str:
    """Name the JSON type of a decoded value, for messages."""
    return _KINDS.get(type(value), "a number")


def escape(name: str) -> str:
    """Escape a name for use in a JSON Pointer, and half a surrogate pair for use in UTF-8."""
    return _in_utf8(name).replace("~", "~0").replace("/", "~1")
