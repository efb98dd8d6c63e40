"""Errors as RFC 9457 problem documents: the one place that maps errors to HTTP.

Below ``/v2`` they have the form of the Open Inference Protocol, which is one text.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from loss_scoring.service.api.models import Problem
from loss_scoring.service.errors import InvalidError, ServiceError

MEDIA_TYPE = "application/problem+json"
_MAX_TEXT = 1000


def problem(  # noqa: PLR0913 - what a problem says, and where it is read
    status: int,
    request_id: str,
    scope: Mapping[str, Any],
    *,
    detail: str | None = None,
    retryable: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with a problem that needs no explanation beyond its status."""
    phrase = HTTPStatus(status).phrase
    return _answer(
        {
            "type": "about:blank",
            "title": phrase,
            "status": status,
            "detail": detail or phrase,
            "errors": [],
            "request_id": request_id,
            "retryable": retryable,
        },
        scope,
        headers,
    )


def problem_of(
    error: ServiceError, request_id: str, scope: Mapping[str, Any] | None = None
) -> Response:
    """Answer with the problem of an error; without a scope, to what is no request yet."""
    document: Problem = {
        "type": f"urn:loss-scoring:problem:{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": _short(str(error)),
        "errors": [],
        "request_id": request_id,
        "retryable": error.retryable,
    }
    if isinstance(error, InvalidError):
        document["errors"] = [
            {"pointer": _short(fault.pointer), "detail": _short(fault.detail)}
            for fault in error.errors
        ]
        document["error_count"] = error.count
    after = error.retry_after_s
    headers = error.headers if after is None else {**error.headers, "Retry-After": str(after)}
    return _answer(document, scope, headers)


def _short(text: str) -> str:
    """Cut a text that quotes the request, where a name may fill megabytes."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def _answer(
    document: Problem, scope: Mapping[str, Any] | None, headers: Mapping[str, str] | None
) -> Response:
    content, media_type = orjson.dumps(document), MEDIA_TYPE
    path = "" if scope is None else scope["path"].removeprefix(scope.get("root_path", ""))
    if f"{path}/".startswith("/v2/"):
        content, media_type = orjson.dumps({"error": _in_one_text(document)}), "application/json"
    return Response(content, document["status"], dict(headers or {}), media_type=media_type)


def _in_one_text(document: Problem) -> str:
    faults = document["errors"]
    if len(faults) < 2:
        return document["detail"]  # names the only one
    listed = "; ".join(f"{fault['pointer']}: {fault['detail']}" for fault in faults)
    return f"{document['detail']}: {listed}"
