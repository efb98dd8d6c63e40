"""The OpenAPI description of ``POST /score``, built from the table of losses.

The endpoint is plain ASGI, so FastAPI cannot derive it. The tests post every example here.
"""

from typing import Any, get_args

from loss_scoring.core import LOSSES
from loss_scoring.core.table import Duplicates
from loss_scoring.service.api import problems
from loss_scoring.service.api.openapi_texts import (
    ARROW_SAMPLE,
    DESCRIPTION,
    LONG_PARAMETERS,
    LONG_SAMPLE,
    REQUEST_EXAMPLES,
)
from loss_scoring.service.codecs import arrow, json
from loss_scoring.service.codecs.options import CHOICES, DTYPES, PARAMETERS


def _list_of(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": schema, **more}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Any]:
    name = {"type": "string", "enum": list(LOSSES)}
    # The default is what Postman fills in, where it would write the text "<number>".
    number = {"type": ["number", "null"], "default": 1.0}
    flags = {parameter: {"type": "boolean"} for parameter in PARAMETERS}
    values = {
        "oneOf": [
            _list_of(number, minItems=1),
            _list_of(_list_of(number, minItems=1), minItems=1),
        ],
        "description": "One number a step, or one list of channels a step; null is missing.",
    }
    id_ = {"oneOf": [{"type": "string"}, {"type": "integer"}], "description": "Default: position."}
    columns = {"type": "object", "additionalProperties": _list_of({"type": ["number", "null"]})}
    counts = {"type": "object", "additionalProperties": _list_of({"type": "integer"})}
    gradients = {"type": "object", "additionalProperties": _list_of({"type": "array", "items": {}})}
    return {
        "ScoreRequest": {
            "type": "object",
            "additionalProperties": False,
            "required": ["series"],
            "properties": {
                "losses": _list_of(
                    {
                        "oneOf": [
                            name,
                            {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["name"],
                                "properties": {"name": name, **flags},
                            },
                        ]
                    },
                    minItems=1,
                    default=list(LOSSES),
                ),
                "gradients": {"type": "boolean", "default": False},
                **{
                    option: {"type": "string", "enum": list(choices), "default": choices[0]}
                    for option, choices in CHOICES.items()
                },
                "dtype": {"type": "string", "enum": list(DTYPES), "default": DTYPES[0]},
                "series": _list_of(_ref("Series")),
            },
        },
        "Series": {
            "type": "object",
            "additionalProperties": False,
            "required": ["prediction", "target"],
            "properties": {"id": id_, "prediction": values, "target": values},
        },
        "QueryOptions": _query_options(),
        "Scores": {
            "type": "object",
            "required": ["ids", "lengths", "losses", "masked"],
            "properties": {
                "ids": _list_of(id_),
                "lengths": _list_of({"type": "integer"}),
                "losses": columns,
                "masked": counts,
                "gradients": gradients,
            },
        },
        "LongScores": {
            "type": "object",
            "required": ["groups", "models", "lengths", "losses", "masked", "left_out"],
            "properties": {
                "groups": {
                    "type": "object",
                    "additionalProperties": _list_of({}),
                    "description": "The group columns. Dates and times are text of ISO 8601, those "
                    "with a zone in UTC; decimals, NaN and infinity are text.",
                },
                "models": _list_of({"type": "string"}),
                "lengths": _list_of({"type": "integer"}),
                "losses": columns,
                "masked": counts,
                "left_out": {
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "description": "Columns that were taken for no models, and why. Empty where "
                    "the models were named.",
                },
                "gradients": gradients,
            },
        },
        "Problem": {
            "type": "object",
            "required": [
                "type", "title", "status", "detail", "errors", "request_id", "retryable",
            ],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "errors": _list_of(
                    {
                        "type": "object",
                        "required": ["pointer", "detail"],
                        "properties": {
                            "pointer": {"type": "string"},
                            "detail": {"type": "string"},
                        },
                    }
                ),
                "error_count": {"type": "integer"},
                "request_id": {"type": "string"},
                "retryable": {"type": "boolean"},
            },
        },
    }  # fmt: skip


def _query_options() -> dict[str, Any]:
    """Return the schema of an Arrow request's options.

    Their defaults are said in words: what a page or a client sends of its own accord would be
    refused beside a JSON body.
    """
    options: dict[str, tuple[dict[str, Any], str]] = {
        "losses": ({"type": "string"}, "names, with commas between them; all"),
        "gradients": ({"type": "boolean"}, "false"),
        **{parameter: ({"type": "boolean"}, "true") for parameter in PARAMETERS},
        **{
            option: ({"type": "string", "enum": list(choices)}, choices[0])
            for option, choices in CHOICES.items()
        },
        "group_columns": ({"type": "string"}, ""),
        "time_column": ({"type": "string"}, "ds"),
        "target_column": ({"type": "string"}, "y"),
        "prediction_columns": ({"type": "string"}, ""),
        "exclude_columns": ({"type": "string"}, ""),
        "duplicates": ({"type": "string", "enum": list(get_args(Duplicates))}, "error"),
    }
    properties = {}
    for name, (schema, default) in options.items():
        words = [LONG_PARAMETERS[name]] if name in LONG_PARAMETERS else []
        words += [f"Default: {default}."] if default else []
        properties[name] = {**schema, "description": " ".join(words)}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _parameters(default_timeout_ms: int) -> list[dict[str, Any]]:
    # One object that is left out, since OpenAPI cannot make parameters depend on the type of the
    # body: Postman sends every parameter that is listed by itself. Behind a direct reference it
    # would see the properties, and send them too.
    return [
        {"name": "options", "in": "query", "required": False, "style": "form", "explode": True,
         "schema": {"type": "object", "allOf": [_ref("QueryOptions")]}, "example": {},
         "description": "Of an Arrow request only, each a query parameter of its own, such as "
         "`?losses=mae,smape&gradients=true`. The options of a JSON request are in its body."},
        {"name": "X-Request-Timeout-Ms", "in": "header", "required": False,
         "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999,
                    "default": default_timeout_ms},
         "description": "How long the answer is wanted; then 504, and nothing more is computed."},
    ]  # fmt: skip


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {problems.MEDIA_TYPE: {"schema": _ref("Problem")}},
    }


def add_score(document: dict[str, Any], default_timeout_ms: int) -> None:
    """Add ``POST /score`` to an OpenAPI document made by FastAPI."""
    binary = {"type": "string", "format": "binary"}
    document.setdefault("components", {}).setdefault("schemas", {}).update(_schemas())
    document["paths"]["/score"] = {
        "post": {
            "summary": "Score many series",
            "description": DESCRIPTION,
            "operationId": "score",
            "parameters": _parameters(default_timeout_ms),
            "x-codeSamples": [
                {"lang": "Python", "label": label, "source": source}
                for label, source in (("Arrow", ARROW_SAMPLE), ("Arrow, long form", LONG_SAMPLE))
            ],
            "requestBody": {
                "required": True,
                "content": {
                    json.MEDIA_TYPE: {
                        "schema": _ref("ScoreRequest"),
                        "examples": REQUEST_EXAMPLES,
                    },
                    arrow.MEDIA_TYPE: {"schema": binary},
                },
            },
            "responses": {
                "200": {
                    "description": "One row a series, as columns, in the request's order; in the "
                    "long form one a series and model.",
                    "content": {
                        json.MEDIA_TYPE: {
                            "schema": {"oneOf": [_ref("Scores"), _ref("LongScores")]}
                        },
                        arrow.MEDIA_TYPE: {"schema": binary},
                    },
                },
                "400": _problem("The body cannot be read."),
                "406": _problem("Accept allows neither JSON nor Arrow."),
                "408": _problem("The request arrives too slowly; the connection is closed."),
                "413": _problem("Too many bytes (also once decompressed) or elements."),
                "415": _problem("Neither JSON nor Arrow, or a coding not in Accept-Encoding."),
                "422": _problem("Values or options break the contract; see errors."),
                "429": _problem("This client holds too much of the server; see Retry-After."),
                "431": _problem("The headers are too large; the connection is closed."),
                "500": _problem("The device failed on this request."),
                "503": _problem("The server is full or not ready; see Retry-After."),
                "504": _problem("The answer was not there in time."),
            },
        }
    }


def add_keys(document: dict[str, Any], open_paths: frozenset[str]) -> None:
    """Say that every path but the open ones needs a bearer key."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in open_paths:
                operation["security"] = []
            else:
                operation["responses"]["401"] = _problem("No key, or an unknown one.")
