"""What FastAPI cannot know of the API: ``POST /score``, which is plain ASGI, and the keys."""

from collections.abc import Collection
from copy import deepcopy
from typing import Any

from pydantic import TypeAdapter

from loss_scoring.core import LOSSES
from loss_scoring.service.api import problems
from loss_scoring.service.api.examples import ANSWER, BODIES, PROGRAMS
from loss_scoring.service.api.models import LongScores, Problem, ScoreRequest, Scores
from loss_scoring.service.codecs import arrow, json
from loss_scoring.service.codecs.options import LongColumns, Options, schema_of

_DESCRIPTION = (
    "Scores many series of (prediction, target): a loss per series and, on request, the gradient "
    "of each loss with respect to each predicted element. A series' answer is the same bits "
    "however requests are split or merged. The options of a JSON request are in its body, those "
    "of an Arrow request are query parameters. A body may have Content-Encoding gzip or zstd.\n\n"
    "An Arrow stream has a row a series, with lists; or, where `group_columns` says so, a row an "
    "element, with one column a model, each scored against the one target. The answer to the long "
    "form has a row a series and model: the group columns, `model`, `length`, one a loss, "
    "`<loss>_masked` and `<loss>_gradient`, whose elements are in the order of the rows. Series "
    "are in the order of their first rows, the models of a series together, in the order of their "
    "columns. Numbers are float where it holds those of the target and of all predictions exactly, "
    "double otherwise."
)
TAGS = [
    {"name": "scoring", "description": "What a pipeline calls."},
    {"name": "operation", "description": "What those who run the service call."},
]
_REFUSALS = {
    "400": "The body cannot be read.",
    "406": "Accept allows neither JSON nor Arrow.",
    "408": "The request arrives too slowly; the connection is closed.",
    "413": "Too many bytes (also once decompressed) or elements.",
    "415": "Neither JSON nor Arrow, or a coding not in Accept-Encoding.",
    "417": "Expect is not 100-continue; the connection is closed.",
    "422": "Values or options break the contract; see errors.",
    "429": "This client uses too much of the server; see Retry-After.",
    "431": "The headers are too large; the connection is closed.",
    "500": "The device failed on this request.",
    "501": "A Transfer-Encoding other than chunked; the connection is closed.",
    "503": "The server is full or not ready; see Retry-After.",
    "504": "The answer was not ready in time.",
}
_REF = "#/components/schemas/{model}"
_BINARY = {"type": "string", "format": "binary"}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REF.format(model=name)}


def _query_options() -> dict[str, Any]:
    """Return the schema of an Arrow request's options.

    Their defaults are said in words: what a page or a client sends of its own accord would be
    refused beside a JSON body.
    """
    options = Options.model_json_schema()["properties"]
    options["losses"] = {
        "type": "string",
        "description": "Names with commas between them, each with its parameters where need be, "
        "as in `mae,huber:delta=1.5`.",
        "default": ",".join(options["losses"]["default"]),
    }
    for loss in LOSSES.values():
        for name, parameter in loss.parameters.items():
            text = f"Of {loss.name}. Default: {str(parameter.default).lower()}."
            if name in options:  # another loss has a parameter of this name
                options[name] = {"description": f"{options[name]['description']} {text}"}
            else:
                options[name] = {**schema_of(parameter), "description": text}
                del options[name]["default"]
    for name, schema in LongColumns.model_json_schema()["properties"].items():
        options[name] = {**schema, "description": f"Of the long form: {schema['description']}"}
    for schema in options.values():
        default = schema.pop("default", None)
        if default not in (None, []):
            words = schema.get("description", ""), f"Default: {str(default).lower()}."
            schema["description"] = " ".join(words).strip()
    return {"type": "object", "additionalProperties": False, "properties": options}


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
    content = {problems.MEDIA_TYPE: {"schema": _ref("Problem")}}
    return {"description": description, "content": content}


def add_score(document: dict[str, Any], default_timeout_ms: int) -> None:
    """Add ``POST /score`` and ``/v1/score`` to an OpenAPI document made by FastAPI."""
    types: tuple[Any, ...] = (ScoreRequest, Scores, LongScores, Problem)
    adapters = [(type_.__name__, "validation", TypeAdapter(type_)) for type_ in types]
    _, definitions = TypeAdapter.json_schemas(adapters, ref_template=_REF)  # type: ignore[arg-type]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {**definitions["$defs"], "QueryOptions": _query_options()}
    answer = {"schema": {"oneOf": [_ref("Scores"), _ref("LongScores")]}, "example": ANSWER}
    scored = {
        "description": "One row a series, as columns, in the request's order; in the long form one "
        "a series and model.",
        "content": {json.MEDIA_TYPE: answer, arrow.MEDIA_TYPE: {"schema": _BINARY}},
    }
    operation = {
        "tags": ["scoring"],
        "summary": "Score many series",
        "description": _DESCRIPTION,
        "operationId": "score",
        "parameters": _parameters(default_timeout_ms),
        "x-codeSamples": [
            {"lang": "Python", "label": label, "source": source}
            for label, source in PROGRAMS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                json.MEDIA_TYPE: {"schema": _ref("ScoreRequest"), "examples": BODIES},
                arrow.MEDIA_TYPE: {"schema": _BINARY},
            },
        },
        "responses": {
            "200": scored,
            **{status: _problem(description) for status, description in _REFUSALS.items()},
        },
    }
    document["paths"] |= {
        "/score": {"post": operation},
        "/v1/score": {
            "post": deepcopy(operation) | {"operationId": "score_v1", "summary": "As /score"}
        },
    }


def add_keys(document: dict[str, Any], open_paths: Collection[str]) -> None:
    """Say that every path but the open ones needs a bearer key."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in open_paths:
                operation["security"] = []
            else:
                operation["responses"]["401"] = _problem("No key, or an unknown one.")
