"""Requests that no route takes: OPTIONS, HEAD, and what their sender may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from loss_scoring.service.api.context import context_of
from loss_scoring.service.api.problems import problem

_METHODS = ("GET", "HEAD", "POST")
_COMMON = {
    **dict.fromkeys(("", "doc", "help", "redoc", "swagger", "ui"), "/docs"),
    **dict.fromkeys(("health", "healthz", "ping", "status"), "/readyz"),
    **dict.fromkeys(("evaluate", "infer", "invocations", "loss", "predict"), "/score"),
}
"""What other services call it, by the last part of a path."""


class HeadMiddleware:
    """Routes HEAD as GET (RFC 9110, 9.3.2); the server leaves out the body of the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; its route becomes known in ``scope``."""
        if scope.get("method") != "HEAD":
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, send)
        finally:
            scope["route"] = as_get.get("route")


async def answer_unmatched(request: Request, error: Exception) -> Response:
    """Answer OPTIONS with ``Allow``; say of anything else which path or method was meant."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for this class
    method, path = request.method, request.url.path
    of_server = request.scope["path"] == "*"  # what OPTIONS may ask of no path in particular
    allowed = list(_METHODS) if of_server else _allowed(request.app.routes, path)
    if method == "OPTIONS" and allowed:
        return Response(status_code=204, headers={"Allow": ", ".join((*allowed, method))})
    headers = dict(error.headers or {})
    detail = f"{method} {path}: {error.detail}"
    if error.status_code == 405:
        headers["Allow"] = ", ".join(allowed)
        detail = f"{method} is not served at {path}; send {' or '.join(allowed)}"
    elif error.status_code == 404:
        known = [*request.app.openapi()["paths"], "/docs", "/openapi.json"]
        meant = _meant(path, known)
        asked = f"did you mean {_allowed(request.app.routes, meant)[0]} {meant}?" if meant else ""
        detail = f"there is no {path}; {asked or 'known are ' + ', '.join(known)}"
    return problem(
        *(error.status_code, context_of(request.scope).request_id), detail=detail, headers=headers
    )


def _allowed(routes: Iterable[BaseRoute], path: str) -> list[str]:
    """Return the methods that some route takes at a path."""
    scope: dict[str, Any] = {"type": "http", "path": path, "root_path": ""}
    found = {
        method
        for method in _METHODS
        for route in routes
        if route.matches({**scope, "method": method})[0] == Match.FULL
    }
    if "GET" in found:
        found.add("HEAD")
    return [method for method in _METHODS if method in found]


def _meant(path: str, known: list[str]) -> str | None:
    """Return the known path that a path looks like."""
    last = path.strip("/ ").lower().rpartition("/")[2]
    if last in _COMMON:
        return _COMMON[last]
    close = get_close_matches(f"/{last[:100]}", known, 1)
    return close[0] if close else None
