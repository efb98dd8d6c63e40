"""Errors as RFC 9457 problem documents: the one place that maps errors to HTTP."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from service.errors import InvalidError, ServiceError

MEDIA_TYPE = "application/problem+json"


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
    """Answer with the problem that an error stands for."""
    document: dict[str, Any] = {
        "type": f"urn:loss-scoring:problem:{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": str(error),
        "errors": [],
        "request_id": request_id,
        "retryable": error.retryable,
    }
    if isinstance(error, InvalidError):
        document["errors"] = [
            {"pointer": fault.pointer, "detail": fault.detail} for fault in error.errors
        ]
        document["error_count"] = error.count
    after = error.retry_after_s
    return _answer(document, None if after is None else {"Retry-After": str(after)})


def _answer(document: dict[str, Any], headers: Mapping[str, str] | None) -> Response:
    return Response(
        orjson.dumps(document), document["status"], dict(headers or {}), media_type=MEDIA_TYPE
    )
