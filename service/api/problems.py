"""Errors as RFC 9457 problem documents: the one place that maps errors to HTTP."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from starlette.responses import Response

from loss_scoring.service.api.models import Problem
from loss_scoring.service.errors import InvalidError, ServiceError

MEDIA_TYPE = "application/problem+json"
_MAX_TEXT = 1000


def problem(
    status: int,
    request_id: str,
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
        headers,
    )


def problem_of(error: ServiceError, request_id: str) -> Response:
    """Answer with the problem of an error."""
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
    return _answer(
        document, error.headers if after is None else {**error.headers, "Retry-After": str(after)}
    )


def _short(text: str) -> str:
    """Cut a text that quotes the request, where a name may fill megabytes."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def _answer(document: Problem, headers: Mapping[str, str] | None) -> Response:
    return Response(
        orjson.dumps(document), document["status"], dict(headers or {}), media_type=MEDIA_TYPE
    )
