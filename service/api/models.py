"""What OpenAPI says of series, answers and problems. No array passes through these types."""

from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, WithJsonSchema
from typing_extensions import TypedDict

from loss_scoring.service.codecs.options import BodyOptions

_Number = Annotated[
    float | None,
    # The default is what Postman fills in, where it would write the text "<number>".
    WithJsonSchema({"type": ["number", "null"], "default": 1.0}),
]
_Steps = Annotated[list[_Number], Field(min_length=1)]
_Values = Annotated[
    _Steps | Annotated[list[_Steps], Field(min_length=1)],
    Field(description="One number a step, or one list of channels a step; null is missing."),
]
_Losses = Annotated[dict[str, list[float | None]], Field(description="A column a loss.")]
_Masked = Annotated[
    dict[str, list[int]], Field(description="Elements without a finite quotient, a column a loss.")
]
_Gradients = Annotated[
    dict[str, list[list[Any]]],
    Field(description="Of each loss, by predicted element, in the shape of the prediction."),
]


class Series(TypedDict):
    """A prediction and its target."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    id: NotRequired[Annotated[str | int, Field(description="Default: position.")]]
    prediction: _Values
    target: _Values
    weight: NotRequired[
        Annotated[
            _Values,
            Field(
                description="What each element weighs, finite and at least 0, in the shape of the "
                "target. Every series has them, or none."
            ),
        ]
    ]
    scale: NotRequired[
        Annotated[
            float | None,
            Field(description="What scaled losses are divided by. Every series has one, or none."),
        ]
    ]


class ScoreRequest(BodyOptions):
    """Series, and the options to score them by."""

    series: list[Series]


class Scores(TypedDict):
    """One row a series."""

    ids: list[str | int]
    lengths: list[int]
    losses: _Losses
    masked: _Masked
    gradients: NotRequired[_Gradients]


class LongScores(TypedDict):
    """One row a series and model, of a request in the long form."""

    groups: Annotated[
        dict[str, list[Any]],
        Field(
            description="The group columns. Dates and times are text of ISO 8601, those with a "
            "zone in UTC; decimals, NaN and infinity are text."
        ),
    ]
    models: list[str]
    lengths: list[int]
    losses: _Losses
    masked: _Masked
    left_out: Annotated[
        dict[str, str],
        Field(
            description="Columns that were taken for no models, and why. Empty where the models "
            "were named."
        ),
    ]
    gradients: NotRequired[_Gradients]


class LossRow(TypedDict):
    """A loss that the service knows."""

    name: str
    title: str
    formula: Annotated[str, Field(description="y the target, p the prediction, T elements.")]
    gradient: Annotated[str, Field(description="By a predicted element.")]
    source: str
    parameters: Annotated[
        dict[str, dict[str, Any]],
        Field(description="A JSON schema each: type, default and bounds."),
    ]
    can_be_masked: Annotated[bool, Field(description="Whether answers have a masked count of it.")]
    scaled: Annotated[bool, Field(description="Whether each series needs a scale for it.")]
    default: Annotated[bool, Field(description="Whether it is computed where none is named.")]


class Fault(TypedDict):
    """What is wrong in one place of a request."""

    pointer: str
    detail: str


class Problem(TypedDict):
    """Why a request was refused, by RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault]
    error_count: NotRequired[int]
    request_id: str
    retryable: bool
